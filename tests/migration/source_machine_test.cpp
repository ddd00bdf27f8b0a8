#include "tests/migration/source_rig.hpp"

#include <doctest/doctest.h>

#include <functional>

namespace llumnix::testing {

namespace {

using rig = source_rig;
using state = source_machine::state;

constexpr handover_id another{3, 4};

struct source_row {
  const char* line; ///< of spec/migration.md 12.3
  state from;
  std::function<std::string(source_rig&)> event;
  const char* effects;
  state to;
};

void run(std::initializer_list<source_row> rows) {
  for (const auto& row : rows) {
    CAPTURE(row.line);
    source_rig rig;
    rig.reach(row.from);
    REQUIRE(rig.machine->at() == row.from);
    CHECK(row.event(rig) == row.effects);
    CHECK(rig.machine->at() == row.to);
  }
}

} // namespace

TEST_CASE_FIXTURE(source_rig, "a request is offered, copied, frozen and moved") {
  machine.emplace(settings, plan);
  auto first = machine->begin(request_at(20), now);
  REQUIRE(first.size() == 1);
  const auto& offer = std::get<handover::offer>(first[0]);
  CHECK(offer.of == head());
  CHECK(offer.request.output.size() == 20);
  CHECK(offer.lease == 5s);
  CHECK(on(accept()) == "look");
  auto round = machine->on(source_side::looked{request_at(21)}, now);
  REQUIRE(round.size() == 1);
  const auto& progress = std::get<handover::copy_progress>(round[0]);
  CHECK(progress.round == 1);
  CHECK(progress.watermark == 120);
  CHECK(progress.blocks.size() == 8);
  CHECK(progress.first_output == 20);
  CHECK(progress.ids == std::vector<token_id>{20});
  CHECK(on(prepared(1, 120)) == "look");
  CHECK(on(source_side::looked{request_at(30)}) == "freeze"); // 9 positions more: below a block
  auto frozen = machine->on(source_side::frozen{request_at(31), 30}, now);
  REQUIRE(frozen.size() == 1);
  const auto& commit = std::get<handover::freeze_commit>(frozen[0]);
  CHECK(commit.watermark == 120);
  CHECK(commit.sent == 30);
  CHECK(commit.output.size() == 31);
  CHECK(commit.credit == 200);
  CHECK(commit.digest == digest_of(request_at(31).request.prompt, request_at(31).request.output));
  CHECK(on(handover::committed{head()}, 3ms) == "drop");
  CHECK(on(handover::release{head()}) == "close");
  auto last = machine->on(source_side::window_closed{}, now);
  CHECK(names_of(last) == "unpin, ended moved");
  const auto& end = std::get<source_side::ended>(last[1]);
  CHECK(end.paused == 3ms);
  CHECK(end.rounds == 1);
  CHECK(end.tail_tokens == 10);
  CHECK(end.bytes == 1000);
  CHECK_FALSE(machine->deadline());
}

TEST_CASE("every line of the source's state machine") {
  using failure = handover::commit_failure;
  using verdict = handover::claim_verdict;
  run({
    {"OFFERED, ACCEPT", state::offered, [](rig& x) { return x.on(x.accept()); }, "look",
     state::copying},
    {"OFFERED, REJECT", state::offered,
     [](rig& x) {
       return x.on(handover::reject{x.head(), {errc::queue_full, ""}});
     },
     "close", state::cancelling},
    {"OFFERED, timeout", state::offered, [](rig& x) { return x.on(source_side::tick{}, 1s); },
     "cancel", state::cancelling},
    {"OFFERED, request ended", state::offered,
     [](rig& x) { return x.on(source_side::request_ended{}); }, "cancel", state::cancelling},
    {"OFFERED, abort", state::offered, [](rig& x) { return x.on(source_side::aborted{3}); },
     "cancel", state::cancelling},
    {"COPYING, delta above threshold", state::copying,
     [](rig& x) {
       x.on(x.prepared(1, 119));
       return x.on(source_side::looked{request_at(37)}); // 17 positions
     },
     "progress2@136", state::copying},
    {"COPYING, delta at threshold", state::copying,
     [](rig& x) {
       x.on(x.prepared(1, 119));
       return x.on(source_side::looked{request_at(36)});
     },
     "freeze", state::freezing},
    {"COPYING, PREPARED of a part", state::copying, [](rig& x) { return x.on(x.prepared(1, 64)); },
     "", state::copying},
    {"COPYING, error or lease lost at D", state::copying, [](rig& x) { return x.on(x.cancel()); },
     "close", state::cancelling},
    {"COPYING, request ended", state::copying,
     [](rig& x) { return x.on(source_side::request_ended{}); }, "cancel", state::cancelling},
    {"COPYING, found ended", state::copying,
     [](rig& x) {
       x.on(x.prepared(1, 119));
       return x.on(source_side::looked{{errc::not_found, ""}});
     },
     "cancel", state::cancelling},
    {"COPYING, preempted", state::copying,
     [](rig& x) {
       x.on(x.prepared(1, 119));
       auto request = request_at(21);
       request.preemptions = 1;
       return x.on(source_side::looked{request});
     },
     "cancel", state::cancelling},
    {"COPYING, outgrew the room", state::copying,
     [](rig& x) {
       x.on(x.prepared(1, 119));
       return x.on(source_side::looked{request_at(301)});
     },
     "cancel", state::cancelling},
    {"COPYING, abort", state::copying, [](rig& x) { return x.on(source_side::aborted{3}); },
     "cancel", state::cancelling},
    {"COPYING, abort of an earlier epoch", state::copying,
     [](rig& x) { return x.on(source_side::aborted{2}); }, "", state::copying},
    {"COPYING, rounds exhausted", state::copying,
     [](rig& x) {
       x.on(x.prepared(1, 119));
       x.on(source_side::looked{request_at(60)});
       x.on(x.prepared(2, 159));
       return x.on(source_side::looked{request_at(100)});
     },
     "cancel", state::cancelling},
    {"COPYING, too long", state::copying, [](rig& x) { return x.on(source_side::tick{}, 2s); },
     "cancel", state::cancelling},
    {"COPYING, lease renewed", state::copying, [](rig& x) { return x.on(source_side::tick{}, 1s); },
     "progress0@0", state::copying},
    {"COPYING, D gone", state::copying,
     [](rig& x) { return x.on(source_side::destination_lost{}); }, "close", state::cancelling},
    {"COPYING, A gone", state::copying, [](rig& x) { return x.on(source_side::owner_lost{}); },
     "cancel", state::cancelling},
    {"FREEZING, step boundary", state::freezing,
     [](rig& x) {
       return x.on(source_side::frozen{request_at(23), 23});
     },
     "commit@119", state::deciding},
    {"FREEZING, request ended in that step", state::freezing,
     [](rig& x) {
       return x.on(source_side::frozen{{errc::not_found, ""}, 0});
     },
     "cancel", state::cancelling},
    {"FREEZING, preempted in that step", state::freezing,
     [](rig& x) {
       auto request = request_with(23, 0);
       request.preemptions = 1;
       return x.on(source_side::frozen{request, 23});
     },
     "thaw e3, cancel", state::cancelling},
    {"FREEZING, CANCEL from D, then the boundary", state::freezing,
     [](rig& x) {
       return joined({x.on(x.cancel()), x.on(source_side::frozen{request_at(23), 23})});
     },
     "close | thaw e3", state::cancelling},
    {"FREEZING, D gone", state::freezing,
     [](rig& x) { return x.on(source_side::destination_lost{}); }, "close", state::cancelling},
    {"FREEZING, abort, then the boundary", state::freezing,
     [](rig& x) {
       return joined(
         {x.on(source_side::aborted{3}), x.on(source_side::frozen{{errc::not_found, ""}, 0})});
     },
     "cancel | ", state::cancelling},
    {"FREEZING, the lease is renewed", state::freezing,
     [](rig& x) { return x.on(source_side::tick{}, 1s); }, "progress0@0", state::freezing},
    {"DECIDING, COMMITTED", state::deciding,
     [](rig& x) { return x.on(handover::committed{x.head()}); }, "drop", state::releasing},
    {"DECIDING, COMMITTED lost, RELEASE", state::deciding,
     [](rig& x) { return x.on(handover::release{x.head()}); }, "drop, close", state::releasing},
    {"DECIDING, FAILED(refused), no RECLAIM sent yet", state::deciding,
     [](rig& x) { return x.on(x.failed(failure::refused)); }, "thaw e3, close", state::cancelling},
    {"DECIDING, FAILED(refused) after a RECLAIM", state::deciding,
     [](rig& x) {
       x.on(source_side::tick{}, 500ms);
       return x.on(x.failed(failure::refused));
     },
     "", state::deciding},
    {"DECIDING, CANCEL from D", state::deciding, [](rig& x) { return x.on(x.cancel()); }, "",
     state::deciding},
    {"DECIDING, FAILED(unknown)", state::deciding,
     [](rig& x) { return x.on(x.failed(failure::unknown)); }, "reclaim", state::deciding},
    {"DECIDING, FAILED(aborted)", state::deciding,
     [](rig& x) { return x.on(x.failed(failure::aborted)); }, "drop, cancel", state::cancelling},
    {"DECIDING, abort from A", state::deciding,
     [](rig& x) { return x.on(source_side::aborted{4}); }, "drop, cancel", state::cancelling},
    {"DECIDING, abort of an earlier epoch", state::deciding,
     [](rig& x) { return x.on(source_side::aborted{2}); }, "", state::deciding},
    {"DECIDING, RECLAIM GRANTED", state::deciding,
     [](rig& x) {
       x.on(source_side::tick{}, 500ms);
       return x.on(x.answer(verdict::granted));
     },
     "thaw e4, cancel, close", state::cancelling},
    {"DECIDING, timeout", state::deciding, [](rig& x) { return x.on(source_side::tick{}, 500ms); },
     "reclaim", state::deciding},
    {"DECIDING, timeout again", state::deciding,
     [](rig& x) {
       return joined(
         {x.on(source_side::tick{}, 500ms), x.on(source_side::tick{}, 499ms),
          x.on(source_side::tick{}, 1ms)});
     },
     "reclaim |  | reclaim", state::deciding},
    {"DECIDING, RECLAIM SUPERSEDED", state::deciding,
     [](rig& x) {
       x.on(source_side::tick{}, 500ms);
       return x.on(x.answer(verdict::superseded));
     },
     "drop, cancel, close", state::cancelling},
    {"DECIDING, RECLAIM SUPERSEDED, another one has it", state::deciding,
     [](rig& x) {
       x.on(source_side::tick{}, 500ms);
       return x.on(x.answer(verdict::superseded, {{"d", 2}, "engine-d"}));
     },
     "drop, cancel, close", state::cancelling},
    {"DECIDING, RECLAIM SUPERSEDED, D has it", state::deciding,
     [](rig& x) {
       x.on(source_side::tick{}, 500ms);
       return joined(
         {x.on(x.answer(verdict::superseded, x.plan.destination)),
          x.on(handover::committed{x.head()}), x.on(handover::release{x.head()}),
          x.on(source_side::window_closed{})});
     },
     "drop, close |  |  | unpin, ended moved", state::done},
    {"DECIDING, D has it, but nothing was asked", state::deciding,
     [](rig& x) { return x.on(x.answer(verdict::superseded, x.plan.destination)); }, "",
     state::deciding},
    {"DECIDING, RECLAIM unreachable", state::deciding,
     [](rig& x) {
       x.on(source_side::tick{}, 500ms);
       return x.on(source_side::tick{}, 2s);
     },
     "drop, cancel", state::cancelling},
    {"DECIDING, D gone", state::deciding,
     [](rig& x) { return x.on(source_side::destination_lost{}); }, "reclaim", state::deciding},
    {"DECIDING, A gone", state::deciding, [](rig& x) { return x.on(source_side::owner_lost{}); },
     "drop, cancel", state::cancelling},
    {"DECIDING, an answer to nothing asked", state::deciding,
     [](rig& x) { return x.on(x.answer(verdict::granted)); }, "", state::deciding},
    {"DONE, RELEASE", state::releasing, [](rig& x) { return x.on(handover::release{x.head()}); },
     "close", state::releasing},
    {"DONE, 1 s", state::releasing,
     [](rig& x) {
       return joined({x.on(source_side::tick{}, 999ms), x.on(source_side::tick{}, 1ms)});
     },
     " | close", state::releasing},
    {"DONE, the window has closed", state::releasing,
     [](rig& x) {
       x.on(handover::release{x.head()});
       return x.on(source_side::window_closed{});
     },
     "unpin, ended moved", state::done},
    {"CANCEL is repeated", state::cancelling,
     [](rig& x) {
       return joined({x.on(source_side::tick{}, 199ms), x.on(source_side::tick{}, 1ms)});
     },
     " | cancel", state::cancelling},
    {"CANCELLED", state::cancelling,
     [](rig& x) {
       return joined({x.on(handover::cancelled{x.head()}), x.on(source_side::window_closed{})});
     },
     "close | unpin, ended gone", state::done},
    {"no CANCELLED: the window alone guards the blocks", state::cancelling,
     [](rig& x) { return x.on(source_side::tick{}, 2s); }, "close", state::cancelling},
    {"no CANCELLED, D gone", state::cancelling,
     [](rig& x) { return x.on(source_side::destination_lost{}); }, "close", state::cancelling},
  });
}

TEST_CASE_FIXTURE(source_rig, "the tail is copied where that is faster, for half a second") {
  settings.prefill_per_second = 1000; // 3 positions: 3 ms, against 0.2 ms and a bit
  struct row {
    const char* line;
    std::function<std::string()> event;
    const char* effects;
    state to;
  };
  for (const auto& [line, event, effects, to] : {
         row{"PREPARED", [&] { return on(prepared(2, 122)); }, "commit@122", state::deciding},
         row{
           "too long", [&] { return on(source_side::tick{}, 500ms); }, "thaw e3, cancel",
           state::cancelling},
         row{"CANCEL from D", [&] { return on(cancel()); }, "thaw e3, close", state::cancelling},
         row{
           "abort", [&] { return on(source_side::aborted{3}); }, "drop, cancel", state::cancelling},
         row{
           "D gone", [&] { return on(source_side::destination_lost{}); }, "thaw e3, close",
           state::cancelling},
       }) {
    CAPTURE(line);
    reach(state::freezing);
    CHECK(on(source_side::frozen{request_at(23), 23}) == "progress2@122");
    CHECK(machine->deadline() == now + 500ms);
    CHECK(event() == effects);
    CHECK(machine->at() == to);
  }
}

TEST_CASE_FIXTURE(
  source_rig, "CANCEL from the destination is answered once the window has closed") {
  reach(state::copying);
  CHECK(on(cancel()) == "close");
  CHECK(on(source_side::window_closed{}) == "cancelled, unpin, ended kept");
}

TEST_CASE_FIXTURE(source_rig, "a machine that was cancelled while it froze waits for the freeze") {
  reach(state::freezing);
  on(cancel());
  CHECK(on(source_side::window_closed{}) == "");
  CHECK(machine->at() == state::cancelling);
  CHECK(on(source_side::frozen{request_at(23), 23}) == "thaw e3, cancelled, unpin, ended kept");
}

TEST_CASE_FIXTURE(source_rig, "a waiting request moves without KV, and without a copy") {
  machine.emplace(settings, plan);
  machine->begin(request_with(0, 0), now);
  CHECK(on(accept()) == "look");
  CHECK(on(source_side::looked{request_with(0, 0)}) == "freeze");
  CHECK(on(source_side::frozen{request_with(0, 0), 0}) == "commit@0");
}

TEST_CASE_FIXTURE(source_rig, "what the destination holds already is not copied") {
  begin();
  CHECK(on(accept(112)) == "look");
  CHECK(on(source_side::looked{request_at(20)}) == "freeze"); // 7 positions are left
}

TEST_CASE_FIXTURE(source_rig, "without a transport the ids alone travel") {
  plan.path = move_path::recompute;
  begin();
  on(accept());
  auto round = machine->on(source_side::looked{request_at(20)}, now);
  CHECK(std::get<handover::copy_progress>(round[0]).blocks.empty());
  on(prepared(1, 119));
  on(source_side::looked{request_at(20)});
  CHECK(on(source_side::frozen{request_at(20), 20}) == "commit@119");
  on(handover::committed{head()});
  CHECK(on(handover::release{head()}) == "unpin, ended moved");
}

TEST_CASE_FIXTURE(source_rig, "late, repeated and foreign messages change nothing") {
  using verdict = handover::claim_verdict;
  handover::head other = head();
  other.id = another;
  const std::pair<state, source_event> rows[] = {
    {state::offered, prepared(1, 119)},
    {state::offered, handover::committed{head()}},
    {state::offered, handover::release{head()}},
    {state::offered, handover::cancelled{head()}},
    {state::offered, failed(handover::commit_failure::aborted)},
    {state::copying, accept()},
    {state::copying, handover::reject{head(), {errc::stale, ""}}},
    {state::copying, handover::committed{head()}},
    {state::copying, handover::release{head()}},
    {state::copying, answer(verdict::granted)},
    {state::copying, handover::cancel{other, {errc::timeout, ""}}},
    {state::freezing, accept()},
    {state::freezing, prepared(1, 119)},
    {state::freezing, handover::committed{head()}},
    {state::freezing, handover::release{head()}},
    {state::freezing, source_side::request_ended{}}, // `frozen` will tell
    {state::deciding, accept()},
    {state::deciding, prepared(1, 119)},
    {state::deciding, handover::reject{head(), {errc::stale, ""}}},
    {state::deciding, handover::committed{other}},
    {state::deciding, source_side::looked{request_at(20)}},
    {state::cancelling, accept()},
    {state::cancelling, handover::committed{head()}},
    {state::cancelling, handover::release{head()}},
    {state::cancelling, failed(handover::commit_failure::unknown)},
    {state::cancelling, source_side::aborted{9}},
    {state::cancelling, source_side::window_closed{}},
    {state::releasing, handover::committed{head()}},
    {state::releasing, failed(handover::commit_failure::refused)},
    {state::releasing, cancel()},
    {state::releasing, answer(verdict::granted)},
    {state::releasing, source_side::aborted{9}},
  };
  for (const auto& [from, event] : rows) {
    CAPTURE(int(from));
    CAPTURE(event.index());
    reach(from);
    CHECK(on(event) == "");
    CHECK(machine->at() == from);
  }
  reach(state::releasing);
  on(handover::release{head()});
  on(source_side::window_closed{});
  for (const auto& [from, event] : rows)
    CHECK(on(event) == "");
  CHECK(machine->at() == state::done);
}

TEST_CASE_FIXTURE(source_rig, "HOLDS is answered for what is frozen here") {
  reach(state::deciding);
  CHECK(machine->holds(3));
  CHECK_FALSE(machine->holds(4));
  CHECK_FALSE(machine->holds(2));
  on(source_side::tick{}, 500ms); // RECLAIM: a claim for 4 that is unanswered
  CHECK(machine->holds(4));
  on(answer(handover::claim_verdict::superseded));
  CHECK_FALSE(machine->holds(3));
  CHECK_FALSE(machine->holds(4));
}

TEST_CASE_FIXTURE(source_rig, "what the owner of a stream says of a lost commit is the end") {
  struct row {
    stream_owner owner;
    std::string_view word;
    errc why;
  };
  for (const auto& [owner, word, why] :
       {row{plan.destination, "moved", errc::ok}, row{{}, "failed", errc::stale},
        row{plan.source, "failed", errc::stale},
        row{{{"d", 2}, "engine-d"}, "failed", errc::stale}, // its next life
        row{{{"e", 1}, "engine-e"}, "failed", errc::stale}}) {
    CAPTURE(owner.instance);
    reach(state::deciding);
    on(source_side::tick{}, 500ms);
    on(answer(handover::claim_verdict::superseded, owner));
    auto last = machine->on(source_side::window_closed{}, now);
    REQUIRE(!last.empty());
    const auto* end = std::get_if<source_side::ended>(&last.back());
    REQUIRE(end != nullptr);
    CHECK(outcome_word(*end) == word);
    CHECK(end->why.code == why);
  }
}

TEST_CASE("an end has one word for people") {
  struct row {
    source_outcome outcome;
    std::uint32_t rounds;
    std::string_view word;
  };
  using enum source_outcome;
  for (auto [outcome, rounds, word] :
       {row{moved, 1, "moved"}, row{moved, 0, "moved"}, row{gone, 2, "finished"},
        row{kept, 0, "refused"}, row{kept, 1, "failed"}, row{let_go, 1, "failed"}}) {
    source_side::ended end;
    end.outcome = outcome;
    end.rounds = rounds;
    CHECK(outcome_word(end) == word);
  }
}

TEST_CASE("the tail is copied or computed, whichever is faster") {
  struct row {
    std::uint32_t tokens, bytes_per_token;
    double bytes_per_second, prefill_per_second;
    tail_choice choice;
  };
  for (const auto& x : {
         row{0, 1, 1e9, 1, tail_choice::recompute},           // nothing to wait for
         row{8, 147456, 1.2e9, 10e3, tail_choice::recompute}, // 0.98 + 0.2 ms against 0.8 ms
         row{8, 147456, 25e9, 10e3, tail_choice::copy},       // 0.05 + 0.2 ms against 0.8 ms
         row{1, 147456, 25e9, 10e3, tail_choice::recompute},  // 0.21 ms against 0.1 ms
         row{16, 1000, 1e9, 0, tail_choice::copy},            // it cannot compute
         row{16, 1000, 0, 1, tail_choice::recompute},         // it cannot copy
       }) {
    CAPTURE(x.tokens);
    source_settings settings;
    settings.round_trip = 200us;
    settings.bytes_per_second = x.bytes_per_second;
    settings.prefill_per_second = x.prefill_per_second;
    CHECK(choose_tail(settings, x.tokens, x.bytes_per_token) == x.choice);
  }
}

TEST_CASE_FIXTURE(source_rig, "copying may take four times as long as it should") {
  plan.geometry.bytes_per_token = 1'000'000;
  settings.bytes_per_second = 100e6; // 119 positions: 1.19 s
  reach(state::copying);
  on(source_side::tick{}, 4759ms);
  CHECK(machine->at() == state::copying);
  on(source_side::tick{}, 1ms);
  CHECK(machine->at() == state::cancelling);
}

} // namespace llumnix::testing
