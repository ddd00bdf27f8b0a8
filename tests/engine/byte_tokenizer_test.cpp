#include "runtime/serving/byte_tokenizer.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

std::string text_of(std::initializer_list<token_id> ids) {
  std::string text;
  for (auto id : ids)
    byte_tokenizer{}.append_text(id, text);
  return text;
}

} // namespace

TEST_CASE("a completion's prompt is its bytes") {
  CHECK(*byte_tokenizer{}.encode("Hi") == std::vector<token_id>{72, 105});
  CHECK(*byte_tokenizer{}.encode("\xC3\xBF") == std::vector<token_id>{0xC3, 0xBF});
  CHECK(byte_tokenizer{}.encode("")->empty());
}

TEST_CASE("a chat is framed by role, content and end, and waits for the assistant") {
  std::vector<chat_message> chat{
    {"system", "s"}, {"developer", "d"}, {"user", ""}, {"assistant", "a"}, {"tool", "t"}};
  CHECK(
    *byte_tokenizer{}.encode_chat(chat)
    == std::vector<token_id>{
      256, 259, 's', 263, 259, 'd', 263, 260, 263, 261, 'a', 263, 262, 't', 263, 261});
  for (const auto* role : {"User", "", "function"}) {
    std::vector<chat_message> odd{{role, "x"}};
    auto ids = byte_tokenizer{}.encode_chat(odd);
    REQUIRE(!ids);
    CHECK(ids.error().code == errc::invalid_argument);
  }
}

TEST_CASE("the vocabulary has bytes, special ids and words, with a gap between") {
  for (token_id id : {0u, 255u, 256u, 258u, 263u, 512u, 1023u})
    CHECK(byte_tokenizer{}.valid(id));
  for (token_id id : {264u, 511u, 1024u, 0xFFFFFFFFu})
    CHECK_FALSE(byte_tokenizer{}.valid(id));
}

TEST_CASE("ids render as bytes, words of two syllables, or nothing") {
  CHECK(text_of({72, 105}) == "Hi");
  CHECK(text_of({512}) == " bara");
  CHECK(text_of({1023}) == " novu");
  CHECK(text_of({512 + (5 << 4) + 6}) == " desi");
  CHECK(text_of({256, 257, 259, 260, 261, 262, 263}).empty());
  CHECK(text_of({258}) == "\xE2\x9F\x82");
}

TEST_CASE("incomplete UTF-8 at the end is held back, invalid bytes are not") {
  struct row {
    std::string_view text;
    std::size_t complete;
  };
  using namespace std::string_view_literals;
  for (auto [text, complete] : {
         row{""sv, 0},
         row{"ab"sv, 2},
         row{"a\xC3"sv, 1},
         row{"a\xC3\xA4"sv, 3},
         row{"\xE2"sv, 0},
         row{"\xE2\x9F"sv, 0},
         row{"\xE2\x9F\x82"sv, 3},
         row{"x\xF0\x9F\x98"sv, 1},
         row{"x\xF0\x9F\x98\x80"sv, 5},
         row{"x\xF0\x9F"sv, 1},
         // These can become nothing valid, so waiting would not help.
         row{"\x80"sv, 1},
         row{"\x80\x80\x80\x80"sv, 4},
         row{"\xFF"sv, 1},
         row{"\xC0"sv, 1},
         row{"\xE0\x80"sv, 2},
         row{"\xED\xA0"sv, 2},
         row{"\xF4\x90"sv, 2},
         row{"\xF0\x80\x80"sv, 3},
         row{"\xC3\xA4\xA4"sv, 3},
         row{"\xF5\x80"sv, 2},
       }) {
    CAPTURE(text.size());
    CAPTURE(static_cast<int>(text.empty() ? 0 : static_cast<unsigned char>(text.back())));
    CHECK(utf8_complete_prefix(text) == complete);
  }
}
