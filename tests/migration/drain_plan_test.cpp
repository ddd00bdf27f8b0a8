#include "runtime/migration/drain_plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

using namespace llumnix;
using namespace std::chrono_literals;

namespace {

struct instance {
  std::string id;
  std::int32_t used = 0;     ///< tokens of `total`
  std::int32_t in_free = 0;  ///< slots
  std::int32_t arriving = 0; ///< which take slots
  std::int32_t out_free = 0;
  std::string role = "neutral";
  instance_state state = instance_state::ready;
  bool schedulable = true;
  std::int32_t total = 1600;
  std::string node = "n";
};

cluster_view view_of(const std::vector<instance>& instances) {
  cluster_view view;
  for (const auto& x : instances) {
    instance_metadata metadata;
    metadata.instance_id = x.id;
    metadata.instance_type = x.role;
    view.put(metadata, {x.node.empty() ? "" : x.id, 1});
    instance_status status;
    status.instance_id = x.id;
    status.schedulable = x.schedulable;
    status.timestamp_ms = 1;
    status.update_id = 1;
    status.num_total_gpu_tokens = x.total;
    status.num_used_gpu_tokens = x.used;
    status.num_migrate_in_reqs = x.arriving;
    status.num_available_migrate_in_slots = x.in_free;
    status.num_available_migrate_out_slots = x.out_free;
    view.update(status);
    view.set_state(x.id, x.state);
  }
  return view;
}

stream_info request(std::uint64_t number, std::uint32_t tokens, const std::string& at = "s") {
  stream_info x;
  x.stream.node = "head";
  x.stream.stream = number;
  x.instance = at;
  x.prompt_tokens = tokens / 2;
  x.output_tokens = tokens - tokens / 2;
  return x;
}

time_point at(nanoseconds since) {
  return time_point{1000s} + std::chrono::duration_cast<time_point::duration>(since);
}

/// "1>a 2>b".
std::string text(const std::vector<drain_move>& moves) {
  std::string all;
  for (const auto& each : moves)
    all += (all.empty() ? "" : " ") + std::to_string(each.stream.stream) + ">" + each.to.instance;
  return all;
}

} // namespace

// Mends weakness 6 of spec/rescheduling.md.
TEST_CASE("a drain sends requests where there is least, the longest first") {
  struct row {
    const char* what;
    std::vector<instance> cluster;
    std::vector<stream_info> streams;
    std::string expected;
  };
  const instance source{.id = "s", .out_free = 8};
  std::vector<row> rows{
    {"nobody runs", {source, {.id = "a", .in_free = 4}}, {}, ""},
    {"nowhere to go", {source}, {request(1, 10)}, ""},
    {"what runs elsewhere stays", {source, {.id = "a", .in_free = 4}}, {request(1, 9, "a")}, ""},
    {"ties by id",
     {source, {.id = "a", .in_free = 4}, {.id = "b", .in_free = 4}},
     {request(1, 16)},
     "1>a"},
    {"it spreads by what it has promised itself",
     {source, {.id = "a", .used = 100, .in_free = 4}, {.id = "b", .in_free = 4}},
     {request(1, 64), request(2, 80), request(3, 16), request(4, 16)},
     // b 80; b 144, more than a's 100; a 116; a 132
     "2>b 1>b 3>a 4>a"},
    {"as many as have slots there",
     {source, {.id = "a", .used = 100, .in_free = 1}, {.id = "b", .in_free = 2}},
     {request(1, 10), request(2, 10), request(3, 10), request(4, 10)},
     "1>b 2>b 3>a"},
    {"slots that others hold are not free",
     {source, {.id = "a", .in_free = 0, .arriving = 4}, {.id = "b", .used = 9, .in_free = 2}},
     {request(1, 10)},
     "1>b"},
    {"four where none are told of",
     {source, {.id = "a"}},
     {request(1, 10), request(2, 10), request(3, 10), request(4, 10), request(5, 10)},
     "1>a 2>a 3>a 4>a"},
    {"as many as may leave",
     {{.id = "s", .out_free = 2}, {.id = "a", .in_free = 4}},
     {request(1, 10), request(2, 10), request(3, 10)},
     "1>a 2>a"},
    {"whoever has room before whoever has less",
     {source,
      {.id = "a", .used = 90, .in_free = 4, .total = 100},
      {.id = "b", .used = 1500, .in_free = 4}},
     {request(1, 20)},
     "1>b"},
    {"nobody has room: they are asked all the same",
     {source, {.id = "a", .used = 90, .in_free = 4, .total = 100}},
     {request(1, 20)},
     "1>a"},
    {"roles stay apart",
     {source, {.id = "a", .in_free = 4, .role = "prefill"}},
     {request(1, 10)},
     ""},
    {"nobody who takes no work",
     {source,
      {.id = "a", .in_free = 4, .schedulable = false},
      {.id = "b", .in_free = 4, .state = instance_state::draining},
      {.id = "c", .in_free = 4, .state = instance_state::lost},
      {.id = "d", .in_free = 4, .node = ""}},
     {request(1, 10)},
     ""},
    {"a source that the view has lost empties all the same",
     {{.id = "s", .state = instance_state::lost}, {.id = "a", .in_free = 4}},
     {request(1, 10)},
     "1>a"},
  };
  for (const auto& [what, cluster, streams, expected] : rows) {
    CAPTURE(what);
    drain_plan plan{"s"};
    auto moves = plan.next(view_of(cluster), streams, at(0s));
    CHECK(text(moves) == expected);
    CHECK(plan.under_way() == moves.size());
    CHECK(plan.next(view_of(cluster), streams, at(1h)).size() + moves.size() <= streams.size());
  }
}

TEST_CASE("what is under way holds its slots, whether the status tells or not") {
  drain_plan plan{"s"};
  std::vector<stream_info> streams{request(1, 10), request(2, 10), request(3, 10)};
  auto told = [](std::int32_t free, std::int32_t taken) {
    return view_of({{.id = "s", .out_free = 9}, {.id = "a", .in_free = free, .arriving = taken}});
  };
  CHECK(text(plan.next(told(2, 0), streams, at(0s))) == "1>a 2>a");
  CHECK(text(plan.next(told(2, 0), streams, at(1ms))).empty()); // it tells of none yet
  CHECK(text(plan.next(told(0, 2), streams, at(2ms))).empty());
  plan.on_ended(streams[0].stream, true, at(3ms));
  CHECK(plan.under_way() == 1);
  CHECK(text(plan.next(told(1, 1), {streams[1], streams[2]}, at(4ms))) == "3>a");
}

TEST_CASE("a refusal is followed by a pause and by another instance") {
  drain_plan plan{"s"};
  auto view = view_of(
    {{.id = "s", .out_free = 9}, {.id = "a", .in_free = 4}, {.id = "b", .used = 9, .in_free = 4}});
  const std::vector<stream_info> streams{request(1, 10)};
  auto now = 0ms;
  // Pauses of 50, 100, 200, 400, 800 ms, then 1 s; a, b, then everybody has had a turn.
  std::string turns;
  for (auto pause : {50ms, 100ms, 200ms, 400ms, 800ms, 1000ms, 1000ms}) {
    CAPTURE(pause.count());
    turns += text(plan.next(view, streams, at(now))) + " ";
    plan.on_ended(streams[0].stream, false, at(now));
    CHECK(text(plan.next(view, streams, at(now + pause - 1ms))).empty());
    now += pause;
  }
  CHECK(turns == "1>a 1>b 1>a 1>b 1>a 1>b 1>a ");
}

TEST_CASE("a request that nobody takes holds up no other") {
  drain_plan plan{"s"};
  auto view = view_of({{.id = "s", .out_free = 1}, {.id = "a", .in_free = 1}});
  std::vector<stream_info> streams{request(1, 1000), request(2, 10), request(3, 5)};
  CHECK(text(plan.next(view, streams, at(0s))) == "1>a");
  plan.on_ended(streams[0].stream, false, at(1ms));
  CHECK(text(plan.next(view, streams, at(2ms))) == "2>a");
  plan.on_ended(streams[1].stream, true, at(3ms));
  CHECK(text(plan.next(view, {streams[0], streams[2]}, at(4ms))) == "3>a");
}

TEST_CASE("what is gone is not asked for at once again, though a slow client's list has it") {
  drain_plan plan{"s"};
  auto view = view_of({{.id = "s", .out_free = 9}, {.id = "a", .in_free = 4}});
  const std::vector<stream_info> streams{request(1, 10)};
  CHECK(text(plan.next(view, streams, at(0s))) == "1>a");
  plan.on_ended(streams[0].stream, true, at(0s));
  CHECK(text(plan.next(view, streams, at(999ms))).empty());
  CHECK(text(plan.next(view, streams, at(1s))) == "1>a"); // it was a mistake, then
}

TEST_CASE("what stays where it is is not offered again, and takes no slot") {
  drain_plan plan{"s"};
  auto view = view_of({{.id = "s", .out_free = 1}, {.id = "a", .in_free = 1}});
  const std::vector<stream_info> streams{request(1, 1000), request(2, 10)};
  CHECK(text(plan.next(view, streams, at(0s))) == "1>a");
  plan.on_stays(streams[0].stream);
  plan.on_stays(streams[0].stream);
  plan.on_stays(request(9, 1).stream);
  CHECK(plan.under_way() == 0);
  CHECK(text(plan.next(view, streams, at(1ms))) == "2>a");
  plan.on_ended(streams[1].stream, true, at(2ms));
  CHECK(text(plan.next(view, {streams[0]}, at(1h))).empty());
}

TEST_CASE("late and unknown ends do no harm") {
  drain_plan plan{"s"};
  plan.on_ended(request(7, 1).stream, true, at(0s));
  auto view = view_of({{.id = "s", .out_free = 9}, {.id = "a", .in_free = 4}});
  const std::vector<stream_info> streams{request(1, 10)};
  CHECK(plan.next(view, streams, at(0s)).size() == 1);
  CHECK(plan.next(view, {}, at(1ms)).empty()); // not listed, but under way: it is not forgotten
  CHECK(plan.under_way() == 1);
  plan.on_ended(streams[0].stream, false, at(2ms));
  plan.on_ended(streams[0].stream, false, at(2ms));
  CHECK(plan.under_way() == 0);
}

TEST_CASE("what a prefill instance computes leaves by itself; what decodes there goes to decode") {
  auto computed = request(1, 100);
  computed.prompt_tokens = 100;
  computed.output_tokens = 0;
  const std::vector<instance> cluster{
    {.id = "s", .out_free = 8, .role = "prefill"},
    {.id = "a", .in_free = 4, .role = "prefill"},
    {.id = "b", .used = 800, .in_free = 4, .role = "decode"},
    {.id = "c", .in_free = 4, .role = "neutral"}};
  drain_plan plan{"s"};
  CHECK(text(plan.next(view_of(cluster), {computed, request(2, 200)}, at(0s))) == "2>b");
}

TEST_CASE("what decodes goes to decode instances") {
  const std::vector<instance> cluster{
    {.id = "s", .out_free = 8, .role = "decode"},
    {.id = "a", .in_free = 4, .role = "prefill"},
    {.id = "b", .used = 800, .in_free = 4, .role = "decode"}};
  drain_plan plan{"s"};
  CHECK(text(plan.next(view_of(cluster), {request(2, 200)}, at(0s))) == "2>b");
}
