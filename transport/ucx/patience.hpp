#pragma once

#include "runtime/base/time.hpp"
#include "transport/ucx/ucx_transport.hpp"

namespace llumnix::ucx {

/// What a source knows of a peer's connection, as far as it decides how long it bears with it.
struct peer_times {
  bool closing = false; ///< cut off already
  bool proven = false;  ///< it knows the cluster's key
  bool reads = false;   ///< bytes are on their way to it, wanted by it, or lent to it
  time_point opened;
  time_point heard;                      ///< when it last said or took something
  time_point cut_at = time_point::max(); ///< the first time limit among its readings
};

/// When the connection is cut off if nothing changes until then; never for one that is being closed
/// already, so that nobody is woken for it.
time_point cut_off_at(const peer_times& x, const ucx_settings& settings);

} // namespace llumnix::ucx
