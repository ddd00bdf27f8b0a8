#include "actors/arrival_actor.hpp"
#include "actors/departure_actor.hpp"
#include "actors/llumlet_actor.hpp"
#include "runtime/base/overloaded.hpp"

#include <algorithm>

/// LLUMLET's part in live migration: who arrives, which hand-over a word is for, and what the world
/// hears of both.
namespace llumnix {

// --- in ------------------------------------------------------------------------------------------

void llumlet_state::on_offer(handover::offer& msg) {
  auto id = msg.of.id;
  if (auto* known = arrival_of(id)) {
    self->send(known->actor, arrival_event_msg{std::move(msg)});
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
  if (auto may = may_arrive(msg, facts_for(msg)); !may) {
    ended.remember({msg.of, false}, now);
    self->send(source, handover::reject{msg.of, may.error()});
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
  auto moves = msg.moves;
  bool to_decode = msg.to_decode;
  settings.offer = std::move(msg);
  auto actor = self->spawn<caf::linked>(make_arrival, std::move(settings));
  arrivals.emplace(id, arrival{stream, from, actor, moves, to_decode});
  if (!to_decode)
    slots_changed();
}

arrival_facts llumlet_state::facts_for(const handover::offer& offer) const {
  arrival_facts facts;
  facts.self = own();
  if (engine)
    facts.geometry = geometry;
  facts.draining = draining;
  facts.arriving = slots_taken_in();
  facts.in_slots = config.migration.in_slots;
  facts.copies_kv = kv != nullptr;
  facts.knows_gateway = static_cast<bool>(hub_of(offer.of.stream));
  return facts;
}

/// Once accounted for it takes no slot, but still answers for its id.
void llumlet_state::on_arrived(const arrived_msg& msg) {
  const auto& id = msg.of.id;
  const auto* known = arrival_of(id);
  bool took_slot = known && !known->to_decode;
  bool moved = msg.outcome == destination_outcome::moved;
  ended.remember({msg.of, moved && !msg.done}, self->clock().now());
  if (auto came = arrivals.find(id); moved && came != arrivals.end()) {
    if (!came->second.to_decode)
      config.counters->moves_in.fetch_add(1, std::memory_order_relaxed);
    history.arrived(came->second.stream, came->second.moves, self->clock().now());
  }
  if (msg.done) {
    settled.erase(id);
    arrivals.erase(id);
  } else if (auto found = arrivals.extract(id)) {
    settled.insert(std::move(found));
  }
  if (took_slot)
    slots_changed();
}

llumlet_state::arrival* llumlet_state::arrival_of(const handover_id& id) {
  for (auto* some : {&arrivals, &settled})
    if (auto found = some->find(id); found != some->end())
      return &found->second;
  return nullptr;
}

// --- words ---------------------------------------------------------------------------------------

template <class Word>
void llumlet_state::to_departure(Word& word) {
  auto found = departures.find(word.of.id);
  if (found == departures.end())
    return on_stray(word);
  if constexpr (std::is_same_v<Word, handover::accept>) {
    note_accepted(found->second);
    tell_moving(found->second, word.of.epoch);
  }
  self->send(found->second.actor, departure_event_msg{std::move(word)});
}

template <class Word>
void llumlet_state::to_arrival(Word& word) {
  if (auto* found = arrival_of(word.of.id))
    self->send(found->actor, arrival_event_msg{std::move(word)});
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
  for (const auto* some : {&arrivals, &settled})
    for (const auto& [id, coming] : *some) {
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
  auto out = slots.taken();
  auto in = slots_taken_in();
  config.counters->departing.fetch_add(
    std::uint64_t{out} - std::exchange(counted_out, out), std::memory_order_relaxed);
  config.counters->arriving.fetch_add(
    std::uint64_t{in} - std::exchange(counted_in, in), std::memory_order_relaxed);
  publish();
}

/// What is prefilled at one instance to decode at another is the business of both: only moves take
/// slots.
std::uint32_t llumlet_state::slots_taken_in() const {
  return static_cast<std::uint32_t>(std::count_if(
    arrivals.begin(), arrivals.end(), [](const auto& x) { return !x.second.to_decode; }));
}

/// The engine's status, and what hand-overs and draining make of it.
instance_status llumlet_state::told_status() const {
  auto told = status;
  if (!engine) {
    told.schedulable = told.schedulable && !draining;
    return told;
  }
  auto out = static_cast<std::int32_t>(slots.taken());
  auto in = static_cast<std::int32_t>(slots_taken_in());
  told.update_id = static_cast<std::int32_t>(
    (static_cast<std::uint32_t>(told.update_id) + slot_changes) & 0x7FFFFFFF);
  told.schedulable = told.schedulable && !draining;
  told.num_migrate_out_reqs = out;
  told.num_migrate_in_reqs = in;
  told.num_available_migrate_out_slots
    = static_cast<std::int32_t>(config.migration.out_slots) - out;
  told.num_available_migrate_in_slots = static_cast<std::int32_t>(config.migration.in_slots) - in;
  return told;
}

} // namespace llumnix
