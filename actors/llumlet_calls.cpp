#include "actors/llumlet_actor.hpp"

/// LLUMLET's part in orders that come by the RPC service (spec/llumlet.md 7, 8): what is chosen has
/// slots, and the caller hears how it began, not how it ended.
namespace llumnix {

namespace {

constexpr auto no_answer = "the engine does not answer";

bool wants_all(const request_selection& x) {
  return x.rule == selection_rule::requests && x.value == -1;
}

} // namespace

caf::result<moves_begun_msg> llumlet_state::on_begin_moves(begin_moves_msg& msg) {
  if (engine && draining && msg.planned && wants_all(msg.order.selection)) {
    moves_begun drained;
    drained.merged = true;
    drained.joined = moving();
    return moves_begun_msg{drained};
  }
  if (engine && draining && msg.planned)
    return moves_begun_msg{
      error{errc::draining, "it is being drained: whoever does that moves its requests"}};
  if (auto why = why_stuck(msg.order); why.code != errc::ok)
    return moves_begun_msg{std::move(why)};
  if (msg.due <= self->clock().now())
    return moves_begun_msg{error{errc::timeout, "its time was up before it came here"}};
  auto number = ++orders_made;
  auto& order = orders[number];
  order.by_call = order.listing = true;
  order.begun = self->make_response_promise<moves_begun_msg>();
  auto left = std::max<nanoseconds>(msg.due - self->clock().now(), nanoseconds{0});
  self->delayed_send(self, left, tick_atom::value, number);
  self->request(engine, left + std::chrono::seconds{1}, list_requests_msg{})
    .then(
      [this, number, msg](listed_msg& listed) { begin_moves(number, msg, listed); },
      [this, number](const caf::error&) {
        give_up_order(number, {errc::timeout, no_answer});
      });
  return order.begun;
}

/// Chooses, once it is known what there is, and only while somebody wants it.
void llumlet_state::begin_moves(
  std::uint64_t number, const begin_moves_msg& msg, listed_msg& listed) {
  auto found = orders.find(number);
  if (found == orders.end())
    return; // its time was up
  if (msg.withdrawn && *msg.withdrawn)
    return give_up_order(number, {errc::cancelled, "the caller went away"});
  auto on_their_way = leaving();
  for (auto* list : {&listed.lists.running, &listed.lists.waiting})
    for (auto& each : **list)
      each.migrating
        = each.migrating || on_their_way.contains(listed.streams.at(std::stoul(each.id)));
  auto free = std::int64_t{config.migration.out_slots} - moving();
  auto chosen = select_within(
    msg.order.selection, listed.lists, listed.kv_capacity_tokens, std::max<std::int64_t>(free, 0));
  if (!chosen)
    return give_up_order(number, std::move(chosen).error());
  auto& order = found->second;
  order.listing = false;
  if (wants_all(msg.order.selection)) {
    order.so_far.joined = moving();
    order.so_far.merged = order.so_far.joined > 0;
  }
  order.so_far.waiting = static_cast<std::uint32_t>(chosen->size());
  std::vector<stream_ref> streams;
  for (const auto& place : *chosen)
    streams.push_back(listed.streams.at(std::stoul(place)));
  queue_departures(number, msg.order, streams);
}

/// Time is up: the caller hears what is known. What was chosen goes on.
void llumlet_state::on_due(std::uint64_t number) {
  auto found = orders.find(number);
  if (found == orders.end())
    return;
  if (found->second.listing)
    give_up_order(number, {errc::timeout, no_answer});
  else
    found->second.tell();
}

/// Nothing of it was begun.
void llumlet_state::give_up_order(std::uint64_t number, error why) {
  auto found = orders.find(number);
  if (found == orders.end())
    return;
  found->second.begun.deliver(moves_begun_msg{std::move(why)});
  orders.erase(found);
}

void llumlet_state::note_accepted(departure& leaving) {
  if (std::exchange(leaving.accepted, true))
    return; // by the rung of the ladder before
  if (auto found = orders.find(leaving.order); found != orders.end() && found->second.by_call)
    found->second.note_accepted();
}

void llumlet_state::move_order::note_accepted() {
  --so_far.waiting;
  ++so_far.accepted;
  tell_if_known();
}

void llumlet_state::move_order::note_settled(const move_result& result, bool was_accepted) {
  bool well = result.outcome == "moved" || result.outcome == "finished";
  if (was_accepted && !well) {
    --so_far.accepted;
    ++so_far.failed;
  } else if (!was_accepted) {
    --so_far.waiting;
    ++(
      result.outcome == "moved"      ? so_far.accepted
      : result.outcome == "finished" ? so_far.finished
      : result.outcome == "refused"  ? so_far.rejected
                                     : so_far.failed);
  }
  if (!well && so_far.reason.empty())
    so_far.reason = result.reason;
  tell_if_known();
}

void llumlet_state::move_order::tell_if_known() {
  if (so_far.waiting == 0)
    tell();
}

void llumlet_state::move_order::tell() {
  if (!std::exchange(told, true))
    begun.deliver(moves_begun_msg{so_far});
}

} // namespace llumnix
