#include "tests/migration/handover_model.hpp"

#include "tests/migration/handover_fingerprint.hpp"

#include <algorithm>
#include <type_traits>

namespace llumnix::model {

namespace {

constexpr std::uint32_t prompt_tokens = 2;
constexpr token_id first_id = 100;

std::vector<token_id> output_ids(std::uint32_t count) {
  std::vector<token_id> ids(count);
  for (std::uint32_t index = 0; index < count; ++index)
    ids[index] = first_id + index;
  return ids;
}

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

// --- hand-overs ---------------------------------------------------------------------------------

/// Looks that waited for more to be written, or for the end of it.
void world::answer_looks() {
  for (int at = 0; at < 2; ++at) {
    auto& here = nodes_[static_cast<std::size_t>(at)];
    for (std::size_t index = 0; index < here.sides.size(); ++index) {
      auto& one = here.sides[index];
      if (!one.look_beyond)
        continue;
      bool mine = here.engine.here && here.engine.epoch == one.source->plan().of.epoch;
      if (mine && here.engine.prefilling && here.engine.written <= *one.look_beyond)
        continue;
      one.look_beyond.reset();
      if (mine)
        hear(at, index, source_event{source_side::looked{leaving(here)}});
      else
        hear(at, index, source_event{source_side::looked{{errc::not_found, ""}}});
    }
  }
}

void world::begin(int at) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  source_settings settings;
  settings.rounds_max = 2;
  settings.step_tokens = 0;
  settings.prefill_per_second = scene_.copy_tail ? 1 : 1e9;
  source_plan plan;
  plan.of.id = {0, ++next_id_};
  plan.source = owner_of(at);
  plan.destination = owner_of(1 - at);
  plan.path = scene_.path;
  plan.geometry
    = {.model = "m", .layout = "l", .block_tokens = 1, .bytes_per_token = 1, .max_model_len = 100};
  plan.kv_address = "here";
  plan.to_decode = here.engine.prefilling;
  side fresh;
  fresh.id = plan.of.id;
  fresh.pinned = true;
  fresh.window_open = scene_.path == move_path::kv;
  fresh.source.emplace(settings, std::move(plan));
  here.sides.push_back(std::move(fresh));
  auto index = here.sides.size() - 1;
  for (auto& effect : here.sides[index].source->begin(leaving(here), time_point{}))
    carry_out(at, index, effect);
}

void world::receive_offer(int at, const handover::offer& offer, bool refused) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  if (auto* one = side_of(at, offer.of.id)) {
    if (one->destination)
      hear(
        at, static_cast<std::size_t>(one - here.sides.data()), destination_event{offer}, refused);
    return;
  }
  if (here.ended.find(offer.of.id, time_point{}) != nullptr)
    return send(offer.source, handover::reject{offer.of, {errc::stale, {}}});
  side fresh;
  fresh.id = offer.of.id;
  fresh.destination.emplace(destination_settings{}, owner_of(at));
  result<arriving_room> room{errc::queue_full, ""};
  if (!refused && !(here.engine.here && here.engine.epoch >= offer.of.epoch)) {
    room = arriving_room{.blocks = {}, .present_tokens = 0, .reserved_tokens = 20};
    fresh.room = true;
  }
  here.sides.push_back(std::move(fresh));
  hear(
    at, here.sides.size() - 1,
    destination_event{destination_side::offered{offer, std::move(room)}});
}

void world::hear(int at, std::size_t index, const source_event& event) {
  auto& one = nodes_[static_cast<std::size_t>(at)].sides[index];
  auto before = one.source->at();
  auto effects = one.source->on(event, one.clock);
  if (
    std::holds_alternative<source_side::tick>(event) && before == source_machine::state::deciding
    && one.source->at() == source_machine::state::cancelling)
    excuses_.gave_up_deciding = true;
  for (auto& effect : effects)
    carry_out(at, index, effect);
}

void world::carry_out(int at, std::size_t index, const source_effect& effect) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  auto& one = here.sides[index];
  auto of = one.source->plan().of;
  bool mine = here.engine.here && here.engine.epoch == of.epoch;
  std::visit(
    [&](const auto& what) {
      using type = std::decay_t<decltype(what)>;
      if constexpr (std::is_same_v<type, source_side::look>) {
        if (mine && here.engine.prefilling && here.engine.written <= what.beyond)
          one.look_beyond = what.beyond;
        else if (mine)
          hear(at, index, source_event{source_side::looked{leaving(here)}});
        else
          hear(at, index, source_event{source_side::looked{{errc::not_found, ""}}});
      } else if constexpr (std::is_same_v<type, source_side::freeze>) {
        one.freeze_wanted = true;
      } else if constexpr (std::is_same_v<type, source_side::thaw>) {
        one.freeze_wanted = one.freeze_wanted && !one.source->plan().to_decode;
        if (!mine || !here.engine.frozen || scene_.broken == broken_rule::source_never_thaws)
          return;
        here.engine.frozen = false;
        here.engine.epoch = what.epoch;
      } else if constexpr (std::is_same_v<type, source_side::drop>) {
        one.freeze_wanted = one.freeze_wanted && !one.source->plan().to_decode;
        if (mine && here.engine.frozen)
          here.engine.here = false;
      } else if constexpr (std::is_same_v<type, source_side::close_window>) {
        one.window_closing = true;
        if (scene_.broken == broken_rule::source_unpins_with_open_window)
          hear(at, index, source_event{source_side::window_closed{}});
      } else if constexpr (std::is_same_v<type, source_side::unpin>) {
        auto* reader = side_of(1 - at, one.id);
        if (reader != nullptr && reader->pulling && !reader->pull_cut)
          fail("blocks are unpinned while they are read");
        if (!one.pinned)
          fail("unpinned twice");
        one.pinned = false;
      } else if constexpr (std::is_same_v<type, source_side::ended>) {
        ++one.ends;
        here.ended.remember({of, false}, time_point{});
        here.engine.stands = false; // it decodes here, or is gone
        moved_ = moved_ || what.outcome == source_outcome::moved;
        auto winner = owner_.speakers.find(of.epoch + 1);
        if (
          what.outcome == source_outcome::moved
          && (winner == owner_.speakers.end() || winner->second != one.source->plan().destination))
          fail("moved, but its destination never owned the stream");
        if (what.outcome == source_outcome::kept && mine && here.engine.frozen)
          fail("kept, but frozen for ever");
      } else if constexpr (std::is_same_v<type, handover::reclaim>) {
        if (scene_.broken == broken_rule::source_resumes_by_itself)
          hear(
            at, index,
            source_event{handover::claim_answer{
              of, true, handover::claim_verdict::granted, inference_request::no_limit}});
        else
          send(owner_node, 0, what);
      } else {
        send(one.source->plan().destination, what);
      }
    },
    effect);
}

void world::hear(int at, std::size_t index, const destination_event& event, bool refused) {
  auto& one = nodes_[static_cast<std::size_t>(at)].sides[index];
  auto effects = one.destination->on(event, one.clock);
  if (one.destination->at() == destination_machine::state::abandoning)
    excuses_.gave_up_claiming = true;
  for (auto& effect : effects)
    carry_out(at, index, effect, refused);
}

void world::carry_out(int at, std::size_t index, const destination_effect& effect, bool refused) {
  auto& here = nodes_[static_cast<std::size_t>(at)];
  auto& one = here.sides[index];
  auto of = one.destination->of();
  std::visit(
    [&](const auto& what) {
      using type = std::decay_t<decltype(what)>;
      if constexpr (std::is_same_v<type, destination_side::pull>) {
        if (one.pulling)
          fail("two pulls at a time");
        auto* from = side_of(1 - at, one.id);
        one.pulling = true;
        one.pull_cancelled = false;
        one.pull_cut = from == nullptr || !from->window_open;
        one.pull_to = what.to;
      } else if constexpr (std::is_same_v<type, destination_side::cancel_pull>) {
        one.pull_cancelled = true;
        if (scene_.broken == broken_rule::destination_frees_before_quiesce)
          hear(at, index, destination_event{destination_side::pulled{{errc::cancelled, ""}, 0}});
      } else if constexpr (std::is_same_v<type, destination_side::verify>) {
        hear(at, index, destination_event{destination_side::verified{{errc::ok, ""}}});
      } else if constexpr (std::is_same_v<type, destination_side::compute_ahead>) {
        one.computing_to = static_cast<std::uint32_t>(what.ids.size()) - 1;
      } else if constexpr (std::is_same_v<type, destination_side::adopt>) {
        if (one.pulling)
          fail("a room is adopted while a pull into it is under way");
        auto& engine = here.engine;
        error why{errc::ok, ""};
        if (refused || (engine.here && engine.epoch >= what.request.epoch)) {
          why = {errc::stale, ""};
        } else {
          if (
            what.request.output
            != output_ids(static_cast<std::uint32_t>(what.request.output.size())))
            fail("other tokens than the source made");
          one.room = false;
          auto made = static_cast<std::uint32_t>(what.request.output.size());
          engine = {
            .here = true,
            .frozen = false,
            .epoch = what.request.epoch,
            .made = made,
            .told = what.sent,
            .written = prompt_tokens + made - 1,
            .preemptions = engine.preemptions};
        }
        hear(at, index, destination_event{destination_side::adopted{std::move(why)}});
      } else if constexpr (std::is_same_v<type, destination_side::end_request>) {
        abort(at, what.epoch);
      } else if constexpr (std::is_same_v<type, destination_side::give_up>) {
        if (one.pulling)
          fail("a room is given up while a pull into it is under way");
        if (scene_.broken != broken_rule::destination_keeps_room)
          one.room = false;
      } else if constexpr (std::is_same_v<type, destination_side::ended>) {
        ++one.ends;
        here.ended.remember({of, what.outcome == destination_outcome::moved}, time_point{});
      } else if constexpr (std::is_same_v<type, handover::claim>) {
        if (scene_.broken == broken_rule::destination_emits_unclaimed)
          hear(
            at, index,
            destination_event{handover::claim_answer{
              of, false, handover::claim_verdict::granted, inference_request::no_limit}});
        else
          send(owner_node, 0, what);
      } else if constexpr (std::is_same_v<type, handover::abandon>) {
        send(owner_node, 0, what);
      } else {
        send(one.destination->source(), what);
      }
    },
    effect);
}

/// Machines that are done are forgotten, as their actors do; what they should have let go is let
/// go.
void world::forget_done(int at) {
  std::erase_if(nodes_[static_cast<std::size_t>(at)].sides, [&](const side& one) {
    bool done = one.source ? one.source->at() == source_machine::state::done
                           : one.destination->at() == destination_machine::state::done;
    if (!done)
      return false;
    if (one.pinned || one.room || one.pulling || one.freeze_wanted)
      fail("a machine is done and has left something behind");
    if (one.ends != 1)
      fail("a slot was returned " + std::to_string(one.ends) + " times");
    return true;
  });
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
