#pragma once

#include "actors/node_actor.hpp"
#include "apps/node_system.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace llumnix::bench {

/// A node of the shipped kind in this process, with actors of the benchmark as its roles: the same
/// actor system, links and heartbeats as `llumnix serve`. Ends with the process.
class bench_node {
public:
  /// Listens on a free loopback port and joins through `seeds`. `role_names` are told to other
  /// nodes: with one of gateway, scheduler and cms, the node gets a link to every node. Ends the
  /// process, with a line on stderr, when it cannot listen.
  bench_node(
    const std::string& name, std::vector<std::string> role_names, std::vector<std::string> seeds,
    std::vector<role_spec> roles);

  /// HOST:PORT of its node links.
  const std::string& address() const { return address_; }

  static node_config config_of(
    const std::string& name, std::vector<std::string> role_names, std::vector<std::string> seeds);
  static constexpr std::uint64_t incarnation = 1;

private:
  node_config config_;
  node_system system_;
  node_actor node_;
  std::string address_;
};

/// A role that is an untyped actor made by `make(self)`; `announce` puts it into the node's card.
template <class Make, class Announce>
role_spec untyped_role(std::string name, Make make, Announce announce) {
  return {
    std::move(name),
    [make](caf::local_actor& parent, const node_actor&) {
      return caf::actor_cast<caf::strong_actor_ptr>(parent.spawn(make));
    },
    announce};
}

/// CPU nanoseconds of this process, all threads.
std::int64_t process_cpu_ns();

} // namespace llumnix::bench
