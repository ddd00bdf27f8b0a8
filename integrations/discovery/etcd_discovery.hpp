#pragma once

#include "config/cluster_config.hpp"
#include "integrations/discovery/etcd_call.hpp"
#include "integrations/discovery/etcd_reading.hpp"
#include "integrations/discovery/pod_ledger.hpp"
#include "net/upstream_pool.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/cluster/discovery.hpp"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// Engines by the records that the reference's sidecars keep in an etcd (spec/discovery.md D), over
/// its JSON gateway: all of them are read as of one revision, then watched from the next one on. A
/// probe every few seconds makes sure that the watch still tells everything. Whatever goes wrong
/// (a member, the watch, a compaction), the records are read again, from the next member, while the
/// last ones stay in force. Which are believed says `pod_ledger`.
class etcd_discovery final : public discovery {
public:
  /// `config.etcd` names the members, HOST:PORT; `pool` and `loop` outlive it.
  etcd_discovery(
    const discovery_config& config, record_rules rules, net::upstream_pool& pool, executor& loop);
  ~etcd_discovery() override;

  void start(listener told) override;
  void tick() override;
  discovery_health health() const override;

private:
  enum class phase { waiting, authenticating, reading, watching };

  std::unique_ptr<etcd_call>
  ask(std::string_view path, std::string body, void (etcd_discovery::*then)());
  void later(void (etcd_discovery::*what)());
  void begin();
  void read_page();
  void watch();
  void probe();
  void take_token();
  void take_page();
  void take_probe();
  void take_lines(const std::vector<std::string>& lines);
  bool take_line(const std::string& line);
  bool give_up_watch(error why);
  void end_watch();
  void fail(const error& why);
  void note_answer();
  void tell();
  time_point deadline(int timeouts) const { return loop_.now() + timeouts * timeout_; }

  std::vector<std::string> members_;
  std::string username_;
  std::string password_;
  milliseconds interval_;
  milliseconds timeout_;
  net::upstream_pool& pool_;
  executor& loop_;
  listener told_;

  pod_ledger ledger_;
  std::vector<discovered_engine> engines_;
  bool told_once_ = false;
  std::optional<time_point> answered_at_;
  std::uint64_t errors_ = 0;
  bool failure_told_ = false;

  phase phase_ = phase::waiting;
  std::size_t member_ = 0;         ///< of members_: the one that is asked
  std::size_t failed_members_ = 0; ///< in a row
  milliseconds pause_;             ///< once all have failed
  time_point due_{};               ///< waiting: to begin; else: the end of patience
  std::string token_;
  std::optional<etcd_reading> reading_;
  time_point reading_until_{};

  // Of the watch under way.
  bool created_ = false;
  bool proven_ = false;         ///< a probe agreed with it
  std::optional<error> broken_; ///< why it is being given up
  bool whole_ = true;           ///< the ledger holds all records that there are
  std::int64_t read_revision_ = 0;
  std::int64_t newest_told_ = 0;
  watch_doubt doubt_;
  time_point read_again_at_{};
  time_point probe_at_{};
  time_point probe_until_{};

  std::shared_ptr<char> alive_ = std::make_shared<char>(); // what is posted asks for it
  std::shared_ptr<char> attempt_;                          // likewise, of this attempt
  std::unique_ptr<etcd_call> call_;                        // of the phase
  std::unique_ptr<etcd_call> probe_;
};

} // namespace llumnix
