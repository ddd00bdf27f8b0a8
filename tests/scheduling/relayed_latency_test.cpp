#include "runtime/scheduling/relayed_latency.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace llumnix {

namespace {

using namespace std::chrono_literals;
using nlohmann::json;

stream_ref stream(std::uint64_t number) {
  return {"head", 1, 0, number};
}

/// Placed after 5 ms, with its first token after 45 and its last after 145.
stream_end end(std::uint64_t number) {
  stream_end x;
  x.stream = stream(number);
  x.outcome = "stop";
  x.prompt_tokens = 100;
  x.output_tokens = 11;
  x.placements = 1;
  x.times = {5ms, 45ms, 145ms};
  return x;
}

/// Of each sample its place and milliseconds.
json prefills(const relayed_latency& of, infer_type role = infer_type::neutral) {
  return json::parse(of.of(role).samples())["tokens_num"];
}
json decodes(const relayed_latency& of, infer_type role = infer_type::neutral) {
  return json::parse(of.of(role).samples())["batch_size"];
}

} // namespace

TEST_CASE("a request alone at its engine tells of its prefill, and of steps of one") {
  relayed_latency latency;
  latency.placed(stream(1), "a", infer_type::neutral);
  latency.ended(end(1));
  CHECK(prefills(latency) == json{{100, 0, 40}});
  CHECK(decodes(latency) == json{{1, 105, 10}}); // 100 and half of 11 held, 100 ms for 10
  latency.ended(end(1));                         // of another life, or twice
  CHECK(prefills(latency).size() == 1);
  CHECK(prefills(latency, infer_type::prefill).empty());
}

TEST_CASE("beside others a first token waits, and steps are as large as there are requests") {
  relayed_latency latency;
  for (std::uint64_t i : {1, 2, 3})
    latency.placed(stream(i), "a", infer_type::neutral);
  latency.placed(stream(4), "b", infer_type::neutral);
  latency.ended(end(3)); // three when it came, three when it went
  CHECK(prefills(latency).empty());
  CHECK(decodes(latency) == json{{3, 105, 10}});
  latency.left(stream(2)); // goes elsewhere
  latency.ended(end(1));   // it was alone when it came, and is now
  CHECK(prefills(latency) == json{{100, 0, 40}});
  CHECK(decodes(latency) == json{{1, 105, 10}, {3, 105, 10}});
}

TEST_CASE("what moved, failed or gave a single token tells nothing of decode steps") {
  relayed_latency latency;
  auto ends = [&](auto change) {
    latency.placed(stream(1), "a", infer_type::decode);
    auto x = end(1);
    change(x);
    latency.ended(x);
    return decodes(latency, infer_type::decode).size();
  };
  CHECK(ends([](stream_end& x) { x.placements = 2; }) == 0);
  CHECK(ends([](stream_end& x) { x.outcome = "failed"; }) == 0);
  CHECK(ends([](stream_end& x) { x.outcome = "cancelled"; }) == 0);
  CHECK(ends([](stream_end& x) { x.output_tokens = 1; }) == 0);
  CHECK(ends([](stream_end& x) { x.times.last_token.reset(); }) == 0);
  CHECK(ends([](stream_end& x) { x.outcome = "length"; }) == 1);
  CHECK(ends([](stream_end& x) { x.outcome = "tool_calls"; }) == 2);
  CHECK(decodes(latency).empty());
}

TEST_CASE("a request placed again counts at its new engine alone") {
  relayed_latency latency;
  latency.placed(stream(1), "a", infer_type::neutral);
  latency.placed(stream(1), "b", infer_type::neutral);
  latency.placed(stream(2), "a", infer_type::neutral);
  latency.ended(end(2));
  CHECK(decodes(latency) == json{{1, 105, 10}});
}

} // namespace llumnix
