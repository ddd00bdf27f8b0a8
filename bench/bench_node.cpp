#include "bench/bench_node.hpp"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <unistd.h>

namespace llumnix::bench {

node_config bench_node::config_of(
  const std::string& name, std::vector<std::string> role_names, std::vector<std::string> seeds) {
  node_config config;
  config.name = name;
  config.roles = std::move(role_names);
  config.seeds = std::move(seeds);
  config.incarnation = incarnation;
  return config;
}

bench_node::bench_node(
  const std::string& name, std::vector<std::string> role_names, std::vector<std::string> seeds,
  std::vector<role_spec> roles)
  : config_{config_of(name, std::move(role_names), std::move(seeds))}, system_{config_} {
  node_actor_config node;
  node.knobs = config_;
  node.life = {name, incarnation};
  node.pid = ::getpid();
  node.roles = std::move(roles);
  node.counters = std::make_shared<node_counters>();
  node.connector = system_.connector();
  node_ = system_.actors().spawn(make_node, std::move(node));
  auto bound = system_.publish(node_, config_.listen);
  if (!bound) {
    std::fprintf(stderr, "%s\n", to_string(bound.error()).c_str());
    std::_Exit(1);
  }
  address_ = *bound;
  caf::anon_send(node_, listening_msg{address_});
}

std::int64_t process_cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return std::int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

} // namespace llumnix::bench
