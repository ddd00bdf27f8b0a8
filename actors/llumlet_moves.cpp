#include "actors/arrival_actor.hpp"
#include "actors/departure_actor.hpp"
#include "actors/llumlet_actor.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/overloaded.hpp"

#include <algorithm>

/// LLUMLET's part in live migration: who leaves, who arrives, how many at a time; and which
/// hand-over a word is for.
namespace llumnix {

namespace {

move_result refused_move(
  const stream_ref& stream, const stream_owner& from, const migrate_msg& msg, std::string why) {
  move_result result;
  result.stream = stream;
  result.from = from;
  result.to = msg.to;
  result.policy = msg.policy;
  result.outcome = "refused";
  result.reason = std::move(why);
  return result;
}

/// Whether computing the KV anew may succeed where copying it has failed.
bool recompute_may_help(const move_result& result) {
  return result.path == "kv" && (result.outcome == "refused" || result.outcome == "failed");
}

} // namespace

// --- out -----------------------------------------------------------------------------------------

caf::result<moves_msg> llumlet_state::on_migrate(migrate_msg& msg) {
  auto all_refused = [&](const std::string& why) {
    moves_msg answer;
    for (const auto& stream : msg.requests)
      answer.moves.push_back(refused_move(stream, own(), msg, why));
    if (answer.moves.empty())
      answer.moves.push_back(refused_move({}, own(), msg, why));
    return answer;
  };
  if (!engine)
    return all_refused("its engine is behind HTTP: requests there are replayed, not moved");
  if (msg.to == own())
    return all_refused("it is there already");
  if (msg.rescheduled && draining)
    return all_refused("it is being drained: whoever does that moves its requests");
  if (config.migration.out_slots == 0)
    return all_refused("migration.out_slots is 0: nothing leaves this instance");
  if (!llumlet_of(msg.to))
    return all_refused(msg.to.instance + " is not connected");
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
        settle(order, refused_move({}, own(), msg, "the engine does not answer"));
      });
  return promise;
}

void llumlet_state::on_listed(
  std::uint64_t order, const migrate_msg& msg, const listed_msg& listed) {
  auto chosen = select_requests(msg.selection, listed.lists, listed.kv_capacity_tokens);
  if (!chosen) {
    orders[order].open = 1;
    settle(order, refused_move({}, own(), msg, chosen.error().context));
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
    made.promise.deliver(moves_msg{});
    orders.erase(order);
    return;
  }
  auto under_way = [&](const stream_ref& stream) {
    auto same = [&](const departure& x) { return x.stream == stream; };
    return std::any_of(queued.begin(), queued.end(), same)
           || std::any_of(
             departures.begin(), departures.end(), [&](const auto& x) { return same(x.second); });
  };
  auto path = kv ? move_path::kv : move_path::recompute;
  for (const auto& stream : streams)
    if (under_way(stream))
      settle(order, refused_move(stream, own(), msg, "it is on its way already"));
    else
      queued.push_back({order, stream, msg.to, msg.policy, msg.planned, path, {}});
  start_departures();
}

void llumlet_state::start_departures() {
  while (!queued.empty() && departures.size() < config.migration.out_slots) {
    auto next = std::move(queued.front());
    queued.pop_front();
    start(std::move(next));
  }
}

void llumlet_state::start(departure next) {
  auto destination = llumlet_of(next.to);
  auto hub = hub_of(next.stream);
  if (!destination || !hub) {
    migrate_msg asked;
    asked.to = next.to;
    asked.policy = next.policy;
    settle(
      next.order, refused_move(
                    next.stream, own(), asked,
                    destination ? "its stream's gateway is not connected"
                                : next.to.instance + " is not connected"));
    return;
  }
  handover_id id{chance(), chance()};
  departure_actor_config settings;
  settings.limits.offer_limit = config.migration.offer_timeout;
  settings.limits.tail_limit = config.migration.tail_timeout;
  settings.limits.decide_limit = config.migration.decide_timeout;
  settings.limits.lease = config.migration.lease;
  settings.limits.rounds_max = config.migration.rounds_max;
  // A round of copying is two messages, a pull and the engine's look at what landed. Below twenty
  // tokens computing them is faster, for they come with the next step there.
  settings.limits.round_trip = std::chrono::milliseconds{2};
  settings.plan.of = {id, next.stream, 0};
  settings.plan.source = own();
  settings.plan.destination = next.to;
  settings.plan.path = next.path;
  settings.plan.geometry = geometry;
  settings.plan.planned = next.planned;
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
  departures.emplace(id, std::move(next));
  slots_changed();
}

void llumlet_state::on_departed(departed_msg& msg) {
  auto found = departures.find(msg.id);
  if (found == departures.end())
    return;
  auto leaving = std::move(found->second);
  departures.erase(found);
  ended.remember({{msg.id, leaving.stream, msg.result.epoch}, false}, self->clock().now());
  if (recompute_may_help(msg.result)) {
    log::llumlet.info(
      "no-kv", "{} to {}: {}; its KV is computed there", msg.result.request, leaving.to.instance,
      msg.result.reason);
    leaving.path = move_path::recompute;
    leaving.actor = nullptr;
    queued.push_front(std::move(leaving));
  } else {
    settle(leaving.order, std::move(msg.result));
  }
  start_departures();
  slots_changed();
}

/// One request of an order has moved or has not. Its gateway is told, for its record.
void llumlet_state::settle(std::uint64_t order, move_result result) {
  if (!result.request.empty())
    if (const auto* card = peer({result.stream.node, result.stream.incarnation});
        card && !card->gateway.empty())
      self->send(card->gateway.front(), moved_msg{result});
  auto found = orders.find(order);
  if (found == orders.end())
    return;
  auto& made = found->second;
  made.results.push_back(std::move(result));
  if (--made.open > 0)
    return;
  made.promise.deliver(moves_msg{std::move(made.results)});
  orders.erase(found);
}

// --- in ------------------------------------------------------------------------------------------

void llumlet_state::on_offer(handover::offer& msg) {
  auto id = msg.of.id;
  if (auto known = arrivals.find(id); known != arrivals.end()) {
    self->send(known->second.actor, arrival_event_msg{std::move(msg)});
    return;
  }
  auto now = self->clock().now();
  if (ended.find(id, now) != nullptr) {
    on_stray(msg);
    return;
  }
  auto source = llumlet_of(msg.source);
  if (!source)
    return; // nobody to answer to
  if (auto fits = check(msg); !fits) {
    ended.remember({msg.of, false}, now);
    self->send(source, handover::reject{msg.of, fits.error()});
    return;
  }
  arrival_actor_config settings;
  settings.limits.lease = std::min<nanoseconds>(config.migration.lease, msg.lease);
  settings.headroom_tokens = config.migration.headroom_tokens;
  settings.geometry = geometry;
  settings.llumlet = self;
  settings.engine = engine;
  settings.source = source;
  settings.hub = hub_of(msg.of.stream);
  if (msg.path == move_path::kv)
    settings.kv = kv;
  auto stream = msg.of.stream;
  auto from = msg.source;
  settings.offer = std::move(msg);
  auto actor = self->spawn<caf::linked>(make_arrival, std::move(settings));
  arrivals.emplace(id, arrival{stream, from, actor});
  slots_changed();
}

/// Whether the request may come, but for its blocks.
result<void> llumlet_state::check(const handover::offer& offer) const {
  if (!engine || !meant(offer.destination))
    return {errc::stale, "that life of the instance is over"};
  if (draining)
    return {errc::draining, "it is being drained"};
  if (arriving() >= config.migration.in_slots)
    return {
      errc::queue_full, "all " + std::to_string(config.migration.in_slots)
                          + " of migration.in_slots are taken there"};
  if (offer.path == move_path::kv && !kv)
    return {errc::unsupported, "no KV can be copied there"};
  if (!hub_of(offer.of.stream))
    return {errc::unreachable, "the stream's gateway is not connected there"};
  return compatible(offer, geometry);
}

void llumlet_state::on_arrived(const arrived_msg& msg) {
  auto found = arrivals.find(msg.of.id);
  if (found == arrivals.end())
    return;
  if (msg.done) {
    ended.remember({msg.of, false}, self->clock().now());
    arrivals.erase(found);
  } else {
    found->second.counts = false;
    ended.remember({msg.of, msg.outcome == destination_outcome::moved}, self->clock().now());
  }
  slots_changed();
}

std::uint32_t llumlet_state::arriving() const {
  return static_cast<std::uint32_t>(
    std::count_if(arrivals.begin(), arrivals.end(), [](const auto& x) { return x.second.counts; }));
}

// --- words ---------------------------------------------------------------------------------------

template <class Word>
void llumlet_state::to_departure(Word& word) {
  if (auto found = departures.find(word.of.id); found != departures.end())
    self->send(found->second.actor, departure_event_msg{std::move(word)});
  else
    on_stray(word);
}

template <class Word>
void llumlet_state::to_arrival(Word& word) {
  if (auto found = arrivals.find(word.of.id); found != arrivals.end())
    self->send(found->second.actor, arrival_event_msg{std::move(word)});
  else
    on_stray(word);
}

template <class Word>
void llumlet_state::to_either(Word& word) {
  if (departures.count(word.of.id) > 0)
    to_departure(word);
  else
    to_arrival(word);
}

template void llumlet_state::to_departure(handover::accept&);
template void llumlet_state::to_departure(handover::reject&);
template void llumlet_state::to_departure(handover::prepared&);
template void llumlet_state::to_departure(handover::committed&);
template void llumlet_state::to_departure(handover::commit_failed&);
template void llumlet_state::to_departure(handover::release&);
template void llumlet_state::to_arrival(handover::copy_progress&);
template void llumlet_state::to_arrival(handover::freeze_commit&);
template void llumlet_state::to_either(handover::cancel&);
template void llumlet_state::to_either(handover::cancelled&);

/// A word of a hand-over that has ended, or that nobody here knows.
template <class Word>
void llumlet_state::on_stray(const Word& word) {
  auto sender = self->current_sender();
  auto answer = answer_stray(ended, word, own(), self->clock().now());
  std::visit(
    overloaded{
      [](std::monostate) {},
      [&](handover::reject& x) {
        if (sender)
          self->send(caf::actor_cast<departure_actor>(sender), std::move(x));
      },
      [&](handover::cancelled& x) {
        if (sender)
          self->send(caf::actor_cast<departure_actor>(sender), std::move(x));
      },
      [&](handover::abandon& x) {
        if (auto hub = hub_of(x.of.stream))
          self->send(hub, std::move(x));
      },
    },
    answer);
}

// --- the world -----------------------------------------------------------------------------------

/// A node life ended: peers of hand-overs, or whoever had the streams, are gone with it.
void llumlet_state::tell_lost(const node_life& life) {
  auto lost
    = [&](const node_life& x) { return x.node == life.node && x.incarnation <= life.incarnation; };
  for (const auto& [id, leaving] : departures) {
    if (lost(leaving.to.life))
      self->send(leaving.actor, departure_event_msg{source_side::destination_lost{}});
    if (lost({leaving.stream.node, leaving.stream.incarnation}))
      self->send(leaving.actor, departure_event_msg{source_side::owner_lost{}});
  }
  for (const auto& [id, coming] : arrivals) {
    if (lost(coming.source.life))
      self->send(coming.actor, arrival_event_msg{destination_side::source_lost{}});
    if (lost({coming.stream.node, coming.stream.incarnation}))
      self->send(coming.actor, arrival_event_msg{destination_side::owner_lost{}});
  }
}

const node_card* llumlet_state::peer(const node_life& life) const {
  auto found = peers.find(life.node);
  return found == peers.end() || found->second.self.life != life ? nullptr : &found->second;
}

llumlet_actor llumlet_state::llumlet_of(const stream_owner& owner) const {
  if (const auto* card = peer(owner.life))
    for (const auto& instance : card->instances)
      if (instance.metadata.instance_id == owner.instance)
        return instance.llumlet;
  return {};
}

stream_hub_actor llumlet_state::hub_of(const stream_ref& stream) const {
  const auto* card = peer({stream.node, stream.incarnation});
  return card && stream.hub < card->hubs.size() ? card->hubs[stream.hub] : stream_hub_actor{};
}

/// Everybody learns of it with the next status, which is now.
void llumlet_state::slots_changed() {
  ++slot_changes;
  publish();
}

/// The engine's status, and what hand-overs and draining make of it.
instance_status llumlet_state::told_status() const {
  auto told = status;
  if (!engine)
    return told;
  auto out = static_cast<std::int32_t>(departures.size());
  auto in = static_cast<std::int32_t>(arriving());
  told.update_id += slot_changes;
  told.schedulable = told.schedulable && !draining;
  told.num_migrate_out_reqs = out;
  told.num_migrate_in_reqs = in;
  told.num_available_migrate_out_slots
    = static_cast<std::int32_t>(config.migration.out_slots) - out;
  told.num_available_migrate_in_slots = static_cast<std::int32_t>(config.migration.in_slots) - in;
  return told;
}

} // namespace llumnix
