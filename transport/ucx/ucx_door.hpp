#pragma once

#include "runtime/base/time.hpp"
#include "transport/ucx/door_socket.hpp"
#include "transport/ucx/ucx_gate.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <cstdint>
#include <list>

namespace llumnix::ucx {

/// The port that is told to peers. Whoever proves there to know the cluster's key is told where UCX
/// listens, and let through to it once within a few seconds, and to `lanes`, the gate of UCX's data
/// connections, for as long; UCX itself hears of nobody else. Runs on the UCX thread.
class ucx_door {
public:
  ucx_door(
    const ucx_settings& settings, const token& life, socket_watch& watch, ucx_gate& lanes);

  /// Listens. Callers wait until it leads somewhere.
  result<void> open(const sockaddr_storage& where);
  std::uint16_t port() const { return port_; }
  /// To UCX's listener, which nobody reaches any more but by the door.
  void lead_to(const sockaddr_storage& listener);
  /// Somebody has connected there, from within UCX.
  void came(const sockaddr_storage& who) { gate_.came(who); }
  void close();

  bool work(time_point now);
  time_point wake_at() const;

private:
  struct caller {
    door_socket socket;
    sockaddr_storage from;
    door_greeting greeting;
    time_point until;
  };
  bool take(time_point now);
  bool serve(caller& one, time_point now);

  const ucx_settings& settings_;
  const token life_;
  socket_watch& watch_;
  ucx_gate& lanes_;
  owned_descriptor listener_;
  std::uint16_t port_ = 0;
  std::uint16_t leads_to_ = 0;
  ucx_gate gate_;
  bool more_ = false; ///< wait to be taken, and nothing will wake us for them
  std::list<caller> callers_;
  time_point warned_at_{};
};

} // namespace llumnix::ucx
