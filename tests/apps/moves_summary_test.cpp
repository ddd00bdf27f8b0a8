#include "apps/moves_summary.hpp"

#include "apps/exit_codes.hpp"
#include "apps/inspect_text.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace llumnix {

namespace {

/// One word a request: its outcome, or `there`.
admin_document answer_of(const std::vector<std::string>& requests) {
  auto moves = admin_document::array();
  for (const auto& word : requests) {
    bool there = word == "there";
    moves.push_back(
      {{"request", "sea." + std::to_string(moves.size())},
       {"from", there ? "b" : "a"},
       {"to", "b"},
       {"outcome", there ? "refused" : word},
       {"path", "kv"},
       {"rounds", 2},
       {"bytes", 1024},
       {"downtime_ms", 1}});
    if (there)
      moves.back()["reason"] = "it is at b already";
  }
  return {{"moves", moves}};
}

} // namespace

TEST_CASE("a migrate has done what it should where all of its requests are there in the end") {
  struct row {
    std::vector<std::string> requests;
    moves_summary sum;
    int code;
  };
  for (const auto& [requests, sum, code] : std::vector<row>{
         {{"moved"}, {.moved = 1}, exit_code::done},
         {{"moved", "finished"}, {.moved = 1, .finished = 1}, exit_code::done},
         {{"there", "moved", "moved"}, {.moved = 2, .there = 1}, exit_code::done},
         {{"there", "finished"}, {.there = 1, .finished = 1}, exit_code::done},
         {{"there", "moved", "refused"}, {.moved = 1, .there = 1, .refused = 1}, exit_code::refused},
         {{"there", "refused"}, {.there = 1, .refused = 1}, exit_code::refused},
         {{"there", "moved", "failed"}, {.moved = 1, .there = 1, .failed = 1}, exit_code::failed},
         {{"refused", "failed"}, {.refused = 1, .failed = 1}, exit_code::failed},
         {{"there"}, {.refused = 1}, exit_code::refused},
         {{"there", "there"}, {.refused = 2}, exit_code::refused},
         {{}, {}, exit_code::refused}}) {
    CAPTURE(requests.size());
    CHECK(summary_of(answer_of(requests)) == sum);
    CHECK(exit_code_for(sum) == code);
  }
  for (auto odd : {"{}", "7", R"({"moves":[7,null,{}]})"})
    CHECK(summary_of(admin_document::parse(odd)) == moves_summary{});
}

TEST_CASE("what was at its destination already is told as that, and counted") {
  std::string moved = " moved from a to b by kv: 2 rounds, 1.0KiB, 1ms between two steps\n";
  CHECK(
    moves_text(answer_of({"moved", "there", "moved"}), false)
    == "sea.0" + moved + "sea.1 stays: it is at b already\n" + "sea.2" + moved
         + "2 moved, 1 was there already\n");
  CHECK(moves_text(answer_of({"there", "there", "moved"}), false)
          .ends_with("\n1 moved, 2 were there already\n"));
  CHECK(moves_text(answer_of({"there"}), false) == "sea.0 refused: it is at b already\n");
  CHECK(moves_text(answer_of({"moved"}), false) == "sea.0" + moved);
}

} // namespace llumnix
