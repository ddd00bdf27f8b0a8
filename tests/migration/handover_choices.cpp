#include "tests/migration/handover_fingerprint.hpp"
#include "tests/migration/handover_model.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::model {

namespace {

constexpr auto long_time = std::chrono::seconds{30};

} // namespace

// --- choices ------------------------------------------------------------------------------------

std::vector<action> world::choices(bool calm) const {
  using kind = action::kind;
  std::vector<action> all;
  auto may = [&](int left) { return !calm && left > 0; };
  bool stream = !owner_.ended && !owner_.client_gone;

  for (std::size_t index = 0; index < post_.size(); ++index) {
    const auto& one = post_[index];
    bool seen = std::any_of(post_.begin(), post_.begin() + std::ptrdiff_t(index), [&](auto& x) {
      return x.hash == one.hash;
    });
    if (seen)
      continue;
    all.push_back({kind::deliver, one.to, index});
    bool refusable = std::holds_alternative<handover::offer>(*one.what);
    if (const auto* answer = std::get_if<handover::claim_answer>(one.what.get()))
      refusable = !answer->reclaimed && answer->verdict == handover::claim_verdict::granted;
    if (refusable && may(left_.refusals))
      all.push_back({kind::deliver_refused, one.to, index});
    if (!one.sure && may(left_.drops))
      all.push_back({kind::drop, one.to, index});
    if (!one.sure && may(left_.duplicates))
      all.push_back({kind::duplicate, one.to, index});
  }
  for (int at = 0; at < 2; ++at) {
    const auto& here = nodes_[static_cast<std::size_t>(at)];
    const auto& engine = here.engine;
    bool active = false;
    for (std::size_t index = 0; index < here.sides.size(); ++index) {
      const auto& one = here.sides[index];
      active = active || one.source;
      bool later = engine.here && engine.prefilling && one.source
                   && engine.epoch == one.source->plan().of.epoch;
      if (one.freeze_wanted && !later)
        all.push_back({kind::freeze, at, index});
      if (one.window_closing)
        all.push_back({kind::window_closed, at, index});
      if (one.pulling && !one.pull_cut && !one.pull_cancelled)
        all.push_back({kind::pull_done, at, index});
      if (one.pulling && (one.pull_cut || one.pull_cancelled || may(left_.pull_failures)))
        all.push_back({kind::pull_failed, at, index});
      if (one.computing_to > 0)
        all.push_back({kind::computed, at, index});
    }
    if (engine.here && !engine.frozen) {
      if (!engine.stands)
        all.push_back({kind::step, at, 0});
      if (engine.written > 0 && may(left_.preemptions))
        all.push_back({kind::preempt, at, 0});
      if (!active && may(left_.handovers))
        all.push_back({kind::begin, at, 0});
    }
    for (std::size_t index = 0; index < here.sides.size(); ++index) {
      const auto& one = here.sides[index];
      if (one.destination && one.destination->at() == destination_machine::state::running && !calm)
        continue; // nothing but forgetting
      auto deadline = one.source ? one.source->deadline() : one.destination->deadline();
      if (deadline && (calm || may(left_.ticks)))
        all.push_back({kind::tick, at, index});
      if (deadline && may(left_.ticks))
        all.push_back({kind::long_tick, at, index});
    }
    if (may(left_.crashes))
      all.push_back({kind::crash, at, 0});
  }
  if (stream) {
    if (owner_.claims && owner_.claims->deadline() && (calm || may(left_.ticks)))
      all.push_back({kind::owner_tick, owner_node, 0});
    if (owner_.claims && owner_.claims->deadline() && may(left_.ticks))
      all.push_back({kind::owner_long_tick, owner_node, 0});
    if (may(left_.holds_asked))
      all.push_back({kind::ask_holds, owner_node, 0});
    if (may(left_.client_leaves))
      all.push_back({kind::client_leaves, owner_node, 0});
    if (may(left_.false_deaths))
      all.push_back({kind::take_for_dead, owner_node, 0});
  }
  return all;
}

void world::take(const action& choice) {
  using kind = action::kind;
  if (telling_)
    story_.push_back(name(choice, *this));
  auto at = choice.node;
  auto* here = at < 2 ? &nodes_[static_cast<std::size_t>(at)] : nullptr;
  auto take_letter = [&] {
    auto one = post_[choice.index];
    post_.erase(post_.begin() + std::ptrdiff_t(choice.index));
    return one;
  };
  switch (choice.what) {
    case kind::deliver: deliver(take_letter(), false); break;
    case kind::deliver_refused:
      --left_.refusals;
      deliver(take_letter(), true);
      break;
    case kind::drop: {
      --left_.drops;
      auto lost_one = take_letter();
      if (const auto* told = std::get_if<tokens_told>(lost_one.what.get()))
        if (told->batch.finish != finish_reason::none)
          excuses_.last_batch_lost = true;
      break;
    }
    case kind::duplicate:
      --left_.duplicates;
      post_.push_back(post_[choice.index]);
      break;
    case kind::step: step(at); break;
    case kind::freeze: {
      auto& one = here->sides[choice.index];
      one.freeze_wanted = false;
      bool mine = here->engine.here && here->engine.epoch == one.source->plan().of.epoch;
      auto told = here->engine.told;
      here->engine.frozen = here->engine.frozen || mine;
      if (mine)
        hear(at, choice.index, source_event{source_side::frozen{leaving(*here), told}});
      else
        hear(at, choice.index, source_event{source_side::frozen{{errc::not_found, ""}, told}});
      break;
    }
    case kind::pull_done:
    case kind::pull_failed: {
      auto& one = here->sides[choice.index];
      bool done = choice.what == kind::pull_done;
      if (!done && !one.pull_cut && !one.pull_cancelled)
        --left_.pull_failures;
      one.pulling = false;
      hear(
        at, choice.index,
        destination_event{destination_side::pulled{{done ? errc::ok : errc::unreachable, ""}, 1}});
      break;
    }
    case kind::computed: {
      auto to = std::exchange(here->sides[choice.index].computing_to, 0);
      hear(at, choice.index, destination_event{destination_side::computed{to}});
      break;
    }
    case kind::window_closed: {
      auto& one = here->sides[choice.index];
      one.window_closing = one.window_open = false;
      if (auto* reader = side_of(1 - at, one.id); reader != nullptr && reader->pulling)
        reader->pull_cut = true;
      hear(at, choice.index, source_event{source_side::window_closed{}});
      break;
    }
    case kind::begin:
      --left_.handovers;
      begin(at);
      break;
    case kind::tick:
    case kind::long_tick: {
      if (left_.ticks > 0)
        --left_.ticks;
      auto& one = here->sides[choice.index];
      auto deadline = one.source ? one.source->deadline() : one.destination->deadline();
      one.clock = std::max(one.clock, *deadline);
      if (choice.what == kind::long_tick)
        one.clock += long_time;
      if (one.source)
        hear(at, choice.index, source_event{source_side::tick{}});
      else
        hear(at, choice.index, destination_event{destination_side::tick{}});
      break;
    }
    case kind::owner_tick:
    case kind::owner_long_tick: {
      if (left_.ticks > 0)
        --left_.ticks;
      owner_.clock = std::max(owner_.clock, *owner_.claims->deadline());
      if (choice.what == kind::owner_long_tick)
        owner_.clock += long_time;
      if (!owner_.claims->replay_due(owner_.clock))
        fail("a limit of the stream passed, and nothing is due");
      if (!excuses_.gave_up_claiming)
        excuses_.gap_lasted = true;
      send(*owner_.owner, abort_epoch{owner_.epoch});
      replay();
      break;
    }
    case kind::ask_holds:
      --left_.holds_asked;
      if (alive(*owner_.owner))
        send(*owner_.owner, ask_holds{owner_.epoch});
      break;
    case kind::client_leaves:
      --left_.client_leaves;
      owner_.client_gone = true;
      send(*owner_.owner, abort_epoch{owner_.epoch});
      break;
    case kind::crash:
      --left_.crashes;
      crash(at);
      break;
    case kind::preempt:
      --left_.preemptions;
      here->engine.written = 0;
      ++here->engine.preemptions;
      break;
    case kind::take_for_dead:
      --left_.false_deaths;
      excuses_.taken_for_dead = true;
      replay();
      break;
  }
  answer_looks();
  forget_done(0);
  forget_done(1);
  check();
}

/// What must hold at every instant: who may speak (I-2).
void world::check() {
  if (owner_.ended || owner_.client_gone)
    return;
  for (int at = 0; at < 2; ++at) {
    const auto& engine = nodes_[static_cast<std::size_t>(at)].engine;
    if (!engine.here || engine.frozen)
      continue;
    if (engine.epoch > owner_.epoch)
      fail("an engine runs under an epoch that nobody gave it");
    if (engine.epoch == owner_.epoch && owner_.owner != owner_of(at))
      fail("an engine runs what another one owns");
    if (engine.epoch >= owner_.epoch)
      continue;
    bool raised = false;
    for (auto epoch = engine.epoch + 1; epoch <= owner_.epoch; ++epoch)
      raised = raised || owner_.raised[epoch];
    if (!raised)
      fail("the old owner still runs after a claim");
  }
}

// --- the end ------------------------------------------------------------------------------------

void world::settle() {
  using kind = action::kind;
  bool ticks_first = (fingerprint() & 1) != 0;
  auto rank = [&](const action& x) {
    switch (x.what) {
      case kind::deliver: return 0;
      case kind::step: // a prefill has no time limit, so limits alone would never end
        return ticks_first && !nodes_[static_cast<std::size_t>(x.node)].engine.prefilling ? 3 : 2;
      case kind::tick:
      case kind::owner_tick: return ticks_first ? 2 : 3;
      default: return 1;
    }
  };
  auto wait = [&](const action& x) {
    if (x.what != kind::tick)
      return nanoseconds{0};
    const auto& one = nodes_[static_cast<std::size_t>(x.node)].sides[x.index];
    return *(one.source ? one.source->deadline() : one.destination->deadline()) - one.clock;
  };
  int asked = 0;
  for (int turn = 0; turn < 2000 && broken_.empty(); ++turn) {
    auto all = choices(true);
    if (all.empty()) {
      if (owner_.ended || owner_.client_gone || ++asked > 20)
        return judge_rest();
      if (telling_)
        story_.push_back("HOLDS?");
      if (alive(*owner_.owner))
        send(*owner_.owner, ask_holds{owner_.epoch});
      continue;
    }
    take(*std::min_element(all.begin(), all.end(), [&](const auto& x, const auto& y) {
      return std::pair{rank(x), wait(x)} < std::pair{rank(y), wait(y)};
    }));
  }
  fail("it never comes to rest");
}

void world::judge_rest() {
  if (!owner_.ended && !owner_.client_gone)
    fail("the stream is stuck");
  for (const auto& here : nodes_) {
    if (here.engine.here)
      fail("a request is left behind in an engine");
    if (!here.sides.empty())
      fail("a machine never ended");
  }
}

std::uint64_t world::fingerprint() const {
  handover_fingerprint hash;
  std::uint64_t letters = 0;
  for (const auto& one : post_)
    letters += one.hash * 0x9E3779B97F4A7C15ull;
  hash.add(letters);
  for (const auto& here : nodes_) {
    const auto& engine = here.engine;
    hash.add(here.incarnation);
    hash.add_flags({engine.here, engine.frozen, engine.prefilling, engine.stands});
    for (auto number :
         {engine.epoch, engine.made, engine.told, engine.written, engine.preemptions,
          here.finished_epoch})
      hash.add(number);
    for (std::uint64_t id = 1; id <= next_id_; ++id) {
      auto copy = here.ended; // looking forgets
      const auto* known = copy.find({0, id}, time_point{});
      hash.add_flags({known != nullptr, known != nullptr && known->ran_here});
    }
    for (const auto& one : here.sides) {
      hash.add(one.id);
      hash.add_flags(
        {one.pinned, one.window_open, one.window_closing, one.freeze_wanted, one.room, one.pulling,
         one.pull_cancelled, one.pull_cut});
      hash.add(one.look_beyond.value_or(~0u));
      hash.add(one.pull_to);
      hash.add(one.computing_to);
      if (one.source)
        hash.add(*one.source, one.clock);
      else
        hash.add(*one.destination, one.clock);
    }
  }
  hash.add(owner_.epoch);
  hash.add(owner_.delivered);
  hash.add(owner_.last_epoch);
  hash.add_flags({owner_.ended, owner_.client_gone});
  if (owner_.owner)
    hash.add(*owner_.owner);
  for (const auto& who : owner_.lost)
    hash.add(who);
  for (bool raised : owner_.raised)
    hash.add_flags({raised});
  if (owner_.claims)
    hash.add(*owner_.claims, owner_.clock);
  hash.add_flags(
    {excuses_.gave_up_claiming, excuses_.gave_up_deciding, excuses_.taken_for_dead,
     excuses_.last_batch_lost, excuses_.gap_lasted});
  for (int left :
       {left_.drops, left_.duplicates, left_.ticks, left_.crashes, left_.client_leaves,
        left_.refusals, left_.pull_failures, left_.preemptions, left_.holds_asked,
        left_.false_deaths, left_.handovers})
    hash.add(static_cast<std::uint64_t>(left));
  return hash.value;
}

std::string world::name(const action& choice, const world& in) {
  static const char* const kinds[]
    = {"deliver",   "deliver, refused", "drop",         "duplicate",     "step",    "freeze",
       "pulled",    "pull failed",      "computed",     "window closed", "begin",   "tick",
       "long tick", "A ticks",          "A ticks long", "HOLDS?",        "preempt", "client leaves",
       "crash",     "taken for dead"};
  static const char* const letters[]
    = {"OFFER",     "ACCEPT",       "REJECT",  "COPY-PROGRESS", "PREPARED", "FREEZE-COMMIT",
       "COMMITTED", "FAILED",       "CLAIM",   "RECLAIM",       "answer",   "CANCEL",
       "CANCELLED", "RELEASE",      "ABANDON", "ABANDONED",     "tokens",   "abort",
       "HOLDS",     "HOLDS answer", "place",   "lost"};
  std::string text = kinds[static_cast<std::size_t>(choice.what)];
  if (choice.what <= action::kind::duplicate) {
    const auto& one = in.post_[choice.index];
    text += std::string{" "} + letters[one.what->index()];
    if (const auto* answer = std::get_if<handover::claim_answer>(one.what.get()))
      text += " " + std::string{to_string(answer->verdict)};
    if (const auto* told = std::get_if<tokens_told>(one.what.get()))
      text
        += " e" + std::to_string(told->batch.epoch) + " from " + std::to_string(told->batch.start);
    text += " to " + (one.to == owner_node ? std::string{"A"} : std::to_string(one.to));
  } else {
    text += " at " + std::to_string(choice.node);
  }
  return text;
}

} // namespace llumnix::model
