#include "actors/engine_actor.hpp"
#include "runtime/base/overloaded.hpp"

/// ENGINE's part in hand-overs. The engine is asked between two steps only, when all it generated
/// has been told.
namespace llumnix {

namespace {

error cannot_move() {
  return {errc::unsupported, "the engine cannot let requests go or take them in"};
}

} // namespace

void engine_state::on_order(departure_order_msg& msg) {
  orders.emplace_back(std::move(msg));
  if (!stepping)
    carry_out_orders();
  begin_step();
}

void engine_state::on_order(arrival_order_msg& msg) {
  orders.emplace_back(std::move(msg));
  if (!stepping)
    carry_out_orders();
  begin_step();
}

void engine_state::carry_out_orders() {
  if (orders.empty())
    return;
  for (auto& order : std::exchange(orders, {}))
    std::visit([this](auto& msg) { carry_out(msg); }, order);
  tell_news();
}

void engine_state::carry_out(departure_order_msg& msg) {
  auto* moving = engine->moving();
  const auto& id = msg.of.id;
  const auto& stream = msg.of.stream;
  auto told = [](const result<leaving_request>& now) {
    return now ? static_cast<std::uint32_t>(now->request.output.size()) : 0;
  };
  std::visit(
    overloaded{
      [&](const departure_order_msg::pin&) {
        auto found = streams.find(stream);
        if (!moving)
          self->send(msg.from, pinned_msg{cannot_move()});
        else if (found == streams.end())
          self->send(
            msg.from,
            pinned_msg{error{errc::not_found, "it is not at " + config.instance + " any more"}});
        else
          self->send(msg.from, pinned_msg{moving->pin(id, stream, found->second)});
      },
      [&](const source_side::look&) {
        self->send(msg.from, departure_event_msg{source_side::looked{moving->look(id)}});
      },
      [&](const source_side::freeze&) {
        auto now = moving->freeze(id);
        auto count = told(now);
        self->send(msg.from, departure_event_msg{source_side::frozen{std::move(now), count}});
      },
      [&](const source_side::thaw& what) {
        moving->thaw(id, what.epoch);
        if (!engine->holds(stream, what.epoch))
          return; // aborted meanwhile
        streams[stream] = what.epoch;
        if (what.credit)
          engine->grant(stream, what.epoch, *what.credit);
      },
      [&](const source_side::drop&) {
        moving->drop(id);
        auto at = streams.find(stream); // it may be here again, under a later epoch
        if (at != streams.end() && !engine->holds(stream, at->second))
          streams.erase(at);
      },
      [&](const source_side::unpin&) { moving->unpin(id); },
    },
    msg.what);
}

void engine_state::carry_out(arrival_order_msg& msg) {
  auto* moving = engine->moving();
  const auto& id = msg.of.id;
  auto outcome_of = [](const result<void>& done) {
    return done ? error{errc::ok, {}} : done.error();
  };
  std::visit(
    overloaded{
      [&](arrival_order_msg::reserve& what) {
        auto room = moving ? moving->reserve(id, what.offer.request, what.headroom)
                           : result<arriving_room>{cannot_move()};
        self->send(
          msg.from,
          arrival_event_msg{destination_side::offered{std::move(what.offer), std::move(room)}});
      },
      [&](const destination_side::verify& what) {
        self->send(
          msg.from, arrival_event_msg{destination_side::verified{
                      outcome_of(moving->landed(id, what.ids, what.from, what.to))}});
      },
      [&](const destination_side::compute_ahead& what) {
        moving->compute_ahead(id, what.ids);
        being_computed[id].arrival = msg.from;
      },
      [&](destination_side::adopt& what) {
        auto stream = what.request.stream;
        auto epoch = what.request.epoch;
        auto done = moving->adopt(id, std::move(what.request), what.sent, self->clock().now());
        if (done)
          streams[stream] = epoch;
        being_computed.erase(id);
        self->send(msg.from, arrival_event_msg{destination_side::adopted{outcome_of(done)}});
      },
      [&](const destination_side::end_request& what) { forget(msg.of.stream, what.epoch); },
      [&](const destination_side::give_up&) {
        being_computed.erase(id);
        moving->give_up(id);
      },
    },
    msg.what);
}

/// How far the rooms are that the engine computes.
void engine_state::tell_computed() {
  for (auto& [id, room] : being_computed) {
    auto ready = engine->moving()->ready_tokens(id);
    if (ready > room.told) {
      room.told = ready;
      self->send(room.arrival, arrival_event_msg{destination_side::computed{ready}});
    }
  }
}

/// Ids of the lists are places in `streams`.
listed_msg engine_state::on_list() const {
  listed_msg listed;
  listed.lists = {std::vector<listed_request>{}, std::vector<listed_request>{}};
  listed.kv_capacity_tokens = engine->status().num_total_gpu_tokens;
  auto* moving = engine->moving();
  if (!moving)
    return listed;
  for (auto& request : moving->movable()) {
    auto& list = request.running ? *listed.lists.running : *listed.lists.waiting;
    list.push_back(
      {.id = std::to_string(listed.streams.size()),
       .tokens = static_cast<std::int32_t>(request.tokens),
       .output_tokens = static_cast<std::int32_t>(request.output_tokens),
       .high_priority = request.priority < 0,
       .migrating = request.moving});
    listed.streams.push_back(std::move(request.stream));
  }
  return listed;
}

} // namespace llumnix
