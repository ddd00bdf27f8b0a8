#pragma once

#include "config/cluster_config.hpp"
#include "integrations/redis/mirror_records.hpp"
#include "integrations/redis/redis_client.hpp"
#include "integrations/redis/redis_metrics.hpp"
#include "runtime/cluster/cms_store.hpp"

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// The CMS STORE in Redis, in the reference's keys and bytes (spec/cms.md 1). Write-behind: callers
/// leave their newest value and go on; a thread of the store's own writes what changed, at most
/// every `cms.status_interval`, rewrites metadata every `cms.metadata_interval` as a heartbeat, and
/// writes everything again when a lost link comes back. All members may be called from any thread.
class redis_cms_store final : public cms_store {
public:
  /// Starts at once; whether the server is there shows in `metrics`. `invalid_argument` for an
  /// address that is no HOST:PORT or an expiry that is not above both intervals.
  static result<std::unique_ptr<redis_cms_store>>
  make(const redis_config& redis, const cms_config& cms);
  /// Tries for at most 200 ms to write what is pending. Readings under way hear `cancelled`. Not to
  /// be called from `done` of a reading.
  ~redis_cms_store() override;

  void put_metadata(const instance_metadata& metadata) override;
  /// Written once the instance's metadata is known.
  void put_status(const instance_status& status) override;
  void remove(const instance_id& id) override;
  // Readings wait for a link at most `redis.timeout`, and for each reply likewise.

  void read_metadata(std::function<void(result<std::vector<instance_metadata>>)> done) override;
  void read_statuses(
    std::vector<instance_id> instances, std::function<void(result<stored_statuses>)> done) override;

  const redis_metrics& metrics() const { return metrics_; }

private:
  using link_handler = std::function<void(result<void>)>;

  redis_cms_store(const redis_config& redis, const cms_config& cms);
  void note(const instance_id& id, const std::function<void(mirror_change&)>& merge);

  // On the client's thread.
  void on_link(bool up);
  void take_changes();
  void schedule();
  void flush();
  void pump();
  void on_answer(const mirror_write& write, const result<redis_reply>& reply);
  void heartbeat();
  void with_link(link_handler go_on);
  template <class T>
  std::function<void(result<T>)>
  counted(std::function<void(result<T>)> done, loop_histogram& took_ms);
  void on_odd_record(std::string_view id, std::string_view why);
  void close(std::function<void()> closed);
  void finish();
  void publish_pending();

  redis_config redis_;
  cms_config cms_;
  redis_metrics metrics_;

  std::mutex mutex_;                             // guards the next three
  std::map<instance_id, mirror_change> changes_; // not yet in records_
  bool woken_ = false;                           // the client's thread knows that there are some
  std::size_t unconfirmed_ = 0;                  // instances of records_ the server lags behind on

  mirror_records records_;
  std::size_t in_flight_ = 0; // writes without an answer
  bool flush_armed_ = false;
  time_point flushed_at_{};
  time_point hold_until_{};      // after a refused write
  bool batch_refused_ = false;   // in part; or lost with its link
  bool batch_confirmed_ = false; // in part
  bool refusal_reported_ = false;
  std::uint64_t links_ = 0;                                // so far
  std::map<std::uint64_t, link_handler> waiting_readings_; // for a link, by number
  std::uint64_t readings_ = 0;
  std::set<std::string> odd_records_; // already logged
  bool closing_ = false;
  bool last_flush_begun_ = false;
  std::function<void()> closed_; // hears that nothing more is written

  std::unique_ptr<redis_client> client_; // last: its thread ends before the rest does
};

} // namespace llumnix
