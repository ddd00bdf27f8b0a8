#include "apps/load/verify_modeled.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace llumnix::load {

namespace {

// Texts worked out by a separate program from the modeled engine's specification.
constexpr std::string_view sea = "Tell me of the sea.";
constexpr std::string_view sea_text
  = " dotu deti gisa govi devu neri lari novu late kota geta lare";

expected_output sea_greedy() {
  auto expected = expect_chat(sea);
  expected.max_tokens = 12;
  return expected;
}

} // namespace

TEST_CASE("texts agree with those of a separate program") {
  struct row {
    bool chat;
    std::string_view prompt;
    std::uint32_t max_tokens;
    std::optional<std::uint64_t> seed;
    std::uint32_t choice;
    bool ignore_eos;
    std::string_view text;
    std::string_view reason;
    std::uint32_t tokens;
  };
  const std::vector<row> rows{
    {false, "Hi", 8, {}, 0, false, " bava kati beri fava base gisu gave fisa", "length", 8},
    {true, sea, 12, {}, 0, false, sea_text, "length", 12},
    {true, sea, 12, 7, 0, false, " dese lare miru diva leva bori gese fova foru feve gisu lisa",
     "length", 12},
    {true,
     sea,
     12,
     {},
     1,
     false,
     " gisi noru giti nare dotu koti kesu fasa bera meri meti gose",
     "length",
     12},
    {true,
     "story 135",
     200,
     {},
     0,
     false,
     " liti fote misu dova lise dava kavu gate gisa",
     "stop",
     10},
    {true,
     "story 135",
     16,
     {},
     0,
     true,
     " liti fote misu dova lise dava kavu gate gisa kera kore diva bira dovu kere besu",
     "length",
     16},
    {true,
     "story 135",
     10,
     {},
     0,
     false,
     " liti fote misu dova lise dava kavu gate gisa",
     "stop",
     10},
  };
  for (const auto& row : rows) {
    CAPTURE(row.text);
    auto expected = row.chat ? expect_chat(row.prompt) : expect_completion(row.prompt);
    expected.max_tokens = row.max_tokens;
    expected.ignore_eos = row.ignore_eos;
    expected.key = sampling_key(row.seed, row.choice);
    for (std::size_t piece : {1, 3, 5, 1000}) { // text may be cut anywhere
      output_checker checker{expected};
      for (std::size_t at = 0; at < row.text.size(); at += piece)
        CHECK(checker.feed(row.text.substr(at, piece)) == std::nullopt);
      CHECK(checker.finish(row.reason) == std::nullopt);
      CHECK(checker.tokens() == row.tokens);
    }
  }
}

TEST_CASE("a wrong, missing, repeated or broken token is found where it stands") {
  using row = std::pair<std::string, mismatch>;
  const std::vector<row> rows{
    {" dotu zzzz gisa", {1, " deti", " zzzz gisa"}},
    {" dotu gisa", {1, " deti", " gisa"}},
    {" dotu dotu", {1, " deti", " dotu"}},
    {" dotu deti⟂", {2, " gisa", "⟂"}},
    {" dotu deti gisu", {2, " gisa", " gisu"}},
    {std::string{sea_text} + " kera", {12, "end (length)", " kera"}},
  };
  for (const auto& [text, expected] : rows) {
    CAPTURE(text);
    CHECK(output_checker{sea_greedy()}.feed(text) == expected);
  }
}

TEST_CASE("an end too early, within a word or for another reason is found") {
  using row = std::tuple<std::string, std::string, mismatch>;
  const std::vector<row> rows{
    {" dotu deti", "length", {2, " gisa", "end (length)"}},
    {" dotu de", "length", {1, " deti", " deend (length)"}},
    {std::string{sea_text}, "stop", {12, "end (length)", "end (stop)"}},
  };
  for (const auto& [text, reason, expected] : rows) {
    CAPTURE(text);
    output_checker checker{sea_greedy()};
    REQUIRE(checker.feed(text) == std::nullopt);
    CHECK(checker.finish(reason) == expected);
  }
}

TEST_CASE("no end of sequence before min_tokens") {
  auto expected = expect_chat("story 135"); // would end with its tenth token
  expected.max_tokens = 12;
  expected.min_tokens = 10;
  output_checker checker{expected};
  CHECK(
    checker.feed(" liti fote misu dova lise dava kavu gate gisa kera kore diva") == std::nullopt);
  CHECK(checker.finish("length") == std::nullopt);
}

} // namespace llumnix::load
