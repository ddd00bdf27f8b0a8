#pragma once

#include "transport/ucx/ucx_counters.hpp"
#include "transport/ucx/ucx_endpoint.hpp"
#include "transport/ucx/ucx_gate.hpp"
#include "transport/ucx/ucx_knock.hpp"
#include "transport/ucx/ucx_messages.hpp"
#include "transport/ucx/ucx_staging.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

namespace llumnix::ucx {

/// A job as it was ordered.
struct pull_order {
  kv_transport::job_id id = 0;
  address from;
  handover_id key;
  kv_transport::region_id into = 0;
  kv_memory memory; ///< of `into`
  std::vector<kv_span> spans;
  time_point deadline;
  std::function<void(kv_transport::outcome)> done;
};

/// The half that pulls: it connects, asks for chunk after chunk, and ends each job once nothing of
/// it is under way. What a peer does not answer in time is cut off with its connection; the other
/// jobs of that connection begin their open chunks again on a new one. Runs on the UCX thread.
class ucx_destination {
public:
  /// `lanes`: the gate of UCX's data connections, which a peer that is asked may make, too.
  ucx_destination(
    const ucx_settings& settings, shared_counters& counters, socket_watch& watch, ucx_gate& lanes);

  void use(ucp_worker_h worker) { worker_ = worker; }
  /// What the bytes for that device's regions pass through.
  void use(std::shared_ptr<kv_device> device, std::shared_ptr<ucx_staging> staging) {
    staging_[std::move(device)] = std::move(staging);
  }
  /// From within UCX.
  void on_message(message what) { inbox_.push_back(std::move(what)); }
  /// Bytes of a chunk, from within UCX; what it returns is UCX's answer.
  ucs_status_t on_chunk(const chunk_header& header, void* data, std::size_t bytes, bool announced);

  void start(pull_order order, time_point now);
  void cancel(kv_transport::job_id job, time_point now);
  /// Cancels the jobs into a region; `gone` comes once there are none.
  void forgetting(kv_transport::region_id region, time_point now, std::function<void()> gone);

  bool work(time_point now);
  time_point wake_at() const { return look_at_; }
  bool busy() const { return !jobs_.empty() || closing_ > 0; }
  /// Whether a device copies for us.
  bool copying() const { return !scatters_.empty(); }
  /// Cancels all jobs and closes all connections.
  void stop(time_point now);
  bool stopped() const { return jobs_.empty() && links_.empty(); }
  void stood_still(nanoseconds gap);

private:
  using job_id = kv_transport::job_id;
  struct range { ///< of a job's spans
    std::size_t first = 0;
    std::size_t last = 0;
  };
  struct job {
    pull_order order;
    std::size_t next = 0;      ///< first span not yet asked for
    std::vector<range> again;  ///< asked for, and lost with a connection
    std::size_t under_way = 0; ///< requests without an answer, and scatters
    std::size_t scattering = 0;
    std::uint64_t landed = 0;
    std::uint64_t link = 0; ///< 0: none
    bool queued = false;    ///< in its link's round
    int links_lost = 0;
    bool leases = false;     ///< reads the source's memory itself
    std::uint64_t lease = 0; ///< the request for it; 0: none
    bool granted = false;
    std::uint32_t process = 0;
    std::uint64_t source_memory = 0;
    bool ending = false;
    error why{errc::ok, {}};
    time_point cut_at = time_point::max();
  };
  struct request {
    job_id job = 0;
    range of;
    bool lease = false;
    std::uint64_t bytes = 0;
    bool receiving = false;
    std::uint64_t checksum = 0;
    std::optional<ucx_staging::part> staged; ///< for a device
  };
  /// Bytes that have come and are on their way into a device. They need no connection any more.
  struct scatter {
    request of;
    std::unique_ptr<kv_device::copy> copy;
  };
  struct link {
    std::uint64_t id = 0;
    std::uint64_t server_link = 0;
    peer at;
    std::optional<ucx_knock> knock;    ///< while the peer's door has not told UCX's port
    std::unique_ptr<ucx_endpoint> end; ///< from then on
    token nonce;
    bool ready = false;
    bool leases = false; ///< worth asking for
    time_point opened, heard, pinged, used;
    std::string why_closed;
    std::map<std::uint64_t, request> requests;
    std::deque<job_id> round; ///< jobs with something to ask for

    bool closing() const { return !knock && (!end || end->closing()); }
    bool closed() const { return closing() && (!end || end->closed()); }
  };
  struct arrival {
    std::uint64_t link, request;
    ucs_status_t status;
  };

  void handle(message& what, time_point now);
  void on(link& from, const challenge& x, time_point now);
  void on(link& from, const welcome& x, time_point now);
  void on(link& from, const refusal& x, time_point now);
  void on(link& from, const denial& x, time_point now);
  void on(link& from, const lease_grant& x, time_point now);
  void on(link& from, const lease_end& x, time_point now);
  void on(link& from, const pong& x, time_point now);
  template <class T>
  void on(link& from, const T&, time_point); ///< what a server never says

  link* find_link(std::uint64_t id);
  job* find_job(job_id id);
  result<link*> link_to(const peer& at, time_point now);
  bool come_in(link& one, time_point now);
  void attach(job& x, time_point now);
  void queue(link& at, job& x);
  void ask_around(time_point now);
  void ask(link& at, time_point now);
  bool ask_chunk(link& at, job& x);
  void ask_lease(link& at, job& x);
  void arrived(const arrival& x, time_point now);
  static std::span<const kv_span> spans_in(const job& x, const range& of);
  bool came_well(job& x, const request& of, time_point now);
  void chunk_landed(job& x, const request& of);
  void begin_scatter(job& x, request of);
  bool finish_scatters(time_point now);
  bool copy(time_point now);
  void give_back(job& x);
  void read_no_more(link& at, job& x, time_point now);
  void by_chunks(link& at, job& x, time_point now);

  void stop_job(job& x, error why, time_point now);
  void settle(job_id id, time_point now);
  void release_forgotten();
  void close(link& one, std::string why);
  void look(link& one, time_point now);
  void lost(link& one, time_point now);
  void look_at(time_point at) { look_at_ = std::min(look_at_, at); }
  void look_around(time_point now);

  const ucx_settings& settings_;
  shared_counters& counters_;
  socket_watch& watch_;
  ucx_gate& lanes_;
  ucp_worker_h worker_ = nullptr;
  bool stopping_ = false;
  std::uint64_t last_request_ = 0;
  time_point look_at_ = time_point::max();
  std::size_t closing_ = 0;
  std::deque<message> inbox_;
  std::vector<arrival> arrivals_;
  std::map<std::uint64_t, link> links_;
  std::uint64_t asked_first_ = 0;         ///< links take turns with the staging
  std::set<const kv_device*> full_;       ///< whose staging lacked room in this round
  std::map<peer, std::uint64_t> by_peer_; ///< links that are not closing
  std::map<job_id, job> jobs_;
  std::deque<job_id> copying_;
  std::map<std::shared_ptr<kv_device>, std::shared_ptr<ucx_staging>> staging_;
  std::list<scatter> scatters_;
  std::list<std::pair<kv_transport::region_id, std::function<void()>>> forgetting_;
};

} // namespace llumnix::ucx
