#include "tests/migration/handover_model.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <unordered_set>

namespace llumnix {

namespace {

using namespace model;

/// `LLUMNIX_MODEL_EFFORT` times the states and walks of an ordinary run.
std::size_t effort() {
  const char* given = std::getenv("LLUMNIX_MODEL_EFFORT");
  return given == nullptr ? 1 : static_cast<std::size_t>(std::max(1, std::atoi(given)));
}

std::uint64_t mix(std::uint64_t& state) {
  auto x = state += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

struct finding {
  std::string broken; ///< empty: nothing
  std::vector<std::string> story;
  std::size_t states = 0;
  bool complete = false; ///< there are no further states
  int moved = 0;
  int replays = 0;
};

std::string told(const finding& found) {
  std::string text = found.broken;
  for (const auto& line : found.story)
    text += "\n  " + line;
  return text;
}

/// How a world came to be: shared tails of choices.
struct step_before {
  std::shared_ptr<const step_before> before;
  action choice;
};

std::vector<std::string> retell(const scene& what, const std::shared_ptr<const step_before>& last) {
  std::vector<action> choices;
  for (const auto* at = last.get(); at != nullptr; at = at->before.get())
    choices.push_back(at->choice);
  world again{what};
  again.keep_story();
  for (auto choice = choices.rbegin(); choice != choices.rend(); ++choice)
    again.take(*choice);
  if (again.broken().empty()) {
    again.settle();
  }
  return again.story();
}

/// All worlds that can come of a scene, near ones first, `states_max` at most; every
/// `settle_every`th is let come to rest.
finding search(const scene& what, std::size_t states_max, std::size_t settle_every = 4) {
  struct open_world {
    world at;
    std::shared_ptr<const step_before> how;
  };
  finding found;
  std::unordered_set<std::uint64_t> seen;
  std::deque<open_world> open;
  open.push_back({world{what}, nullptr});
  seen.insert(open.front().at.fingerprint());
  while (!open.empty()) {
    auto [at, how] = std::move(open.front());
    open.pop_front();
    auto all = at.choices();
    for (const auto& choice : all) {
      auto next = at;
      next.take(choice);
      auto print = next.fingerprint();
      bool fresh = seen.insert(print).second;
      auto way = std::make_shared<const step_before>(step_before{how, choice});
      if (next.broken().empty() && fresh && (print >> 8) % settle_every == 0) {
        auto rest = next;
        rest.settle();
        found.moved += rest.moved();
        found.replays += rest.replays();
        if (!rest.broken().empty())
          next = rest;
      }
      if (!next.broken().empty()) {
        found.broken = next.broken();
        found.story = retell(what, way);
        found.states = seen.size();
        return found;
      }
      if (fresh && seen.size() < states_max)
        open.push_back({std::move(next), std::move(way)});
    }
  }
  found.states = seen.size();
  found.complete = found.states < states_max;
  return found;
}

/// One walk: chance decides, all faults that the scene allows.
bool passes_time(const action& choice) {
  using kind = action::kind;
  return choice.what == kind::tick || choice.what == kind::owner_tick
         || choice.what == kind::long_tick || choice.what == kind::owner_long_tick
         || choice.what == kind::ask_holds || choice.what == kind::step;
}

finding walk(const scene& what, std::uint64_t seed, bool telling = false) {
  world at{what};
  if (telling)
    at.keep_story();
  std::uint64_t chance = seed * 0x9E3779B97F4A7C15ull + 1;
  auto length = 20 + mix(chance) % 60;
  for (std::uint64_t turn = 0; turn < length && at.broken().empty(); ++turn) {
    auto all = at.choices();
    if (all.empty())
      break;
    // Most things go well, or none would get far; time passes slowly.
    auto rare = mix(chance);
    std::vector<action> from;
    for (const auto& one : all)
      if (rare % 8 == 0 || (!one.fault() && (rare % 8 == 1 || !passes_time(one))))
        from.push_back(one);
    if (from.empty())
      from = all;
    at.take(from[mix(chance) % from.size()]);
  }
  if (at.broken().empty())
    at.settle();
  return {
    .broken = at.broken(),
    .story = at.story(),
    .states = 1,
    .moved = at.moved(),
    .replays = at.replays()};
}

finding walks(const scene& what, std::size_t count) {
  finding all;
  for (std::size_t seed = 1; seed <= count; ++seed) {
    auto one = walk(what, seed);
    if (!one.broken.empty()) {
      auto bad = walk(what, seed, true);
      bad.states = seed;
      return bad;
    }
    all.states += 1;
    all.moved += one.moved;
    all.replays += one.replays;
  }
  return all;
}

} // namespace

namespace {

scene scene_of(budgets may) {
  scene what;
  what.may = may;
  return what;
}

/// A little of everything, and two hand-overs: there and back, or again after a failed one.
struct model_row {
  broken_rule rule;
  budgets may;
  const char* noticed;
};

constexpr budgets everything{
  .drops = 2,
  .duplicates = 2,
  .ticks = 4,
  .crashes = 1,
  .client_leaves = 1,
  .refusals = 1,
  .pull_failures = 1,
  .preemptions = 1,
  .holds_asked = 2,
  .false_deaths = 1,
  .handovers = 2};

} // namespace

TEST_CASE("whatever can come of one fault is right") {
  struct row {
    const char* name;
    budgets may;
    bool complete; ///< all of its worlds are visited
  };
  const row rows[] = {
    {"nothing goes wrong", {}, true},
    {"a message is lost", {.drops = 1}, true},
    {"a message comes twice", {.duplicates = 1}, false},
    {"a limit passes", {.ticks = 1}, false},
    {"a node crashes", {.crashes = 1}, false},
    {"the client leaves", {.client_leaves = 1}, false},
    {"the destination refuses", {.refusals = 1}, false},
    {"a pull fails", {.pull_failures = 1}, true},
    {"it is preempted", {.preemptions = 1}, false},
    {"the owner is asked whether it holds it", {.holds_asked = 1}, false},
    {"the owner is taken for dead", {.false_deaths = 1}, false},
    {"a message is lost and a limit passes", {.drops = 1, .ticks = 1}, false},
    {"two limits pass", {.ticks = 2}, false},
    {"there and back", {.handovers = 2}, false},
  };
  for (const auto& row : rows) {
    auto found = search(scene_of(row.may), 9000 * effort(), 8);
    CAPTURE(std::string{row.name});
    CAPTURE(found.states);
    CHECK_MESSAGE(found.broken.empty(), told(found));
    CHECK((found.complete || !row.complete));
    CHECK(found.moved > 0);
  }
}

TEST_CASE("whatever can come of one fault is right where prefill and decode are apart") {
  struct row {
    const char* name;
    budgets may;
  };
  const row rows[] = {
    {"nothing goes wrong", {}},
    {"a message is lost", {.drops = 1}},
    {"a limit passes", {.ticks = 1}},
    {"a node crashes", {.crashes = 1}},
    {"the client leaves", {.client_leaves = 1}},
    {"the destination refuses", {.refusals = 1}},
    {"a pull fails", {.pull_failures = 1}},
    {"it is preempted", {.preemptions = 1}},
    {"two limits pass", {.ticks = 2}},
  };
  for (const auto& row : rows) {
    auto what = scene_of(row.may);
    what.to_decode = true;
    what.waiting = true;
    auto found = search(what, 9000 * effort(), 8);
    CAPTURE(std::string{row.name});
    CAPTURE(found.states);
    CHECK_MESSAGE(found.broken.empty(), told(found));
    CHECK(found.moved > 0);
  }
  auto what = scene_of(everything);
  what.to_decode = true;
  what.waiting = true;
  for (auto path : {move_path::kv, move_path::recompute}) {
    what.path = path;
    auto found = walks(what, 1000 * effort());
    CHECK_MESSAGE(found.broken.empty(), told(found));
    CHECK(found.moved > 0);
  }
}

TEST_CASE("whatever chance makes of many faults is right") {
  int moved = 0, replays = 0;
  for (auto path : {move_path::kv, move_path::recompute})
    for (bool copy_tail : {false, true})
      for (bool waiting : {false, true}) {
        auto what = scene_of(everything);
        what.path = path;
        what.copy_tail = copy_tail;
        what.waiting = waiting;
        what.tokens = copy_tail ? 8 : 4;
        auto found = walks(what, 500 * effort());
        CHECK_MESSAGE(found.broken.empty(), told(found));
        moved += found.moved;
        replays += found.replays;
      }
  CHECK(moved > 0);
  CHECK(replays > 0);
}

TEST_CASE("a broken rule is noticed") {
  for (const auto& row : {
         model_row{
           broken_rule::destination_frees_before_quiesce,
           {.client_leaves = 1},
           "a room is given up while a pull into it is under way"},
         {broken_rule::source_unpins_with_open_window,
          {.ticks = 2},
          "blocks are unpinned while they are read"},
         {broken_rule::owner_grants_the_dead, {.crashes = 1}, "the stream is stuck"},
         {broken_rule::owner_grants_twice, {.ticks = 1}, "an engine runs what another one owns"},
         {broken_rule::owner_takes_old_tokens,
          {.false_deaths = 1},
          "an older owner speaks after a newer one"},
         {broken_rule::source_resumes_by_itself,
          {.ticks = 1},
          "an engine runs under an epoch that nobody gave it"},
         {broken_rule::source_never_thaws, {.ticks = 2}, "kept, but frozen for ever"},
         {broken_rule::destination_emits_unclaimed,
          {},
          "an engine runs under an epoch that nobody gave it"},
         {broken_rule::destination_keeps_room,
          {.client_leaves = 1},
          "a machine is done and has left something behind"},
       }) {
    CAPTURE(std::string{row.noticed});
    auto what = scene_of(row.may);
    what.broken = row.rule;
    auto found = search(what, 30000, 2);
    CHECK(found.broken == row.noticed);
    CHECK_FALSE(found.story.empty());
  }
}

} // namespace llumnix
