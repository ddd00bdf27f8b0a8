#pragma once

#include "transport/memory_table.hpp"
#include "transport/ucx/patience.hpp"
#include "transport/ucx/ucx_counters.hpp"
#include "transport/ucx/ucx_endpoint.hpp"
#include "transport/ucx/ucx_messages.hpp"
#include "transport/ucx/ucx_staging.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <utility>
#include <vector>

namespace llumnix::ucx {

/// The half that is read from: takes connections, knows who may read what, and sends. It keeps no
/// jobs: a peer asks for each chunk. Runs on the UCX thread.
class ucx_source {
public:
  ucx_source(
    const ucx_settings& settings, memory_table& memory, shared_counters& counters, token life);

  void use(ucp_worker_h worker, ucp_listener_h listener);
  /// What the bytes of that device's regions pass through.
  void use(std::shared_ptr<kv_device> device, std::shared_ptr<ucx_staging> staging) {
    outlets_[std::move(device)].staging = std::move(staging);
  }
  /// From within UCX.
  void on_connection(ucp_conn_request_h request) { knocking_.push_back(request); }
  /// `reply` is the endpoint a greeting came by.
  void on_message(message what, ucp_ep_h reply) { inbox_.emplace_back(std::move(what), reply); }

  /// Whoever still reads under `key` shortly after `now` is cut off.
  void closing(const handover_id& key, time_point now);
  /// The same for a region; `gone` comes once nobody reads it.
  void forgetting(kv_transport::region_id region, time_point now, std::function<void()> gone);

  bool work(time_point now);
  time_point wake_at() const;
  bool busy() const;
  /// Whether a device copies for us.
  bool copying() const;
  /// Cuts all connections, and turns new ones away until none has come for a while.
  void stop(time_point now);
  bool stopped() const { return quiet_ && links_.empty() && knocking_.empty(); }
  /// The thread stood still for so long; nobody else is to blame for it.
  void stood_still(nanoseconds gap);

private:
  /// Bytes on their way, or a peer's right to read them itself.
  struct reading {
    handover_id key;
    kv_transport::region_id region = 0;
    std::uint64_t bytes = 0;
    std::shared_ptr<bool> sent; ///< of a send
    memory_table::permit under; ///< none once nothing is read any more: the bytes are in `staged`
    std::optional<ucx_staging::part> staged{};
    time_point cut_at = time_point::max(); ///< it is ended then, with its connection
  };
  /// Bytes of a device that are wanted: first there is no room for them, then they are copied, and
  /// then they are sent like others.
  struct gathering {
    std::uint64_t request = 0;
    bool checksum = false;
    std::vector<kv_piece> pieces;
    kv_memory memory;
    reading what;
    std::unique_ptr<kv_device::copy> copy; ///< none yet without room
  };
  struct link {
    std::uint64_t id = 0; ///< drawn: to know it is to be this peer
    std::uint64_t client_link = 0;
    std::unique_ptr<ucx_endpoint> end;
    token client_nonce, server_nonce;
    bool proven = false;
    time_point opened, heard;
    std::list<reading> sends;
    std::list<gathering> gathers;
    std::map<std::uint64_t, reading> leases;

    bool reads() const { return !sends.empty() || !gathers.empty() || !leases.empty(); }
    peer_times times() const;
    /// Those that wait for the peer: what it is sent, and what is lent to it.
    template <class Call>
    void each_open(Call call);
  };
  /// Where the bytes of a device leave, and who waits for that.
  struct outlet {
    std::shared_ptr<ucx_staging> staging;
    std::deque<std::uint64_t> turns; ///< links with gathers without room, each once
  };

  void accept(time_point now);
  void handle(message& what, ucp_ep_h reply, time_point now);
  void on(link& from, const hello& x, time_point now);
  void on(link& from, const answer& x, time_point now);
  void on(link& from, const read_request& x, time_point now);
  void on(link& from, const lease_request& x, time_point now);
  void on(link& from, const lease_return& x, time_point now);
  void on(link& from, const ping& x, time_point now);
  template <class T>
  void on(link& from, const T&, time_point); ///< what a client never says

  /// Asks the table; denies when it says no.
  bool begin(
    link& from, std::uint64_t request, const handover_id& key, kv_transport::region_id region,
    memory_table::readable& got);
  void deny(link& from, std::uint64_t request, errc why);
  void send(
    link& to, chunk_header header, std::vector<ucp_dt_iov_t> pieces, reading what, time_point now);
  void read_device(link& from, const read_request& x, memory_table::readable got);
  gathering* next_gather(std::uint64_t id, const std::shared_ptr<kv_device>& device);
  void begin_gathers(const std::shared_ptr<kv_device>& device, outlet& out);
  void drop_waiting(const std::function<bool(const reading&)>& which);
  bool finish_gathers(link& one, time_point now);
  bool sweep(link& one, time_point now);
  template <class Which>
  static bool reads(const link& one, Which which);
  template <class Which>
  void cut_readers(Which which, time_point at);
  bool anybody_reads(kv_transport::region_id region) const;

  const ucx_settings& settings_;
  memory_table& memory_;
  shared_counters& counters_;
  token life_;
  token secret_; ///< readers of our memory look for it
  ucp_worker_h worker_ = nullptr;
  ucp_listener_h listener_ = nullptr;
  bool stopping_ = false;
  time_point quiet_at_ = time_point::max(); ///< once stopping: when it is quiet if nobody knocks
  bool quiet_ = false;
  std::vector<ucp_conn_request_h> knocking_;
  std::deque<std::pair<message, ucp_ep_h>> inbox_;
  std::map<std::uint64_t, link> links_;
  std::map<std::shared_ptr<kv_device>, outlet> outlets_;
  std::list<std::pair<kv_transport::region_id, std::function<void()>>> forgetting_;
};

} // namespace llumnix::ucx
