#pragma once

#include "tests/transport/transport_fixture.hpp"

#include <cstdint>
#include <string>
#include <sys/types.h>

namespace llumnix::testing {

/// A source in a process of its own (transport_peer.cpp), its window open under `key`.
class peer_process {
public:
  struct options {
    bool same_host = false;
    std::string cluster_key = "a key of tests";
    std::uint16_t port = 0;
    std::uint64_t bytes = 1 << 20;
    std::uint64_t seed = 1;
    bool device = false; ///< its memory is a device's
  };
  static constexpr handover_id key{0x3333, 0x4444};

  explicit peer_process(const options& how);
  ~peer_process();
  peer_process(const peer_process&) = delete;
  peer_process& operator=(const peer_process&) = delete;

  const std::string& address() const { return address_; }
  std::uint16_t port() const;
  void close_window();
  /// Waits for a line; fails the test without one in ten seconds, empty at the end of output.
  std::string line(std::chrono::milliseconds patience = 10s);
  /// SIGSTOP, returning once it stands still.
  void stand_still();
  void go_on();
  void kill();

private:
  pid_t process_ = -1;
  int in_ = -1;
  int out_ = -1;
  std::string unread_;
  std::string address_;
};

} // namespace llumnix::testing
