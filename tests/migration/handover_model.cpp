#include "tests/migration/handover_model.hpp"

#include "tests/migration/handover_fingerprint.hpp"

#include <algorithm>
#include <type_traits>

namespace llumnix::model {

namespace {

template <class Message>
constexpr bool for_source
  = std::is_same_v<
      Message,
      handover::
        accept> || std::is_same_v<Message, handover::reject> || std::is_same_v<Message, handover::prepared> || std::is_same_v<Message, handover::committed> || std::is_same_v<Message, handover::commit_failed> || std::is_same_v<Message, handover::release>;

template <class Message>
constexpr bool for_destination
  = std::is_same_v<
      Message,
      handover::
        copy_progress> || std::is_same_v<Message, handover::freeze_commit> || std::is_same_v<Message, handover::abandoned>;

template <class Message>
constexpr bool for_either
  = std::is_same_v<
      Message,
      handover::
        cancel> || std::is_same_v<Message, handover::cancelled> || std::is_same_v<Message, handover::claim_answer>;

} // namespace

std::vector<token_id> output_ids(std::uint32_t count) {
  std::vector<token_id> ids(count);
  for (std::uint32_t index = 0; index < count; ++index)
    ids[index] = first_id + index;
  return ids;
}

world::world(const scene& what) : scene_{what}, left_{what.may} {
  auto& engine = nodes_[0].engine;
  engine.here = true;
  if (!scene_.waiting) {
    engine.made = engine.told = 1;
    engine.written = prompt_tokens;
    owner_.delivered = 1;
  }
  engine.prefilling = scene_.to_decode;
  owner_.owner = owner_of(0);
  owner_.raised = {true};
  owner_.speakers.emplace(0, owner_of(0));
}

stream_owner world::owner_of(int node) const {
  auto name = node == 0 ? "0" : "1";
  return {{name, nodes_[static_cast<std::size_t>(node)].incarnation}, name};
}

int world::node_of(const stream_owner& who) const {
  return who.instance == "0" ? 0 : 1;
}

bool world::alive(const stream_owner& who) const {
  return owner_of(node_of(who)) == who;
}

void world::fail(const std::string& what) {
  if (broken_.empty())
    broken_ = what;
}

// --- the network --------------------------------------------------------------------------------

void world::send(int to, std::uint64_t incarnation, payload what, bool sure) {
  letter made{
    .to = to,
    .incarnation = incarnation,
    .sure = sure,
    .what = std::make_shared<const payload>(std::move(what))};
  handover_fingerprint hash;
  hash.add(static_cast<std::uint64_t>(to));
  hash.add(incarnation);
  hash.add(*made.what);
  made.hash = hash.value;
  post_.push_back(std::move(made));
}

void world::send(const stream_owner& to, payload what, bool sure) {
  send(node_of(to), to.life.incarnation, std::move(what), sure);
}

void world::deliver(const letter& what, bool refused) {
  if (what.to == owner_node)
    at_owner(*what.what);
  else if (nodes_[static_cast<std::size_t>(what.to)].incarnation == what.incarnation)
    at_node(what.to, what, refused);
}

side* world::side_of(int at, const handover_id& id) {
  for (auto& one : nodes_[static_cast<std::size_t>(at)].sides)
    if (one.id == id)
      return &one;
  return nullptr;
}

void world::at_node(int at, const letter& what, bool refused) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  auto stray = [&](const stray_message& message) {
    auto answer = answer_stray(here.ended, message, owner_of(at), time_point{});
    auto peer = owner_of(1 - at);
    std::visit(
      [&](auto& reply) {
        using type = std::decay_t<decltype(reply)>;
        if constexpr (std::is_same_v<type, handover::abandon>)
          send(owner_node, 0, reply);
        else if constexpr (!std::is_same_v<type, std::monostate>)
          send(peer, reply);
      },
      answer);
  };
  std::visit(
    [&](const auto& message) {
      using type = std::decay_t<decltype(message)>;
      if constexpr (std::is_same_v<type, handover::offer>) {
        receive_offer(at, message, refused);
      } else if constexpr (for_source<type> || for_destination<type> || for_either<type>) {
        auto* one = side_of(at, message.of.id);
        if (one == nullptr)
          return stray(message);
        auto index = static_cast<std::size_t>(one - here.sides.data());
        if (one->source) {
          if constexpr (!for_destination<type>)
            hear(at, index, source_event{message});
        } else {
          if constexpr (!for_source<type>)
            hear(at, index, destination_event{message}, refused);
        }
      } else if constexpr (std::is_same_v<type, abort_epoch>) {
        abort(at, message.epoch);
      } else if constexpr (std::is_same_v<type, ask_holds>) {
        bool holds = here.engine.here && here.engine.epoch == message.epoch;
        for (const auto& one : here.sides)
          holds = holds || (one.source && one.source->holds(message.epoch))
                  || (one.destination && one.destination->holds(message.epoch));
        for (const auto& other : post_) // placed, and behind this on the same connection
          if (const auto* placed = std::get_if<place>(other.what.get()))
            holds = holds || (other.to == at && placed->epoch == message.epoch);
        if (!holds && here.finished_epoch == message.epoch + 1)
          excuses_.last_batch_lost = true;
        send(owner_node, 0, holds_answer{owner_of(at), message.epoch, holds});
      } else if constexpr (std::is_same_v<type, place>) {
        auto& engine = here.engine;
        if (engine.here && engine.epoch >= message.epoch)
          return;
        if (engine.here)
          abort(at, engine.epoch);
        engine = {
          .here = true,
          .frozen = false,
          .epoch = message.epoch,
          .made = message.output,
          .told = message.output,
          .written = 0,
          .preemptions = engine.preemptions};
      } else if constexpr (std::is_same_v<type, lost>) {
        for (std::size_t index = 0; index < here.sides.size(); ++index) {
          auto& one = here.sides[index];
          if (one.source && one.source->plan().destination == message.who)
            hear(at, index, source_event{source_side::destination_lost{}});
          else if (one.destination && one.destination->source() == message.who)
            hear(at, index, destination_event{destination_side::source_lost{}});
        }
      }
    },
    *what.what);
}

// --- engines ------------------------------------------------------------------------------------

leaving_request world::leaving(const node& at) const {
  leaving_request leaving;
  leaving.request.prompt.assign(prompt_tokens, 1);
  leaving.request.output = output_ids(at.engine.made);
  leaving.request.epoch = at.engine.epoch;
  leaving.written = at.engine.written;
  leaving.blocks.assign(at.engine.written, 0);
  leaving.running = at.engine.written > 0;
  leaving.preemptions = at.engine.preemptions;
  leaving.prefilling = at.engine.prefilling;
  return leaving;
}

void world::tell(int at, std::uint32_t from) {
  auto& engine = nodes_[static_cast<std::size_t>(at)].engine;
  token_delta batch;
  batch.epoch = engine.epoch;
  batch.start = from;
  for (auto index = from; index < engine.told; ++index)
    batch.tokens.push_back(first_id + index);
  if (engine.told == scene_.tokens)
    batch.finish = finish_reason::length;
  if (!batch.tokens.empty())
    send(owner_node, 0, tokens_told{owner_of(at), std::move(batch)});
}

void world::step(int at) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  auto& engine = here.engine;
  auto from = engine.told;
  if (engine.prefilling) {
    if (++engine.written < prompt_tokens)
      return;
    engine.prefilling = false;
    for (const auto& one : here.sides)
      engine.stands = engine.stands || (one.source && one.freeze_wanted);
  }
  ++engine.made;
  engine.told = engine.made;
  engine.written = prompt_tokens + engine.made - 1;
  tell(at, from);
  if (engine.made < scene_.tokens)
    return;
  engine.here = false;
  here.finished_epoch = engine.epoch + 1;
  for (std::size_t index = 0; index < here.sides.size(); ++index) {
    if (here.sides[index].source)
      hear(at, index, source_event{source_side::request_ended{}});
    else
      hear(at, index, destination_event{destination_side::request_ended{}});
  }
}

void world::abort(int at, std::uint32_t epoch) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  if (here.engine.here && here.engine.epoch <= epoch)
    here.engine.here = false;
  for (std::size_t index = 0; index < here.sides.size(); ++index) {
    if (here.sides[index].source)
      hear(at, index, source_event{source_side::aborted{epoch}});
    else
      hear(at, index, destination_event{destination_side::aborted{epoch}});
  }
}

void world::crash(int at) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  auto dead = owner_of(at);
  auto incarnation = here.incarnation + 1;
  for (auto& one : here.sides) // whoever reads from or into it can only fail
    if (auto* other = side_of(1 - at, one.id))
      other->pull_cut = true;
  here = node{};
  here.incarnation = incarnation;
  send(owner_of(1 - at), lost{dead}, true);
  send(owner_node, 0, lost{dead}, true);
}

// --- the stream's owner -------------------------------------------------------------------------

stream_claims& world::claims() {
  if (!owner_.claims)
    owner_.claims.emplace(claim_settings{}, owner_.epoch);
  return *owner_.claims;
}

void world::took_over(const handover::head& of, const stream_owner& by) {
  owner_.epoch = of.epoch + 1;
  owner_.owner = by;
  owner_.raised.resize(owner_.epoch + 1);
  owner_.raised[owner_.epoch] = false;
  owner_.speakers[owner_.epoch] = by;
}

void world::replay() {
  if (owner_.ended || owner_.client_gone)
    return;
  if (!excuses_.any() && alive(*owner_.owner))
    fail("a replay that nothing excuses");
  ++owner_.replays;
  ++owner_.epoch;
  if (owner_.claims)
    owner_.claims->raised(owner_.epoch, owner_.delivered);
  owner_.raised.resize(owner_.epoch + 1);
  owner_.raised[owner_.epoch] = true;
  owner_.owner = owner_of(owner_.replays % 2);
  owner_.speakers[owner_.epoch] = *owner_.owner;
  send(*owner_.owner, place{owner_.epoch, owner_.delivered}, true);
}

void world::at_owner(const payload& what) {
  bool gone = owner_.ended || owner_.client_gone;
  auto known_lost = [&](const stream_owner& who) {
    return scene_.broken != broken_rule::owner_grants_the_dead
           && std::find(owner_.lost.begin(), owner_.lost.end(), who) != owner_.lost.end();
  };
  std::visit(
    [&](const auto& message) {
      using type = std::decay_t<decltype(message)>;
      if constexpr (std::is_same_v<type, handover::claim>) {
        if (gone)
          return send(message.claimant, answer_when_gone(message));
        auto told = claims().on_claim(message, owner_.epoch, known_lost(message.claimant));
        if (told.took_over)
          took_over(message.of, message.claimant);
        send(message.claimant, told.answer);
      } else if constexpr (std::is_same_v<type, handover::reclaim>) {
        if (gone)
          return send(message.claimant, answer_when_gone(message));
        auto told = claims().on_reclaim(message, owner_.epoch, known_lost(message.claimant));
        if (told.took_over)
          took_over(message.of, message.claimant);
        if (scene_.broken == broken_rule::owner_grants_twice)
          told.answer.verdict = handover::claim_verdict::granted;
        send(message.claimant, told.answer);
      } else if constexpr (std::is_same_v<type, handover::abandon>) {
        if (!gone && claims().on_abandon(message, owner_.epoch, owner_.clock))
          replay();
        send(message.claimant, handover::abandoned{message.of});
      } else if constexpr (std::is_same_v<type, tokens_told>) {
        take_batch(message.sender, message.batch);
      } else if constexpr (std::is_same_v<type, holds_answer>) {
        if (
          !gone && !message.holds
          && no_counts(message.from, message.epoch, owner_.owner, owner_.epoch))
          replay();
      } else if constexpr (std::is_same_v<type, lost>) {
        owner_.lost.push_back(message.who);
        if (owner_.owner == message.who)
          replay();
      }
    },
    what);
}

void world::take_batch(const stream_owner& sender, const token_delta& batch) {
  if (owner_.ended || owner_.client_gone)
    return send(sender, abort_epoch{batch.epoch});
  if (batch.epoch == owner_.epoch && sender != owner_.owner)
    return;
  auto judged = batch;
  if (scene_.broken == broken_rule::owner_takes_old_tokens)
    judged.epoch = owner_.epoch;
  auto verdict = owner_.claims ? owner_.claims->judge(judged, owner_.epoch, owner_.delivered)
                               : judge(judged, owner_.epoch, owner_.delivered);
  if (verdict.abort)
    send(sender, abort_epoch{batch.epoch});
  if (verdict.hold) {
    if (!claims().hold(sender, batch, owner_.clock))
      fail("too many held");
    return;
  }
  if (verdict.take > 0) {
    if (batch.epoch < owner_.last_epoch)
      fail("an older owner speaks after a newer one");
    owner_.last_epoch = batch.epoch;
    if (auto speaker = owner_.speakers.find(batch.epoch);
        speaker == owner_.speakers.end() || speaker->second != sender)
      fail("a token of somebody who never owned the epoch");
    for (std::uint32_t index = 0; index < verdict.take; ++index)
      if (batch.tokens[verdict.skip + index] != first_id + owner_.delivered + index)
        fail("a token out of order");
    owner_.delivered += verdict.take;
  }
  if (verdict.finish) {
    owner_.ended = true;
    if (owner_.delivered != scene_.tokens)
      fail("ended too early");
    return;
  }
  if (!owner_.claims)
    return;
  if (auto next = owner_.claims->next_held(owner_.delivered))
    take_batch(next->sender, next->batch);
}

} // namespace llumnix::model
