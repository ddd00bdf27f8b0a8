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

void engine_state::on_order(order what) {
  orders.push_back(std::move(what));
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
  auto found = prefills.find(stream);
  auto* apart = found != prefills.end() && found->second.id == id ? &found->second : nullptr;
  auto told = [](const result<leaving_request>& now) {
    return now ? static_cast<std::uint32_t>(now->request.output.size()) : 0;
  };
  std::visit(
    overloaded{
      [&](const departure_order_msg::pin& what) { pin(msg, what.to_decode); },
      [&](const source_side::look& what) {
        auto now = moving->look(id);
        if (apart && now && now->prefilling && now->written <= what.beyond)
          apart->look_beyond = what.beyond;
        else
          self->send(msg.from, departure_event_msg{source_side::looked{std::move(now)}});
      },
      [&](const source_side::freeze&) {
        if (apart)
          if (auto now = moving->look(id); now && now->prefilling) {
            apart->freeze = true;
            return;
          }
        auto now = moving->freeze(id);
        auto count = told(now);
        self->send(msg.from, departure_event_msg{source_side::frozen{std::move(now), count}});
      },
      [&](const source_side::thaw& what) {
        if (apart) {
          apart->freeze = false;
          apart->wanted.epoch = what.epoch;
        }
        moving->thaw(id, what.epoch);
        if (!engine->holds(stream, what.epoch))
          return; // aborted meanwhile
        streams[stream] = what.epoch;
        if (what.credit)
          engine->grant(stream, what.epoch, *what.credit);
      },
      [&](const source_side::drop&) {
        if (apart)
          apart->freeze = false;
        moving->drop(id);
        auto at = streams.find(stream); // it may be here again, under a later epoch
        if (at != streams.end() && !engine->holds(stream, at->second)) {
          streams.erase(at);
          prefills.erase(stream);
          end_arrival(stream);
        }
      },
      [&](const source_side::unpin&) {
        moving->unpin(id);
        if (apart)
          *apart = {.wanted = std::move(apart->wanted), .done = apart->done};
      },
    },
    msg.what);
}

/// A request that is prefilled here to decode elsewhere leaves no other way. It is told of when its
/// prefill begins: until then it needs no room there.
void engine_state::pin(departure_order_msg& msg, bool to_decode) {
  auto* moving = engine->moving();
  auto answer
    = [&](result<leaving_request> found) { self->send(msg.from, pinned_msg{std::move(found)}); };
  if (!moving)
    return answer(cannot_move());
  auto here = streams.find(msg.of.stream);
  if (here == streams.end())
    return answer(error{errc::not_found, "it is not at " + config.instance + " any more"});
  auto apart = prefills.find(msg.of.stream);
  if (apart != prefills.end() && !to_decode)
    return answer(
      error{errc::queue_full, "it is prefilled here, and decodes elsewhere after that"});
  auto pinned = moving->pin(msg.of.id, msg.of.stream, here->second);
  if (!pinned || apart == prefills.end())
    return answer(std::move(pinned));
  apart->second.departure = msg.from;
  apart->second.id = msg.of.id;
  bool begun = !pinned->prefilling || pinned->written > 0 || pinned->preemptions > 0;
  if (begun)
    answer(std::move(pinned));
  else
    apart->second.pinned = std::move(*pinned);
}

/// The step that runs now computes parts of prompts.
void engine_state::on_prefills_begun() {
  for (const auto& share : running.prefills) {
    auto found = prefills.find(share.stream);
    if (found == prefills.end() || !found->second.pinned)
      continue;
    auto& apart = found->second;
    self->send(apart.departure, pinned_msg{std::move(*apart.pinned)});
    apart.pinned.reset();
  }
}

/// Those parts are done, and what they made was told. What has all of its prompt is frozen before
/// the next step begins.
void engine_state::on_prefills_ended() {
  for (const auto& share : running.prefills) {
    auto found = prefills.find(share.stream);
    if (found == prefills.end() || found->second.wanted.epoch != share.epoch)
      continue;
    auto& apart = found->second;
    auto* moving = engine->moving();
    apart.done = apart.done || share.done;
    if (share.done && std::exchange(apart.freeze, false)) {
      auto now = moving->freeze(apart.id);
      auto told = now ? static_cast<std::uint32_t>(now->request.output.size()) : 0;
      self->send(apart.departure, departure_event_msg{source_side::frozen{std::move(now), told}});
    } else if (share.done) {
      self->send(llumlet, prefilled_msg{apart.wanted});
    }
    if (!apart.look_beyond)
      continue;
    auto now = moving->look(apart.id);
    if (now && now->prefilling && now->written <= *apart.look_beyond)
      continue;
    apart.look_beyond.reset();
    self->send(apart.departure, departure_event_msg{source_side::looked{std::move(now)}});
  }
  running.prefills.clear();
}

/// Whoever brought the stream here need not answer for it any longer.
void engine_state::end_arrival(const stream_ref& stream) {
  if (auto found = came.extract(stream))
    self->send(found.mapped(), arrival_event_msg{destination_side::request_ended{}});
}

/// The request has ended here: whoever waits for its prefill waits no longer.
void engine_state::end_prefill(const stream_ref& stream) {
  auto found = prefills.find(stream);
  if (found == prefills.end())
    return;
  auto apart = std::move(found->second);
  prefills.erase(found);
  error gone{errc::not_found, "the request ended"};
  if (apart.pinned) {
    engine->moving()->unpin(apart.id);
    self->send(apart.departure, pinned_msg{gone});
  }
  if (apart.look_beyond)
    self->send(apart.departure, departure_event_msg{source_side::looked{gone}});
  if (apart.freeze)
    self->send(apart.departure, departure_event_msg{source_side::frozen{gone, 0}});
}

void engine_state::carry_out(decode_here_msg& msg) {
  auto found = prefills.find(msg.stream);
  if (found == prefills.end() || found->second.wanted.epoch != msg.epoch)
    return;
  prefills.erase(found);
  engine->moving()->decode_here(msg.stream, msg.epoch);
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
        if (done) {
          streams[stream] = epoch;
          end_arrival(stream);
          came.emplace(stream, msg.from);
        }
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
