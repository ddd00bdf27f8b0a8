#include "runtime/serving/byte_tokenizer.hpp"
#include "runtime/serving/token_stream.hpp"

#include <doctest/doctest.h>

namespace llumnix {

namespace {

/// Feeds bytes as tokens until one ends the output; returns everything shown, piece by piece.
std::vector<std::string> show(token_stream& stream, std::string_view bytes, bool& stopped) {
  std::vector<std::string> pieces;
  stopped = false;
  for (unsigned char byte : bytes) {
    stopped = stream.take(byte);
    pieces.emplace_back(stream.ready());
    stream.shown();
    if (stopped)
      return pieces;
  }
  stream.end();
  pieces.emplace_back(stream.ready());
  stream.shown();
  return pieces;
}

std::string joined(const std::vector<std::string>& pieces) {
  std::string all;
  for (const auto& piece : pieces)
    all += piece;
  return all;
}

} // namespace

TEST_CASE("stop strings end the output as vLLM has it") {
  struct row {
    const char* what;
    std::string bytes;
    std::vector<std::string> stop;
    bool include;
    std::uint32_t min_tokens;
    std::string text;
    std::uint32_t taken;
    std::string match;
  };
  for (const auto& x : {
         row{"none", "abc", {}, false, 0, "abc", 3, ""},
         row{"in the middle", "abcdef", {"cd"}, false, 0, "ab", 4, "cd"},
         row{"included", "abcdef", {"cd"}, true, 0, "abcd", 4, "cd"},
         row{"at the start", "abc", {"a"}, false, 0, "", 1, "a"},
         row{"a false start is shown after all", "abxab", {"abc"}, false, 0, "abxab", 5, ""},
         row{"overlapping itself", "aabab", {"aba"}, false, 0, "a", 4, "aba"},
         row{"the first of the list wins", "abcd", {"d", "cd"}, false, 0, "abc", 4, "d"},
         row{"the earlier completed wins", "abcd", {"d", "bc"}, false, 0, "a", 3, "bc"},
         row{"not before min_tokens", "ababab", {"ab"}, false, 2, "ab", 4, "ab"},
         row{"begun before min_tokens, completed after", "xabx", {"ab"}, false, 2, "x", 3, "ab"},
         row{
           "completed exactly at min_tokens does not count",
           "abxx",
           {"ab"},
           false,
           2,
           "abxx",
           4,
           ""},
         row{"an empty stop string is none", "abc", {""}, false, 0, "abc", 3, ""},
       }) {
    CAPTURE(x.what);
    byte_tokenizer words;
    token_stream stream{words, x.stop, x.include, x.min_tokens};
    bool stopped = false;
    CHECK(joined(show(stream, x.bytes, stopped)) == x.text);
    CHECK(stopped == !x.match.empty());
    CHECK(stream.taken() == x.taken);
    CHECK(stream.match() == x.match);
  }
}

TEST_CASE("what may become a stop string is held back, and nothing else") {
  byte_tokenizer words;
  token_stream stream{words, {"xyz"}, false, 0};
  bool stopped = false;
  CHECK(show(stream, "axyb", stopped) == std::vector<std::string>{"a", "", "", "xyb", ""});
}

TEST_CASE("a UTF-8 sequence is shown whole, and replaced when it stays incomplete") {
  byte_tokenizer words;
  bool stopped = false;
  token_stream whole{words, {}, false, 0};
  CHECK(
    show(whole, "\xE2\x9F\x82!", stopped)
    == std::vector<std::string>{"", "", "\xE2\x9F\x82", "!", ""});
  token_stream cut{words, {}, false, 0};
  CHECK(joined(show(cut, "a\xE2\x9F", stopped)) == "a\xEF\xBF\xBD");
}

} // namespace llumnix
