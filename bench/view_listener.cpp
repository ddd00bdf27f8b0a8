// Joins a cluster as a node with a CMS, keeps the view that a scheduler decides by, and tells how
// old each status was when it had been applied there, by the time its llumlet stamped on it (whole
// milliseconds, rounded down: up to one millisecond too much is counted).
//
// usage: bench_view_listener SEED INSTANCES WARM_UP_SECONDS SECONDS
#include "actors/role_specs.hpp"
#include "actors/view_feed.hpp"
#include "bench/bench_node.hpp"
#include "runtime/base/log.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <thread>

namespace {

using namespace llumnix;
using steady = std::chrono::steady_clock;

/// What the listener saw, read by main.
struct seen {
  std::mutex mutex;
  std::vector<double> ages_ms;
  std::map<instance_id, std::size_t> instances; ///< statuses while counting, by instance
  bool counting = false;
};

struct listening {
  listening() = default;
  dispatcher view = std::move(*dispatcher::make({}));
};

/// Subscribes to its node's CMS like SCHEDULER does.
caf::behavior
listen(caf::stateful_actor<listening>* self, std::shared_ptr<seen> what, wall_clock wall) {
  return {
    [=](const peer_up_msg& msg) {
      if (msg.card.self.life.node == "bench" && !msg.card.cms.empty())
        self->send(
          msg.card.cms.front(),
          subscribe_view_msg{caf::actor_cast<view_listener>(caf::actor{self})});
    },
    [](const peer_down_msg&) {},
    [=](const view_change_msg& msg) {
      apply(self->state.view, msg, wall.at(self->clock().now()));
      auto now_us = std::chrono::duration_cast<std::chrono::microseconds>(
                      steady::now().time_since_epoch() + wall.offset)
                      .count();
      std::lock_guard lock{what->mutex};
      for (const auto& status : msg.statuses) {
        auto& count = what->instances[status.instance_id];
        if (!what->counting)
          continue;
        ++count;
        what->ages_ms.push_back(static_cast<double>(now_us - status.timestamp_ms * 1000) / 1000);
      }
    },
  };
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: bench_view_listener SEED INSTANCES WARM_UP_SECONDS SECONDS\n");
    return 2;
  }
  auto expected = static_cast<std::size_t>(std::atol(argv[2]));
  log::configure({.threshold = log::level::error, .json = false, .node = "bench"});
  wall_clock wall;
  wall.offset = std::chrono::duration_cast<std::chrono::nanoseconds>(
    std::chrono::system_clock::now().time_since_epoch() - steady::now().time_since_epoch());
  auto what = std::make_shared<seen>();
  bench::bench_node node{
    "bench",
    {"cms"},
    {argv[1]},
    {cms_role(
       {{"bench", bench::bench_node::incarnation},
        {},
        wall,
        std::make_shared<node_counters>(),
        {}}),
     bench::untyped_role(
       "listener", [=](caf::stateful_actor<listening>* self) { return listen(self, what, wall); },
       [](node_card&, const caf::strong_actor_ptr&) {})}};
  std::this_thread::sleep_for(std::chrono::seconds{std::atol(argv[3])});
  {
    std::lock_guard lock{what->mutex};
    what->counting = true;
  }
  auto begin = bench::process_cpu_ns();
  std::this_thread::sleep_for(std::chrono::seconds{std::atol(argv[4])});
  auto cpu = bench::process_cpu_ns() - begin;
  std::lock_guard lock{what->mutex};
  auto& ages = what->ages_ms;
  if (what->instances.size() != expected || ages.empty()) {
    std::fprintf(
      stderr, "%zu statuses of %zu instances; expected %zu\n", ages.size(), what->instances.size(),
      expected);
    std::_Exit(1);
  }
  std::sort(ages.begin(), ages.end());
  auto at = [&](double share) {
    return ages[static_cast<std::size_t>(share * static_cast<double>(ages.size() - 1))];
  };
  // Each tells its status once a second anyway.
  auto busy = std::count_if(what->instances.begin(), what->instances.end(), [&](const auto& x) {
    return static_cast<double>(x.second) > 2 * std::atof(argv[4]);
  });
  fmt::print(
    "{} instances, {} of them with changing load; {} statuses ({:.0f}/s), {:.1f} us CPU each "
    "here\n",
    what->instances.size(), busy, ages.size(),
    static_cast<double>(ages.size()) / std::atof(argv[4]),
    static_cast<double>(cpu) / 1e3 / static_cast<double>(ages.size()));
  fmt::print(
    "status to view, ms: p50 {:.2f}, p90 {:.2f}, p99 {:.2f}, p99.9 {:.2f}, most {:.2f}\n", at(0.5),
    at(0.9), at(0.99), at(0.999), ages.back());
  std::fflush(stdout);
  std::_Exit(0); // the node ends with the process
}
