#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "runtime/base/time.hpp"

#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <caf/io/network/test_multiplexer.hpp>
#include <caf/scheduler/test_coordinator.hpp>

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace llumnix {

/// One process of the virtual network: an actor system whose scheduler and sockets move only when
/// told.
struct virtual_process {
  explicit virtual_process(const std::function<void(caf::actor_system_config&)>& configure);
  ~virtual_process();

  struct config;
  std::unique_ptr<config> settings;
  std::unique_ptr<caf::actor_system> system;
  caf::scheduler::test_coordinator* scheduler = nullptr;
  caf::io::network::test_multiplexer* sockets = nullptr;
  bool alive = true;
  bool paused = false;
  std::vector<caf::actor> roots; ///< ended when the process is destroyed

  bool runs() const { return alive && !paused; }
};

/// Processes, the byte streams between them, and one clock. Every step is drawn from the seed among
/// all that could happen next: a message handled, a packet read. Time passes only when nothing else
/// can happen.
class virtual_network {
public:
  explicit virtual_network(std::uint64_t seed) : random_{seed} {}

  /// Adds a process; returns its index, which stays valid.
  std::size_t add(const std::function<void(caf::actor_system_config&)>& configure);
  virtual_process& process(std::size_t index) { return *processes_[index]; }
  /// Publishes a NODE under host:port, as other processes dial it; a former owner of the host is
  /// forgotten.
  void
  publish(std::size_t index, const std::string& host, std::uint16_t port, const node_actor& node);

  void crash(std::size_t index);
  void cut(std::size_t a, std::size_t b, bool is_cut);
  void delay(std::size_t a, std::size_t b, nanoseconds by);
  void reset(std::size_t a, std::size_t b);
  /// The process's clock catches up with the world.
  void resume(std::size_t index);

  /// Runs until the predicate holds or the virtual time `limit` is reached.
  bool run_until(const std::function<bool()>& holds, nanoseconds limit);
  nanoseconds now() const { return now_; }
  std::uint64_t trace() const { return trace_; }

private:
  struct connection {
    std::size_t server;
    std::size_t client;
    caf::io::connection_handle at_server;
    caf::io::connection_handle at_client;
    bool linked = false;
    bool dead = false;
  };
  struct listener {
    std::size_t process;
    std::string host;
    std::uint16_t port;
    caf::io::accept_handle handle;
  };
  struct link_state {
    bool cut = false;
    nanoseconds held_until{0};
  };

  bool step();
  bool tick(nanoseconds limit);
  void provision();
  void settle(std::size_t index);
  void end(connection& x, bool at_server);
  link_state& link(std::size_t a, std::size_t b);
  bool passes(const connection& x);
  void note(std::uint64_t x) { trace_ = (trace_ ^ x) * 1099511628211ull; }

  std::mt19937_64 random_;
  std::vector<std::unique_ptr<virtual_process>> processes_;
  std::vector<connection> connections_;
  std::vector<listener> listeners_;
  std::map<std::pair<std::size_t, std::size_t>, link_state> links_;
  std::uint64_t trace_ = 1469598103934665603ull;
  nanoseconds now_{1};
  std::int64_t handles_ = 0;
};

} // namespace llumnix
