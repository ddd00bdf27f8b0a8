#include "runtime/migration/stream_selection.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

using enum selection_rule;
using enum selection_order;
using ids = std::vector<std::string>;

stream_info at(
  const char* name, const char* instance, std::uint32_t prompt, std::uint32_t output,
  std::int64_t age_ms) {
  stream_info x;
  x.text_id = name;
  x.instance = instance;
  x.prompt_tokens = prompt;
  x.output_tokens = output;
  x.age_ms = age_ms;
  return x;
}

/// In no order: `old` came first, then `long`, then `young`; `w1` before `w2`; one is elsewhere.
const std::vector<stream_info> house{
  at("young", "a", 50, 5, 100), at("w2", "a", 10, 0, 50),  at("elsewhere", "b", 10, 5, 900),
  at("old", "a", 90, 10, 800),  at("w1", "a", 200, 0, 70), at("long", "a", 400, 20, 300)};

ids chosen(const request_selection& wanted, const char* from = "a") {
  auto streams = select_streams(from, wanted, house);
  REQUIRE(streams);
  ids all;
  for (const auto& each : *streams)
    all.push_back(each.text_id);
  return all;
}

} // namespace

TEST_CASE("streams at an engine behind HTTP are chosen as requests are") {
  struct row {
    const char* from;
    request_selection wanted;
    ids expected;
  };
  for (const auto& [from, wanted, expected] : std::vector<row>{
         {"a", {requests, earliest_running, 2}, {"old", "long"}},
         {"a", {requests, latest_running, 1}, {"young"}},
         {"a", {requests, longest_running, 1}, {"long"}},
         {"a", {requests, shortest_running, 2}, {"young", "old"}},
         {"a", {requests, earliest_waiting, 9}, {"w1", "w2"}},
         {"a", {requests, shortest_running, -1}, {"w1", "w2", "old", "long", "young"}},
         {"a", {tokens, shortest_running, 154}, {"young"}}, // 55, and 100 are more than is left
         {"a", {tokens, shortest_running, 155}, {"young", "old"}},
         {"a", {tokens, latest_running, 160}, {"young", "old"}}, // 420 is passed over
         {"b", {requests, shortest_running, 9}, {"elsewhere"}},
         {"c", {requests, shortest_running, 9}, {}}}) {
    CAPTURE(from);
    CAPTURE(to_string(wanted.order));
    CAPTURE(wanted.value);
    CHECK(chosen(wanted, from) == expected);
  }
}

TEST_CASE("how much KV an engine behind HTTP holds is not known") {
  auto streams = select_streams("a", {kv_ratio, shortest_running, 0.5}, house);
  REQUIRE_FALSE(streams);
  CHECK(streams.error().code == errc::unsupported);
  CHECK(streams.error().context.find("--num-requests") != std::string::npos);
}
