#include "moving_scene.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

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
        auto config = small_engines();
        config.migration.in_slots = around.in_slots;
        moving_scene there{++seed, 2, config};
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
