#include "runtime/scheduling/dispatcher.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

/// CPU time of a placement beside its floor, a plain loop that takes the least of as many floats.
/// Each line is the best of several runs, as what disturbs a run only ever adds to it.
///
///     decide              choose, without booking
///     place and release   choose, book, and take the booking back
///     with statuses       the same, with a new status between every two decisions, its cost
///     included
namespace {

using namespace llumnix;

constexpr int runs = 7;
constexpr unix_ms noon = 1'700'000'000'000;

double cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e9 * static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec);
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

dispatcher cluster_of(int instances, bool account) {
  scheduler_config config;
  config.local_account = account;
  auto made = dispatcher::make(config);
  for (int i = 0; i < instances; ++i) {
    instance_metadata metadata;
    metadata.instance_id = metadata.unit_id = name_of(i);
    metadata.instance_type = "neutral";
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
  auto by = cluster_of(instances, false);
  placement_query query{"request-0", 256, {}};
  return measure(calls, [&](int) {
    auto placed = by.place(query, noon, false);
    keep(placed);
  });
}

double place_and_release(int instances, int calls, bool with_statuses) {
  auto by = cluster_of(instances, true);
  std::vector<instance_status> statuses;
  for (int i = 0; i < instances; ++i)
    statuses.push_back(status_of(i));
  std::vector<std::string> requests;
  for (int i = 0; i < 64; ++i)
    requests.push_back(fmt::format("5d0c8a5e-7f0e-4b5f-9d3c-{:012}", i));
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

} // namespace

int main() {
  fmt::print("CPU ns per decision, and how many times the floor\n");
  fmt::print(
    "{:>9} {:>8} {:>16} {:>22} {:>22}\n", "instances", "floor", "decide", "place and release",
    "with statuses");
  for (int instances : {16, 256, 1'000}) {
    int calls = 4'000'000 / (instances + 100);
    auto floor = floor_of(instances, calls);
    auto against_floor = [&](double ns) { return fmt::format("{:.0f} ({:.1f}x)", ns, ns / floor); };
    fmt::print(
      "{:>9} {:>8.0f} {:>16} {:>22} {:>22}\n", instances, floor,
      against_floor(decide(instances, calls)),
      against_floor(place_and_release(instances, calls, false)),
      against_floor(place_and_release(instances, calls, true)));
  }
}
