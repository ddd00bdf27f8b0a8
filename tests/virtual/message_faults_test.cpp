#include "moving_scene.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// Sanitized, each case takes ten times as long: one in so many is tried then.
#ifdef __SANITIZE_ADDRESS__
constexpr std::uint64_t one_in = 6;
#else
constexpr std::uint64_t one_in = 1;
#endif

/// What else goes wrong, so that a message is said at all.
struct circumstance {
  const char* what;
  message_judge judge;
  std::vector<std::string> words; ///< that are said then
  std::uint32_t in_slots = 4;     ///< of each instance
};

message_judge loses(std::vector<std::string> names, std::uint64_t first_many) {
  return [names = std::move(names), first_many](std::string_view name, std::uint64_t number) {
    bool hit = number <= first_many && std::ranges::find(names, name) != names.end();
    return message_fate{hit ? 0u : 1u, {}};
  };
}

std::vector<circumstance> circumstances() {
  return {
    {"all is well",
     {},
     {"offer", "accept", "copy_progress", "prepared", "freeze_commit", "claim", "claim_answer",
      "committed", "release"}},
    {"the source hears nothing of its commit, and asks for the stream back",
     loses({"committed", "release", "claim"}, 100),
     {"reclaim", "claim_answer", "cancel"}},
    {"the destination does not copy: it is cancelled",
     loses({"prepared"}, 100),
     {"cancel", "cancelled"}},
    {"the source has the stream back before the destination asks for it",
     [](std::string_view name, std::uint64_t number) {
       return message_fate{1, name == "claim" && number <= 8 ? nanoseconds{8s} : nanoseconds{0}};
     },
     {"claim_answer", "reclaim", "cancel"}},
    {"nobody hears what the owner of the stream says",
     loses({"claim_answer"}, 12),
     {"reclaim", "commit_failed", "abandon", "abandoned"}},
    {"the destination has no room", {}, {"offer", "reject"}, 0},
  };
}

struct trouble {
  const char* what;
  message_fate (*fate)(std::uint64_t number);
};

constexpr trouble troubles[] = {
  {"lost once",
   [](std::uint64_t number) {
     return message_fate{number == 1 ? 0u : 1u, {}};
   }},
  {"lost three times",
   [](std::uint64_t number) {
     return message_fate{number <= 3 ? 0u : 1u, {}};
   }},
  {"said twice",
   [](std::uint64_t) {
     return message_fate{2, {}};
   }},
  {"said again half a second later",
   [](std::uint64_t) {
     return message_fate{2, 500ms};
   }},
  {"late by a step",
   [](std::uint64_t) {
     return message_fate{1, 2ms};
   }},
  {"late by half a second",
   [](std::uint64_t number) {
     return message_fate{1, number == 1 ? 500ms : 0ms};
   }},
  {"late by six seconds",
   [](std::uint64_t number) {
     return message_fate{1, number == 1 ? 6s : 0s};
   }},
};

} // namespace

TEST_CASE("whatever becomes of a word of a hand-over, the stream is exact and nothing is left") {
  std::uint64_t seed = 0;
  std::uint64_t moved = 0;
  nanoseconds longest{0};
  for (const auto& around : circumstances())
    for (const auto& word : around.words)
      for (const auto& trouble : troubles) {
        CAPTURE(around.what);
        CAPTURE(word);
        CAPTURE(trouble.what);
        if (++seed % one_in != 0)
          continue;
        auto config = small_engines();
        config.migration.in_slots = around.in_slots;
        moving_scene there{seed, 2, config};
        auto& client = there.running("r1", 200);
        auto from = there.place_of("r1");
        there.on_message([&](std::string_view name, std::uint64_t number) {
          if (name == word)
            return trouble.fate(number);
          return around.judge ? around.judge(name, number) : message_fate{};
        });
        auto answers = there.order(from, there.to(there.other(from), client));
        there.expect_exact("r1", client, 200);
        CHECK(there.run_until([&] { return !answers->empty(); }, 60s));
        CHECK(there.messages(word) > 0);
        auto ended = there.now();
        there.on_message({}); // the trouble is over
        CHECK(there.run_until([&] { return leftovers_of(there, 2) == leftovers{}; }, 3s));
        longest = std::max(longest, there.now() - ended);
        for (const auto& one : *answers)
          moved += one.moves.front().outcome == "moved";
      }
  CHECK(moved > 0);
  MESSAGE(seed, " cases, ", moved, " moved; all was free after ", longest.count() / 1000000, " ms");
}

TEST_CASE("a move that came about is told as such, though the source heard nothing of it") {
  struct row {
    std::vector<std::string> lost;
    bool moves;
  };
  const row rows[] = {
    {{}, true},
    {{"committed"}, true}, // RELEASE says it too
    {{"committed", "release"}, true},
    {{"claim"}, false},
  };
  for (const auto& [lost, moved] : rows) {
    auto config = small_engines();
    config.migration.decide_timeout = 50ms;
    moving_scene there{17, 2, config};
    auto& client = there.running("r1", 400);
    auto from = there.place_of("r1");
    there.on_message(loses(lost, 100));
    auto moves = there.migrate(from, there.to(there.other(from), client), 10s);
    REQUIRE(moves);
    REQUIRE(moves->moves.size() == 1);
    CAPTURE(lost.size());
    const auto& move = moves->moves.front();
    CAPTURE(move.reason);
    CHECK((move.outcome == "moved") == moved);
    bool taken_back = move.reason.find("the destination did not commit") != std::string::npos;
    CHECK(taken_back != moved);
    CHECK((!moved || move.reason.empty()));
    CHECK((!moved || move.epoch == 1));
    CHECK(there.place_of("r1") == (moved ? there.other(from) : from));
    there.on_message({});
    there.expect_exact("r1", client, 400);
    CHECK(there.notes_of("r1", "moved").empty() != moved);
    CHECK(there.notes_of("r1", "move_failed").empty() == moved);
  }
}

namespace {

/// Something that happens the moment a word is said.
struct blow {
  const char* what;
  void (*strike)(moving_scene& there, virtual_client& client, const instance_id& from);
  bool client_stays;
};

void kill_and_restart(moving_scene& there, const std::string& node) {
  there.kill(node);
  there.start(node, node == "head" ? scene::head() : scene::engine());
}

void pause_for(moving_scene& there, const std::string& node, std::chrono::milliseconds time) {
  there.pause(node);
  there.run_for(time);
  there.resume(node);
}

const blow blows[] = {
  {"the source dies", [](auto& there, auto&, const auto& from) { kill_and_restart(there, from); },
   true},
  {"the destination dies",
   [](auto& there, auto&, const auto& from) { kill_and_restart(there, there.other(from)); }, true},
  {"the source stands still for a while",
   [](auto& there, auto&, const auto& from) { pause_for(there, from, 3s); }, true},
  {"the destination stands still for a while",
   [](auto& there, auto&, const auto& from) { pause_for(there, there.other(from), 3s); }, true},
  {"the owner of the stream stands still for a while",
   [](auto& there, auto&, const auto&) { pause_for(there, "head", 1s); }, true},
  {"the link between the two breaks",
   [](auto& there, auto&, const auto& from) { there.reset(from, there.other(from)); }, true},
  {"the source's link to the owner breaks",
   [](auto& there, auto&, const auto& from) { there.reset(from, "head"); }, true},
  {"the destination's link to the owner breaks",
   [](auto& there, auto&, const auto& from) { there.reset(there.other(from), "head"); }, true},
  {"the owner of the stream dies",
   [](auto& there, auto&, const auto&) { kill_and_restart(there, "head"); }, false},
  {"the client goes away", [](auto& there, auto& client, const auto&) { there.disconnect(client); },
   false},
};

} // namespace

TEST_CASE("whoever dies, stops or goes at whatever word, streams are exact and nothing is left") {
  std::uint64_t seed = 1000;
  for (const auto& blow : blows)
    for (std::string word :
         {"offer", "accept", "copy_progress", "prepared", "freeze_commit", "claim", "claim_answer",
          "committed", "release"}) {
      CAPTURE(blow.what);
      CAPTURE(word);
      if (++seed % one_in != 0)
        continue;
      CAPTURE(seed);
      moving_scene there{seed};
      auto& client = there.running("r1", 250);
      auto from = there.place_of("r1");
      there.on_message({});
      there.order(from, there.to(there.other(from), client));
      REQUIRE(there.run_until([&] { return there.messages(word) > 0; }, 5s));
      blow.strike(there, client, from);
      if (blow.client_stays)
        there.expect_exact("r1", client, 250);
      REQUIRE(there.settle());
      // A destination that was offered a request and heard no more waits for its lease to end.
      CHECK(there.run_until([&] { return leftovers_of(there, 2) == leftovers{}; }, 3s));
    }
}
