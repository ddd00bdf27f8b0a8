#include "runtime/scheduling/freeness.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace llumnix;

namespace {

constexpr float infinite = std::numeric_limits<float>::infinity();

/// What an instance of these tests holds: 100 blocks of 16 tokens unless said otherwise.
struct load {
  std::int32_t used = 0; ///< tokens
  std::optional<std::vector<listed_request>> running = {};
  std::optional<std::vector<listed_request>> waiting = {};
  std::int32_t running_count = 0;
  std::int32_t waiting_count = 0;
  std::int32_t waiting_tokens = 0; ///< status field 25
  std::int32_t total = 1600;
  std::int32_t block_size = 16;
};

listed_request request(std::int32_t tokens, bool high_priority = false) {
  return {.id = "r", .tokens = tokens, .high_priority = high_priority};
}

instance_view view_of(const load& x) {
  instance_view view;
  view.has_status = true;
  view.metadata.block_size = x.block_size;
  view.status.num_total_gpu_tokens = x.total;
  view.status.num_used_gpu_tokens = x.used;
  view.status.num_running_requests = x.running_count;
  view.status.num_waiting_requests = x.waiting_count;
  view.status.num_uncomputed_tokens_all_waiting_prefills = x.waiting_tokens;
  if (x.running || x.waiting)
    view.requests = std::make_shared<const request_lists>(request_lists{x.running, x.waiting});
  return view;
}

float value(
  float (*metric)(const metric_input&), const instance_view& view,
  const inflight_load& inflight = {}) {
  return metric({view, inflight, decision_share{}});
}

std::vector<listed_request> many(std::size_t count, std::int32_t tokens = 16) {
  return std::vector<listed_request>(count, request(tokens));
}

} // namespace

TEST_CASE("remaining steps are free blocks per request once the waiting ones have theirs") {
  struct row {
    const char* what;
    load of;
    float steps, steps_defrag;
  };
  // 50 of 100 blocks are free; the queue wants 7 (of 100 tokens) and 13 blocks (of 200).
  std::vector<listed_request> queue{request(100), request(200)};
  for (auto& [what, of, steps, steps_defrag] : std::vector<row>{
         {"no requests", {.used = 800}, infinite, infinite},
         {"running only", {.used = 800, .running = many(5)}, 10, 10},
         {"a queue too", {.used = 800, .running = many(3), .waiting = queue}, 6, 10.75f},
         {"a queue alone", {.used = 800, .running = many(0), .waiting = queue}, 15, 43},
         {"more than fits", {.used = 1600, .running = many(2), .waiting = queue}, -5, -7.f / 3},
         {"counts", {.used = 800, .running_count = 5}, 10, 10},
         // 320 uncomputed tokens of four requests: 20 blocks, of which the first has 5
         {"counts and a queue",
          {.used = 800, .running_count = 2, .waiting_count = 4, .waiting_tokens = 320},
          5,
          15},
         {"a queue without tokens",
          {.used = 800, .running_count = 2, .waiting_count = 3},
          10,
          50.f / 3},
         {"lists win over counts",
          {.used = 800,
          .running = many(5),
          .waiting = many(0),
          .running_count = 1,
          .waiting_count = 9,
          .waiting_tokens = 900},
          10,
          10},
         {"a running list, a waiting count",
          {.used = 800, .running = many(2), .waiting_count = 3, .waiting_tokens = 33},
          9.4f,
          49.f / 3},
         {"32 tokens a block", {.used = 800, .running = many(5), .block_size = 32}, 5, 5},
         {"an unknown block size", {.used = 800, .running = many(5), .block_size = 0}, 10, 10},
         {"no cache", {.running = many(2), .waiting = queue, .total = 0}, -5, -7.f / 3}}) {
    CAPTURE(what);
    auto view = view_of(of);
    CHECK(value(remaining_steps, view) == steps);
    CHECK(value(remaining_steps_defrag, view) == steps_defrag);
  }
}

TEST_CASE("the ratio of KV blocks counts what waiting requests want") {
  struct row {
    load of;
    float ratio;
  };
  for (auto& [of, ratio] : std::vector<row>{
         {{.used = 800}, 0.5f},
         {{.used = 800, .waiting = {{request(100), request(200)}}}, 0.7f},
         {{.used = 1600, .waiting = {{request(1)}}}, 1.01f},
         {{.used = 800, .waiting_count = 3, .waiting_tokens = 33}, 0.53f},
         {{.used = 800, .waiting_tokens = 33}, 0.5f}, // none of those that wait in its queue
         {{.used = 0, .total = 0}, infinite}}) {
    CAPTURE(ratio);
    CHECK(value(kv_blocks_ratio, view_of(of)) == ratio);
  }
}

TEST_CASE("adaptive decode prefers the batch that is next to full") {
  using row = std::pair<std::int32_t, float>;
  for (auto [batch, expected] :
       {row{0, 128}, row{1, 127}, row{64, 64}, row{127, 1}, row{128, 128}, row{200, 200}}) {
    CAPTURE(batch);
    auto view = view_of({});
    view.status.scheduler_running_to_decode_requests_num = batch;
    CHECK(value(adaptive_decode, view) == expected);
  }
  auto view = view_of({});
  view.status.scheduler_running_to_decode_requests_num = 3;
  CHECK(value(adaptive_decode, view, {.decode_requests = 2}) == 123);
  given_metrics given{{"decode_batch_size", 100}};
  CHECK(adaptive_decode({view, {}, {}, nullptr, &given}) == 28);
}

TEST_CASE("listed requests that run and have output are the decode batch") {
  auto generating = request(10);
  generating.output_tokens = 1;
  struct row {
    const char* what;
    std::optional<std::vector<listed_request>> running;
    std::int32_t told, loading;
    float expected;
  };
  for (auto& [what, running, told, loading, expected] :
       {row{"one of them", {{generating}}, 0, 0, 127},
        row{"others are still prefilled", {{generating, request(10)}}, 7, 0, 127},
        row{"nobody runs", {{}}, 7, 0, 128},
        row{"not listed", {}, 7, 0, 121},
        row{"requests that come over are told by the status", {{generating}}, 7, 2, 125}}) {
    CAPTURE(what);
    auto view = view_of({.running = running});
    view.status.scheduler_running_to_decode_requests_num = told;
    view.status.num_loading_requests = loading;
    CHECK(value(adaptive_decode, view) == expected);
    given_metrics given{{"decode_batch_size", 100}};
    CHECK(adaptive_decode({view, {}, {}, nullptr, &given}) == 28);
  }
}

TEST_CASE("tokens that waiting requests miss are what the status says, else all of those listed") {
  for (auto& [of, tokens] :
       {std::pair<load, float>{{.waiting = {{request(900)}}, .waiting_tokens = 400}, 400},
        {{.waiting = {{request(40), request(2)}}}, 42},
        {{.waiting = {{}}}, 0},
        {{.waiting = {{}}, .waiting_tokens = 50}, 0},
        {{.running = {{request(900)}}, .waiting_tokens = 400}, 400}})
    CHECK(value(miss_waiting_tokens, view_of(of)) == tokens);
}

TEST_CASE("freeness is by virtual usage") {
  struct row {
    const char* what;
    load of;
    float steps;
  };
  std::vector<listed_request> mixed{request(100), request(160, true)}; // 7 and 10 blocks
  for (auto& [what, of, steps] : std::vector<row>{
         {"empty", {}, infinite},
         {"counts: used tokens", {.used = 800, .running_count = 4}, 200},
         {"listed blocks, not used tokens", {.used = 800, .running = many(4, 100)}, 288},
         {"the head of the queue alone",
          {.running = many(4, 100), .waiting = {{request(100), request(999)}}},
          260},
         {"counts: an equal share of the queue",
          {.used = 800, .running_count = 4, .waiting_count = 2, .waiting_tokens = 100},
          184},
         {"a queue alone is a batch of one",
          {.running = many(0), .waiting = {{request(100)}}},
          1488},
         // target 1600: (1600 - 272) / 2
         {"headroom", {.running = mixed, .total = 16000}, 664},
         {"headroom is shared by those of the priority",
          {.running = {{request(160, true), request(160, true)}}, .total = 16000},
          640},
         {"overloaded by headroom",
          {.running = {{request(1600, true), request(1600)}}, .total = 16000},
          -800}}) {
    CAPTURE(what);
    CHECK(value(freeness, view_of(of)) == steps);
  }
}

TEST_CASE("a draining instance has no freeness at all") {
  auto view = view_of({});
  view.state = instance_state::draining;
  CHECK(value(freeness, view) == -infinite);
}

TEST_CASE("an instance that has not reported compares as the least loaded") {
  instance_view silent;
  CHECK(value(remaining_steps, silent) == infinite);
  CHECK(value(remaining_steps_defrag, silent) == infinite);
  CHECK(value(freeness, silent) == infinite);
  CHECK(value(kv_blocks_ratio, silent) == 0);
  CHECK(value(adaptive_decode, silent) == 0);
  CHECK(value(miss_waiting_tokens, silent) == 0);
}

TEST_CASE("hostile numbers give a value and no overflow") {
  constexpr auto most = std::numeric_limits<std::int32_t>::max();
  constexpr auto least = std::numeric_limits<std::int32_t>::min();
  for (auto number : {most, least})
    for (auto block_size : {1, most, least}) {
      auto view = view_of(
        {.used = number,
         .running_count = number,
         .waiting_count = number,
         .waiting_tokens = number,
         .total = number,
         .block_size = block_size});
      auto listed = view_of(
        {.used = number,
         .running = {{request(number), request(number, true)}},
         .waiting = {{request(number), request(number)}},
         .total = number,
         .block_size = block_size});
      for (auto metric :
           {remaining_steps, remaining_steps_defrag, kv_blocks_ratio, adaptive_decode,
            miss_waiting_tokens, freeness}) {
        auto x = value(metric, view), y = value(metric, listed);
        CHECK(x == x); // no NaN
        CHECK(y == y);
      }
    }
}
