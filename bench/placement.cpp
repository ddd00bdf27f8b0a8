#include "actors/prefix_watch.hpp"
#include "runtime/base/assert.hpp"
#include "runtime/scheduling/dispatcher.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <string>
#include <unistd.h>
#include <vector>

/// What placements cost, beside their floor, a plain loop that takes the least of as many floats;
/// and what 1000 instances hold of memory.
///
/// All times are CPU time of the thread. Averages are the best of several runs, as what disturbs a
/// run only ever adds to it; quantiles are of single decisions, without what asking the clock
/// costs.
///
///     decide              choose, without booking
///     place and release   choose, book, and take the booking back
///     with statuses       the same, with a new status between every two decisions, its cost
///     included
namespace {

using namespace llumnix;

constexpr int runs = 7;
constexpr unix_ms noon = 1'700'000'000'000;
constexpr int instances_max = 1'000;
constexpr std::size_t block_tokens = 16;
constexpr std::size_t prompt_blocks = 128;

double cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e9 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec);
}

/// Memory of the process that is really there.
double resident_mib() {
  std::ifstream statm{"/proc/self/statm"};
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1024 * 1024);
}

/// Keeps the compiler from leaving out what computes `x`, and from knowing it next time.
template <class T>
void keep(T& x) {
  asm volatile("" : : "r"(&x) : "memory");
}

/// CPU nanoseconds per call of `work`, which is told how often it was called before.
template <class Work>
double measure(int calls, Work work) {
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    auto begin = cpu_ns();
    for (int call = 0; call < calls; ++call)
      work(call);
    best = std::min(best, (cpu_ns() - begin) / calls);
  }
  return best;
}

struct quantiles {
  double median = 0;
  double p99 = 0;
};

/// CPU nanoseconds of single calls.
template <class Work>
quantiles spread(int calls, Work work) {
  std::vector<double> took;
  took.reserve(static_cast<std::size_t>(calls));
  for (int call = -calls / 10; call < calls; ++call) {
    auto begin = cpu_ns();
    work(std::max(call, 0));
    auto end = cpu_ns();
    if (call >= 0)
      took.push_back(end - begin);
  }
  std::ranges::sort(took);
  return {took[took.size() / 2], took[took.size() * 99 / 100]};
}

/// What asking the clock twice takes by itself.
double clock_ns() {
  return spread(100'000, [](int) {}).median;
}

instance_id name_of(int i) {
  return fmt::format("engine-{}", i);
}

/// Loads without an order, the same ones each time.
std::int32_t load_of(int i) {
  return 1 + static_cast<std::int32_t>(static_cast<std::uint32_t>(i) * 2'654'435'761u % 4'096);
}

instance_status status_of(int i) {
  instance_status status;
  status.instance_id = name_of(i);
  status.schedulable = true;
  status.timestamp_ms = noon;
  status.update_id = 1;
  status.num_total_gpu_tokens = 12'672;
  status.num_uncomputed_tokens_all_waiting_prefills = load_of(i);
  return status;
}

/// T(tokens) = 10 + tokens / 20 and P(batch, each) = 5 + batch / 8, in tables of the usual size.
latency_profile profile() {
  std::vector<profile_point> prefills, steps;
  for (double tokens = 1; tokens <= 16'384; tokens *= 2) {
    prefills.push_back({tokens, 0, 10 + tokens / 20});
    for (double batch = 1; batch <= 256; batch *= 2)
      steps.push_back({batch, 8 * tokens, 5 + batch / 8});
  }
  prefills.push_back({0, 0, 10});
  return {interpolation_table{std::move(prefills)}, interpolation_table{std::move(steps)}};
}

/// Every second instance decodes where roles are apart.
dispatcher cluster_of(int instances, const scheduler_config& config, bool roles_apart = false) {
  auto made = dispatcher::make(config, profile());
  LLUMNIX_ASSERT(made.has_value());
  for (int i = 0; i < instances; ++i) {
    instance_metadata metadata;
    metadata.instance_id = metadata.unit_id = name_of(i);
    metadata.instance_type = !roles_apart ? "neutral" : i % 2 == 0 ? "prefill" : "decode";
    metadata.max_num_batched_tokens = 2'048;
    made->put(metadata, {metadata.instance_id, 1});
    made->update(status_of(i), noon);
  }
  return std::move(*made);
}

double floor_of(int instances, int calls) {
  std::vector<float> loads;
  for (int i = 0; i < instances; ++i)
    loads.push_back(static_cast<float>(load_of(i)));
  return measure(calls, [&](int) {
    keep(*loads.data());
    float least = loads[0];
    for (auto load : loads)
      least = load < least ? load : least;
    keep(least);
  });
}

double decide(int instances, int calls) {
  scheduler_config config;
  config.local_account = false;
  auto by = cluster_of(instances, config);
  placement_query query{"request-0", 256, {}};
  return measure(calls, [&](int) {
    auto placed = by.place(query, noon, false);
    keep(placed);
  });
}

std::vector<std::string> request_ids(int count) {
  std::vector<std::string> requests;
  for (int i = 0; i < count; ++i)
    requests.push_back(fmt::format("5d0c8a5e-7f0e-4b5f-9d3c-{:012}", i));
  return requests;
}

double place_and_release(int instances, int calls, bool with_statuses) {
  auto by = cluster_of(instances, {});
  std::vector<instance_status> statuses;
  for (int i = 0; i < instances; ++i)
    statuses.push_back(status_of(i));
  auto requests = request_ids(64);
  placement_query query;
  query.prompt_tokens = 256;
  return measure(calls, [&](int call) {
    if (with_statuses) {
      auto& status = statuses[static_cast<std::size_t>(call % instances)];
      ++status.timestamp_ms;
      ++status.update_id;
      by.update(status, noon);
    }
    query.request_id = requests[static_cast<std::size_t>(call % 64)];
    auto placed = by.place(query, noon, false);
    keep(placed);
    by.release(query.request_id);
  });
}

/// Millions of statuses a second that a view with its account takes in, each with another load and
/// `waiting` requests in its queue.
double statuses_per_us(int waiting) {
  auto by = cluster_of(instances_max, {});
  std::vector<instance_status> statuses;
  for (int i = 0; i < instances_max; ++i) {
    statuses.push_back(status_of(i));
    statuses.back().waiting_requests = request_ids(waiting);
  }
  return 1e3 / measure(200'000, [&](int call) {
           auto& status = statuses[static_cast<std::size_t>(call % instances_max)];
           ++status.timestamp_ms;
           ++status.update_id;
           status.num_uncomputed_tokens_all_waiting_prefills = load_of(call);
           by.update(status, noon);
         });
}

/// A prompt that some have, or the beginning of it.
std::vector<token_id> prompt_of(int number) {
  std::vector<token_id> tokens(prompt_blocks * block_tokens, 'a');
  tokens[0] = static_cast<token_id>(512 + number);
  return tokens;
}

/// 1000 instances of which each holds a prompt whole, every other one of them that of number 0.
struct cached_fleet {
  cached_fleet() {
    scheduler_config config;
    config.policy = "cache-aware";
    by = std::make_unique<dispatcher>(cluster_of(instances_max, config));
    for (int i = 0; i < instances_max; ++i)
      watch.on_node({name_of(i), 1}, {{name_of(i), {}}});
    std::vector<instance_id> in_order;
    for (int i = 0; i < instances_max; ++i)
      in_order.push_back(name_of(i));
    std::ranges::sort(in_order);
    auto asked = watch.due(time_point{});
    for (std::size_t i = 0; i < asked.size(); ++i)
      watch.hear(
        holds(in_order[i], asked[i].watch, i % 2 == 0 ? 0 : 1 + static_cast<int>(i) % 256));
  }
  static kv_changes_msg holds(const instance_id& instance, std::uint64_t watch, int number) {
    kv_changes_msg msg{instance, watch, 0, {}};
    auto tokens = prompt_of(number);
    auto name
      = [&](std::size_t block) { return static_cast<std::uint64_t>(number) * 1'000 + block + 1; };
    msg.changes.block_tokens = block_tokens;
    for (std::size_t i = 0; i < prompt_blocks; ++i)
      msg.changes.store(
        i == 0 ? 0 : name(i - 1), name(i),
        std::span{tokens}.subspan(i * block_tokens, block_tokens));
    return msg;
  }

  std::unique_ptr<dispatcher> by;
  prefix_watch watch{7};
};

void print(const char* what, const quantiles& took, double clock, const char* goal) {
  fmt::print(
    "{:<60} {:>8.2f} {:>8.2f}   {}\n", what, (took.median - clock) / 1e3, (took.p99 - clock) / 1e3,
    goal);
}

/// Single decisions at 1000 instances, in the forms that a gateway or a scheduler asks for them.
void print_decisions(double clock) {
  fmt::print(
    "\n{:<60} {:>8} {:>8}   goal\n", "one decision at 1000 instances, us", "median", "p99");
  auto requests = request_ids(64);
  auto timed = [&](const char* what, const char* goal, auto decide_for) {
    placement_query query;
    query.prompt_tokens = static_cast<std::uint32_t>(prompt_blocks * block_tokens);
    auto took = spread(20'000, [&](int call) {
      query.request_id = requests[static_cast<std::size_t>(call % 64)];
      decide_for(query);
    });
    print(what, took, clock, goal);
  };
  {
    scheduler_config config;
    config.local_account = false;
    auto by = cluster_of(instances_max, config);
    timed("load-balance", "<= 5", [&](const placement_query& query) {
      auto placed = by.place(query, noon, false);
      keep(placed);
    });
    timed("  with its reasons and predicted times", "", [&](const placement_query& query) {
      auto placed = by.place(query, noon, true);
      keep(placed);
    });
  }
  {
    auto by = cluster_of(instances_max, {});
    timed("  with reasons, booked and released", "", [&](const placement_query& query) {
      auto placed = by.place(query, noon, true);
      keep(placed);
      by.release(query.request_id);
    });
  }
  {
    cached_fleet fleet;
    auto held_by_half = prompt_of(0), held_by_few = prompt_of(3), unknown = prompt_of(400);
    auto cached = [&](const char* what, const char* goal, const std::vector<token_id>& prompt) {
      timed(what, goal, [&](const placement_query& query) {
        auto hits = fleet.watch.find(prompt);
        auto placed = fleet.by->place(query, &hits, noon, true);
        keep(placed);
        fleet.by->release(query.request_id);
      });
    };
    LLUMNIX_ASSERT(fleet.watch.find(held_by_half).instances.list().size() == instances_max / 2);
    cached("cache-aware with the look-up: 128 blocks held by 500", "<= 20", held_by_half);
    cached("  held by 2", "<= 20", held_by_few);
    cached("  held by nobody", "<= 20", unknown);
  }
  {
    scheduler_config config;
    config.policy = "slo";
    config.ttft_slo_ms = 10'000;
    auto by = cluster_of(instances_max, config, true);
    timed(
      "slo, prefill and decode of 500 each, with reasons, booked", "", [&](placement_query& query) {
        query.mode = serving_mode::pd_batch;
        auto placed = by.schedule(query, nullptr, noon, explain::briefly);
        LLUMNIX_ASSERT(placed.placed);
        by.release(query.request_id);
      });
  }
}

/// First of all, so that nothing is there yet that could be used again.
void print_memory() {
  auto before = resident_mib();
  auto by = cluster_of(instances_max, {});
  for (int i = 0; i < instances_max; ++i) {
    auto status = status_of(i);
    ++status.update_id;
    ++status.timestamp_ms;
    status.waiting_requests = request_ids(32);
    by.update(status, noon);
  }
  auto requests = request_ids(10'000);
  for (const auto& id : requests)
    by.place({id, 256, {}}, noon, false);
  fmt::print(
    "1000 instances with 32 requests waiting at each, and 10000 requests booked: {:.1f} MiB "
    "(goal: below 64)\n",
    resident_mib() - before);
  before = resident_mib();
  cached_fleet fleet;
  fmt::print(
    "  the same for a cache-aware policy, idle, with 128 blocks known of each: {:.1f} MiB\n\n",
    resident_mib() - before);
}

} // namespace

int main() {
  print_memory();
  fmt::print("CPU ns per decision, and how many times the floor\n");
  fmt::print(
    "{:>9} {:>8} {:>16} {:>22} {:>22}\n", "instances", "floor", "decide", "place and release",
    "with statuses");
  for (int instances : {16, 256, instances_max}) {
    int calls = 4'000'000 / (instances + 100);
    auto floor = floor_of(instances, calls);
    auto against_floor = [&](double ns) { return fmt::format("{:.0f} ({:.1f}x)", ns, ns / floor); };
    fmt::print(
      "{:>9} {:>8.0f} {:>16} {:>22} {:>22}\n", instances, floor,
      against_floor(decide(instances, calls)),
      against_floor(place_and_release(instances, calls, false)),
      against_floor(place_and_release(instances, calls, true)));
  }
  print_decisions(clock_ns());
  fmt::print("\nmillion statuses a second of CPU time, of 1000 instances (goal: 1)\n");
  for (int waiting : {0, 8, 64})
    fmt::print("  {:>2} requests waiting at each: {:.2f}\n", waiting, statuses_per_us(waiting));
}
