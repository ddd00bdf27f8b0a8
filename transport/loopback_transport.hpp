#pragma once

#include "transport/kv_transport.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace llumnix {

/// A job as the loopback's hook sees it.
struct loopback_job {
  kv_transport::job_id job = 0; ///< unique in its network, counted from 1
  std::string from;             ///< the address pulled from
  handover_id key;
  std::uint64_t bytes = 0; ///< asked for
  nanoseconds deadline{0}; ///< as the caller gave it; nobody but the driver keeps it
};

/// What becomes of a job.
struct loopback_fate {
  bool hold = false;          ///< waits for `proceed` or `fail`
  bool corrupt = false;       ///< its first byte lands wrong
  error why = {errc::ok, {}}; ///< not `ok`: it ends so, before a byte lands
};

/// The process-wide memory in which loopback transports find each other. A handle: copies name the
/// same network. The order of things is that of the calls, and nothing here knows a clock.
class loopback_network {
public:
  /// With `checksums`, what lands wrong ends its job with `bad_message`.
  explicit loopback_network(bool checksums = false);

  /// Asked once for each job that could begin, inside `pull`. None: every job is done at once.
  void on_pull(std::function<loopback_fate(const loopback_job&)> hook);
  /// Jobs that wait, in the order of their ids.
  std::vector<loopback_job> held() const;
  /// Lands up to `bytes_max` more of a held job, and ends it when that was all. False when there is
  /// no such job.
  bool proceed(kv_transport::job_id job, std::uint64_t bytes_max = UINT64_MAX);
  /// Ends a held job, say with `timeout`.
  bool fail(kv_transport::job_id job, error why);

  /// A transport of this network; it may outlive the handle. With its end its jobs are `cancelled`
  /// and those that read from it `unreachable`.
  std::unique_ptr<kv_transport> make_transport() const;

private:
  class state;
  class transport;
  std::shared_ptr<state> state_;
};

} // namespace llumnix
