#include "runtime/migration/request_moved.hpp"

#include "runtime/cluster/dispatch_ledger.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {

namespace {

using list = std::optional<std::vector<listed_request>>;

const listed_request* find_in(const list& requests, const std::string& id) {
  if (!requests)
    return nullptr;
  auto found = std::ranges::find(*requests, id, &listed_request::id);
  return found == requests->end() ? nullptr : &*found;
}

/// Adds the request `times` times: 1 or -1. What a status says is anybody's number: sums stay at the
/// limits of their type.
void count(instance_view& into, const moved_request& moved, int times) {
  auto& status = into.status;
  auto add = [times](std::int32_t& to, std::int64_t what) { to = saturated(to + times * what); };
  auto tokens = std::int64_t{moved.request.tokens};
  if (!moved.running) {
    add(status.num_waiting_requests, 1);
    add(status.scheduler_waiting_to_decode_requests_num, 1);
    add(status.scheduler_waiting_to_decode_tokens_num, tokens);
    add(status.num_uncomputed_tokens_scheduler_waiting_prefills, tokens);
    add(status.num_uncomputed_tokens_all_waiting_prefills, tokens);
    return;
  }
  auto block = std::max<std::int64_t>(1, into.metadata.block_size);
  add(status.num_running_requests, 1);
  add(status.scheduler_running_to_decode_requests_num, 1);
  add(status.scheduler_running_to_decode_tokens_num, tokens);
  add(status.num_used_gpu_tokens, (tokens + block - 1) / block * block);
}

list& list_of(request_lists& lists, const moved_request& moved) {
  return moved.running ? lists.running : lists.waiting;
}

} // namespace

std::optional<moved_request>
request_to_move(const instance_view& from, const request_selection& wanted) {
  if (!from.requests) {
    auto running = from.status.num_running_requests;
    if (running <= 0)
      return std::nullopt;
    auto mean = std::max(0, from.status.num_used_gpu_tokens) / running;
    return moved_request{{.id = {}, .tokens = mean, .output_tokens = 1}, true};
  }
  auto& lists = *from.requests;
  auto first = select_requests({selection_rule::requests, wanted.order, 1}, lists, 0);
  if (!first || first->empty())
    return std::nullopt;
  if (auto* running = find_in(lists.running, first->front()))
    return moved_request{*running, true};
  return moved_request{*find_in(lists.waiting, first->front()), false};
}

instance_view without_request(const instance_view& from, const moved_request& moved) {
  auto left = from;
  count(left, moved, -1);
  if (from.requests) {
    auto lists = *from.requests;
    if (auto& requests = list_of(lists, moved))
      std::erase_if(
        *requests, [&](const listed_request& x) { return x.id == moved.request.id; });
    left.requests = std::make_shared<const request_lists>(std::move(lists));
  }
  return left;
}

instance_view with_request(const instance_view& to, const moved_request& moved) {
  auto more = to;
  count(more, moved, 1);
  if (to.requests) {
    auto lists = *to.requests;
    if (auto& requests = list_of(lists, moved))
      requests->push_back(moved.request);
    more.requests = std::make_shared<const request_lists>(std::move(lists));
  }
  return more;
}

} // namespace llumnix
