#include "actors/departure_actor.hpp"
#include "actors/llumlet_actor.hpp"
#include "runtime/base/log.hpp"
#include "runtime/migration/move_ladder.hpp"

#include <algorithm>

/// LLUMLET's part in live migration: who leaves, how many at a time, and what becomes of an order.
namespace llumnix {

namespace {

move_result refused_move(
  const stream_ref& stream, const stream_owner& from, const stream_owner& to,
  const std::string& policy, std::string why) {
  move_result result;
  result.stream = stream;
  result.from = from;
  result.to = to;
  result.policy = policy;
  result.outcome = "refused";
  result.reason = std::move(why);
  return result;
}

} // namespace

caf::result<moves_msg> llumlet_state::on_migrate(migrate_msg& msg) {
  auto all_refused = [&](const std::string& why) {
    moves_msg answer;
    for (const auto& stream : msg.requests)
      answer.moves.push_back(refused_move(stream, own(), msg.to, msg.policy, why));
    if (answer.moves.empty())
      answer.moves.push_back(refused_move({}, own(), msg.to, msg.policy, why));
    return answer;
  };
  if (!fence.admit(msg.term)) {
    auto why = "the order is stale: " + to_string(msg.term) + " gave it, and "
               + to_string(fence.latest()) + " leads";
    tell_stale(msg, why);
    auto answer = all_refused(why);
    answer.overtaken_by = fence.latest();
    return answer;
  }
  if (auto why = why_stuck(msg); why.code != errc::ok)
    return all_refused(why.context);
  auto promise = self->make_response_promise<moves_msg>();
  auto order = ++orders_made;
  orders[order].promise = promise;
  if (!msg.requests.empty()) {
    queue_departures(order, msg, msg.requests);
    return promise;
  }
  self->request(engine, std::chrono::seconds{5}, list_requests_msg{})
    .then(
      [this, order, msg](const listed_msg& listed) { on_listed(order, msg, listed); },
      [this, order, msg](const caf::error&) {
        orders[order].open = 1;
        settle(order, refused_move({}, own(), msg.to, msg.policy, "the engine does not answer"));
      });
  return promise;
}

/// People should know: two RESCHEDULERs were at work, or one was held up.
void llumlet_state::tell_stale(const migrate_msg& msg, const std::string& why) {
  config.counters->orders_stale.fetch_add(1, std::memory_order_relaxed);
  log::llumlet.warn(
    "stale-order", "{} to {} by {} is refused: {}", config.metadata.instance_id, msg.to.instance,
    msg.policy, why);
  event_msg event{
    config.wall.at(self->clock().now()),
    "order_refused",
    {{"instance", config.metadata.instance_id},
     {"to", msg.to.instance},
     {"policy", msg.policy},
     {"leader", msg.term.leader.node},
     {"term", std::to_string(msg.term.number)},
     {"reason", why}}};
  for (const auto& [node, card] : peers)
    if (!card.console.empty())
      self->send(card.console.front(), event);
}

/// What there is to choose from; by load, those moved lately or often stay.
request_lists llumlet_state::movable(const migrate_msg& msg, const listed_msg& listed) {
  auto here = listed.streams;
  for (const auto& [id, leaving] : departures)
    here.push_back(leaving.stream);
  history.keep_only(std::move(here));
  auto lists = listed.lists;
  if (!msg.by_load)
    return lists;
  auto now = self->clock().now();
  for (auto* list : {&lists.running, &lists.waiting})
    if (*list)
      std::erase_if(**list, [&](const listed_request& x) {
        return !history.may_move(listed.streams.at(std::stoul(x.id)), now);
      });
  return lists;
}

error llumlet_state::why_stuck(const migrate_msg& order) const {
  if (!engine)
    return why_not_replayed(order);
  if (order.to == own())
    return {errc::invalid_argument, "it is there already"};
  if (order.rescheduled() && draining)
    return {errc::draining, "it is being drained: whoever does that moves its requests"};
  if (config.migration.out_slots == 0)
    return {errc::queue_full, "migration.out_slots is 0: nothing leaves this instance"};
  if (!llumlet_of(order.to))
    return {errc::unreachable, order.to.instance + " is not connected"};
  return {errc::ok, {}};
}

void llumlet_state::on_listed(
  std::uint64_t order, const migrate_msg& msg, const listed_msg& listed) {
  auto lists = movable(msg, listed);
  auto chosen = select_within(msg.selection, lists, listed.kv_capacity_tokens);
  if (!chosen) {
    orders[order].open = 1;
    settle(order, refused_move({}, own(), msg.to, msg.policy, chosen.error().context));
    return;
  }
  std::vector<stream_ref> streams;
  for (const auto& place : *chosen)
    streams.push_back(listed.streams.at(std::stoul(place)));
  queue_departures(order, msg, streams);
}

void llumlet_state::queue_departures(
  std::uint64_t order, const migrate_msg& msg, const std::vector<stream_ref>& streams) {
  auto& made = orders[order];
  made.open = streams.size();
  if (streams.empty()) {
    if (made.by_call)
      made.tell();
    else
      made.promise.deliver(moves_msg{});
    orders.erase(order);
    return;
  }
  auto on_their_way = leaving();
  auto path = kv ? move_path::kv : move_path::recompute;
  auto due = self->clock().now() + queue_patience;
  for (const auto& stream : streams)
    if (queued.size() >= queued_max)
      settle(
        order, refused_move(
                 stream, own(), msg.to, msg.policy, "too many requests wait to move from here"));
    else if (!on_their_way.insert(stream).second)
      settle(order, refused_move(stream, own(), msg.to, msg.policy, "it is on its way already"));
    else
      queued.push_back(
        {order, stream, msg.to, msg.policy, msg.by_load, std::nullopt, path, why_none_copied(), due,
         {}});
  start_departures();
}

/// What is on its way out, or waits for a slot.
std::set<stream_ref> llumlet_state::leaving() const {
  std::set<stream_ref> all;
  for (const auto& [id, each] : departures)
    all.insert(each.stream);
  for (const auto& each : queued)
    all.insert(each.stream);
  return all;
}

/// Those of them that move: not what is prefilled here to decode elsewhere.
std::uint32_t llumlet_state::moving() const {
  return slots.taken() + static_cast<std::uint32_t>(queued.size());
}

void llumlet_state::start_departures() {
  for (auto next = queued.begin(); next != queued.end() && slots.any_free();) {
    bool late = self->clock().now() >= next->due;
    if (!late && !slots.free_to(next->to.life.node)) {
      ++next;
      continue;
    }
    auto leaving = std::move(*next);
    next = queued.erase(next);
    if (late)
      refuse(leaving, "no slot was free in time");
    else
      start(std::move(leaving));
  }
}

void llumlet_state::refuse(const departure& asked, std::string why) {
  auto result = refused_move(asked.stream, own(), asked.to, asked.policy, std::move(why));
  if (asked.decode)
    result.request = asked.decode->request;
  tell_stays(asked);
  settle(asked.order, std::move(result));
}

void llumlet_state::start(departure next) {
  if (!engine)
    return start_replay(std::move(next));
  auto destination = llumlet_of(next.to);
  auto hub = hub_of(next.stream);
  if (!destination || !hub) {
    refuse(
      next, destination ? "its stream's gateway is not connected"
                        : next.to.instance + " is not connected");
    if (next.decode)
      ask_decode(std::move(*next.decode));
    return;
  }
  if (!next.moves)
    next.moves = next.decode ? 0 : history.begin(next.stream, next.by_load, self->clock().now());
  handover_id id{chance(), chance()};
  departure_actor_config settings;
  settings.limits.offer_limit = config.migration.offer_timeout;
  settings.limits.tail_limit = config.migration.tail_timeout;
  settings.limits.decide_limit = config.migration.decide_timeout;
  settings.limits.lease = config.migration.lease;
  settings.limits.rounds_max = config.migration.rounds_max;
  settings.plan.of = {id, next.stream, 0};
  settings.plan.source = own();
  settings.plan.destination = next.to;
  settings.plan.path = next.path;
  settings.plan.geometry = geometry;
  settings.plan.moves = *next.moves;
  settings.plan.to_decode = next.decode.has_value();
  if (next.path == move_path::kv) {
    settings.plan.kv_address = kv->address();
    settings.kv = kv;
  }
  settings.policy = next.policy;
  settings.llumlet = self;
  settings.engine = engine;
  settings.destination = destination;
  settings.hub = hub;
  next.actor = self->spawn<caf::linked>(make_departure, std::move(settings));
  bool takes_slot = !next.decode;
  if (takes_slot)
    slots.take(next.to.life.node);
  departures.emplace(id, std::move(next));
  if (takes_slot)
    slots_changed();
}

void llumlet_state::on_departed(departed_msg& msg) {
  auto found = departures.find(msg.id);
  if (found == departures.end())
    return;
  auto leaving = std::move(found->second);
  departures.erase(found);
  if (!leaving.decode)
    slots.give_back(leaving.to.life.node);
  ended.remember({{msg.id, leaving.stream, msg.result.epoch}, false}, self->clock().now());
  if (leaving.decode)
    return on_handed_over(std::move(leaving), msg);
  if (auto path = next_path(leaving.path, msg.why.code)) {
    tell_no_kv(msg, leaving.to);
    leaving.path = *path;
    leaving.no_kv = why_no_kv(msg.result.reason);
    leaving.actor = nullptr;
    queued.push_front(std::move(leaving));
  } else {
    msg.result.reason = told_reason(leaving.no_kv, std::move(msg.result.reason));
    if (msg.result.outcome == "moved" || msg.result.outcome == "finished")
      history.forget(leaving.stream);
    else
      tell_stays(leaving);
    count(msg.result);
    settle(leaving.order, std::move(msg.result), leaving.accepted);
  }
  start_departures();
  slots_changed();
}

/// People see it among the requests. What is prefilled here to decode elsewhere does not move.
void llumlet_state::tell_moving(departure& leaving, std::uint32_t epoch) {
  auto hub = hub_of(leaving.stream);
  if (leaving.decode || !hub)
    return;
  leaving.told_moving = epoch;
  self->send(hub, moving_msg{leaving.stream, epoch, true});
}

void llumlet_state::tell_stays(const departure& leaving) {
  if (auto hub = hub_of(leaving.stream); hub && leaving.told_moving)
    self->send(hub, moving_msg{leaving.stream, *leaving.told_moving, false});
}

/// Why no move begins with `kv`; empty: all do. One behind HTTP has no choice of paths.
std::string llumlet_state::why_none_copied() const {
  return kv || !engine ? std::string{} : why_no_kv("this instance has no transport for it");
}

/// A move tries the next path. Wrong bytes are found by the transport, or by the engine where they
/// landed after all: memory or a network that makes them is something people should know of.
void llumlet_state::tell_no_kv(const departed_msg& msg, const stream_owner& to) {
  static constexpr auto text = "{} to {}: {}; its KV is computed there";
  const auto& result = msg.result;
  if (msg.why.code != errc::bad_message) {
    log::llumlet.info("no-kv", text, result.request, to.instance, result.reason);
    return;
  }
  config.counters->moves_spoiled.fetch_add(1, std::memory_order_relaxed);
  log::llumlet.warn("spoiled-kv", text, result.request, to.instance, result.reason);
}

void llumlet_state::count(const move_result& result) {
  auto& counters = *config.counters;
  auto* counter = result.outcome == "moved"     ? &counters.moves_out
                  : result.outcome == "refused" ? &counters.moves_refused
                  : result.outcome == "failed"  ? &counters.moves_failed
                                                : nullptr;
  if (counter)
    counter->fetch_add(1, std::memory_order_relaxed);
}

/// One request of an order has moved or has not. Its gateway is told, for its record.
void llumlet_state::settle(std::uint64_t order, move_result result, bool accepted) {
  if (!result.request.empty())
    if (const auto* card = peer({result.stream.node, result.stream.incarnation});
        card && !card->gateway.empty())
      self->send(card->gateway.front(), moved_msg{result});
  auto found = orders.find(order);
  if (found == orders.end())
    return;
  auto& made = found->second;
  if (made.by_call)
    made.note_settled(result, accepted);
  else
    made.results.push_back(std::move(result));
  if (--made.open > 0)
    return;
  if (!made.by_call)
    made.promise.deliver(moves_msg{std::move(made.results)});
  orders.erase(found);
}

} // namespace llumnix
