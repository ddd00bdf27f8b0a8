#include "runtime/migration/request_moved.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace llumnix;

namespace {

constexpr request_selection shortest{
  selection_rule::requests, selection_order::shortest_running, 1};
constexpr request_selection low_first{
  selection_rule::requests, selection_order::low_priority_shortest, 1};
constexpr request_selection queue_front{
  selection_rule::requests, selection_order::earliest_waiting, 1};

/// Blocks of 16 tokens; runs hi (10 tokens) and lo (20), w (40) waits.
instance_view told_one_by_one() {
  instance_view view;
  view.has_status = true;
  view.metadata.block_size = 16;
  view.status.num_total_gpu_tokens = 160;
  view.status.num_used_gpu_tokens = 48;
  view.status.num_running_requests = 2;
  view.status.scheduler_running_to_decode_requests_num = 2;
  view.status.scheduler_running_to_decode_tokens_num = 30;
  view.status.num_waiting_requests = 1;
  view.status.num_uncomputed_tokens_all_waiting_prefills = 40;
  request_lists lists;
  lists.running = {
    {.id = "hi", .tokens = 10, .output_tokens = 1, .high_priority = true},
    {.id = "lo", .tokens = 20, .output_tokens = 1}};
  lists.waiting = {{.id = "w", .tokens = 40}};
  view.requests = std::make_shared<const request_lists>(lists);
  return view;
}

} // namespace

TEST_CASE("the request to move is the first of the order, or one of the mean size") {
  auto view = told_one_by_one();
  CHECK(request_to_move(view, shortest)->request.id == "hi");
  CHECK(request_to_move(view, low_first)->request.id == "lo");
  CHECK(request_to_move(view, queue_front)->request.id == "w");
  CHECK_FALSE(request_to_move(view, queue_front)->running);
  view.requests = nullptr;
  CHECK(request_to_move(view, shortest)->request.tokens == 24); // 48 / 2
  view.status.num_running_requests = 0;
  CHECK_FALSE(request_to_move(view, shortest));
}

TEST_CASE("a running request takes its blocks and its place in the batch along") {
  auto view = told_one_by_one();
  auto lo = *request_to_move(view, low_first);
  auto left = without_request(view, lo);
  CHECK(left.status.num_used_gpu_tokens == 16); // 20 tokens are 2 blocks
  CHECK(left.status.num_running_requests == 1);
  CHECK(left.status.scheduler_running_to_decode_requests_num == 1);
  CHECK(left.status.scheduler_running_to_decode_tokens_num == 10);
  CHECK(left.requests->running->size() == 1);
  CHECK(left.requests->running->front().id == "hi");
  CHECK(left.requests->waiting->size() == 1);
  auto again = with_request(left, lo);
  CHECK(again.status == view.status);
  CHECK(again.requests->running == view.requests->running);
}

TEST_CASE("a waiting request takes its place in the queue along, and no blocks") {
  auto view = told_one_by_one();
  auto left = without_request(view, *request_to_move(view, queue_front));
  CHECK(left.status.num_used_gpu_tokens == 48);
  CHECK(left.status.num_running_requests == 2);
  CHECK(left.status.num_waiting_requests == 0);
  CHECK(left.status.num_uncomputed_tokens_all_waiting_prefills == 0);
  CHECK(left.requests->waiting->empty());
}

TEST_CASE("numbers that are too large stay at the limit") {
  constexpr auto most = std::numeric_limits<std::int32_t>::max();
  auto view = told_one_by_one();
  view.status.num_used_gpu_tokens = most - 1;
  view.status.scheduler_running_to_decode_tokens_num = most;
  auto more = with_request(view, {{.id = "x", .tokens = most, .output_tokens = 1}, true});
  CHECK(more.status.num_used_gpu_tokens == most);
  CHECK(more.status.scheduler_running_to_decode_tokens_num == most);
  view.requests = nullptr;
  view.status.num_waiting_requests = most;
  auto waits = with_request(view, {{.id = "x", .tokens = most}, false});
  CHECK(waits.status.num_waiting_requests == most);
  CHECK(waits.status.scheduler_waiting_to_decode_tokens_num == most);
}
