#include "tests/migration/source_rig.hpp"

#include <doctest/doctest.h>

#include <functional>

/// Hand-overs of what S only prefills, and D decodes.
namespace llumnix::testing {

namespace {

/// Offers a request of which nothing is computed yet.
struct prefill_rig : source_rig {
  prefill_rig() {
    plan.to_decode = true;
    machine.emplace(settings, plan);
    began = names_of(machine->begin(request_with(0, 0), now));
  }
  /// `written` of the prompt is computed, the rest is not.
  std::string looked(std::uint32_t written) {
    auto request = request_with(0, written);
    request.prefilling = true;
    return on(source_side::looked{request});
  }
  /// All of it is, and there is a token.
  std::string frozen() { return on(source_side::frozen{request_with(1, 100), 1}); }
  std::string began;
};

} // namespace

TEST_CASE_FIXTURE(
  prefill_rig, "a prompt is copied while it is computed, and the request freezes itself") {
  CHECK(began == "offer, freeze");
  CHECK(on(accept()) == "look");
  CHECK(looked(32) == "progress1@32");
  CHECK(on(prepared(1, 32)) == "look");
  CHECK(looked(64) == "progress2@64"); // as many rounds as there are steps
  CHECK(on(prepared(2, 64)) == "look");
  CHECK(looked(96) == "progress3@96");
  CHECK(frozen() == "progress4@100"); // while the third is under way
  CHECK(on(prepared(3, 96)) == "");
  CHECK(on(prepared(4, 100)) == "commit@100");
  CHECK(on(handover::committed{head()}) == "drop");
  CHECK(on(handover::release{head()}) == "close");
  CHECK(on(source_side::window_closed{}) == "unpin, ended moved");
}

TEST_CASE_FIXTURE(
  prefill_rig, "a prefill that is done before the answer to the offer waits for that") {
  CHECK(frozen() == "");
  CHECK(machine->at() == state::offered);
  CHECK(machine->holds(3));
  CHECK(on(accept(32)) == "progress1@100");
  CHECK(machine->at() == state::freezing);
  CHECK(on(prepared(1, 100)) == "commit@100");
}

TEST_CASE_FIXTURE(prefill_rig, "of a short prompt nothing is left to be computed at D") {
  settings.prefill_per_second = 1e9;
  machine.emplace(settings, plan);
  machine->begin(request_with(0, 0), now);
  on(accept());
  CHECK(on(source_side::frozen{request_with(1, 100), 1}) == "progress1@100");
}

TEST_CASE_FIXTURE(prefill_rig, "what D has already is not sent, and all of it need not be") {
  CHECK(on(accept(96)) == "look");
  CHECK(looked(96) == "look");
  CHECK(frozen() == "progress1@100");
}

TEST_CASE_FIXTURE(prefill_rig, "a preempted prefill goes on, and so does its hand-over") {
  on(accept());
  CHECK(looked(64) == "progress1@64");
  CHECK(on(prepared(1, 64)) == "look");
  auto again = request_with(0, 16);
  again.prefilling = true;
  again.preemptions = 1;
  CHECK(on(source_side::looked{again}) == "look");
  auto done = request_with(1, 100);
  done.preemptions = 1;
  CHECK(on(source_side::frozen{done, 1}) == "progress2@100");
}

TEST_CASE("a hand-over that is over does not wait for the prefill") {
  struct row {
    const char* what;
    std::function<std::string(prefill_rig&)> event;
    const char* effects;
  };
  for (bool accepted : {false, true})
    for (const auto& [what, event, effects] :
         {row{
            "it ended",
            [](auto& x) {
              return x.on(source_side::frozen{{errc::not_found, ""}, 0});
            },
            "cancel"},
          row{
            "it was aborted", [](auto& x) { return x.on(source_side::aborted{3}); },
            "drop, cancel"},
          row{
            "D is gone", [](auto& x) { return x.on(source_side::destination_lost{}); },
            "thaw e3, close"},
          row{"D gave up", [](auto& x) { return x.on(x.cancel()); }, "thaw e3, close"},
          row{
            "A is gone", [](auto& x) { return x.on(source_side::owner_lost{}); },
            "drop, cancel"}}) {
      CAPTURE(what);
      CAPTURE(accepted);
      prefill_rig x;
      if (accepted) {
        x.on(x.accept());
        x.looked(32);
      }
      CHECK(event(x) == effects);
      x.on(handover::cancelled{x.head()});
      x.on(source_side::window_closed{});
      CHECK(x.machine->at() == prefill_rig::state::done);
      CHECK(x.frozen() == ""); // it was on its way
    }
  prefill_rig refused;
  CHECK(
    refused.on(handover::reject{refused.head(), {errc::out_of_blocks, ""}}) == "thaw e3, close");
  prefill_rig silent;
  CHECK(silent.on(source_side::tick{}, 1s) == "thaw e3, cancel");
}

TEST_CASE_FIXTURE(prefill_rig, "a prefill may last; a round of copying may not") {
  on(accept());
  looked(32);
  on(prepared(1, 32));
  for (int second = 0; second < 100; ++second)
    CHECK(on(source_side::tick{}, 1s) == "progress0@0"); // keeps the lease
  looked(64);
  on(source_side::tick{}, 1s);
  CHECK(on(source_side::tick{}, 1s) == "thaw e3, cancel");
}

} // namespace llumnix::testing
