#include "gateway/relay/json_cursor.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <string_view>

namespace llumnix::relay {
namespace {

bool accepts(std::string_view text) {
  json_cursor at{text};
  at.skip();
  return at.finished();
}

std::string repeated(std::string_view what, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i)
    all += what;
  return all;
}

std::string unescaped(std::string_view inside) {
  std::string out;
  append_unescaped(out, inside);
  return out;
}

} // namespace

TEST_CASE("only JSON is passed over") {
  using row = std::pair<std::string, bool>;
  for (const auto& [text, valid] :
       {row{"null", true},
        row{" true ", true},
        row{"false", true},
        row{"\t\r\n[ ]\n", true},
        row{"{ }", true},
        row{"-0.5e+10", true},
        row{"0", true},
        row{R"("a\u00e9\"\\\/\b\f\n\r\t")", true},
        row{R"({"a":[1,{"b":{}},"]}"],"c":null})", true},
        row{"\"\u00e9\u20ac\U0001F600\"", true},
        row{R"("\ud83d")", true},                    // half a pair is JSON
        row{"123456789012345678901234567890", true}, // and so are large numbers
        row{"1e999", true},
        row{"\"\x7f\"", true},
        row{"", false},
        row{" ", false},
        row{"nul", false},
        row{"nulL", false},
        row{"truex", false},
        row{"True", false},
        row{"NaN", false},
        row{"Infinity", false},
        row{"-", false},
        row{"01", false},
        row{"1.", false},
        row{".5", false},
        row{"1e", false},
        row{"1e+", false},
        row{"+1", false},
        row{"--1", false},
        row{"0x1", false},
        row{"[1,]", false},
        row{"[,1]", false},
        row{"[1 2]", false},
        row{"[1", false},
        row{"]", false},
        row{"[}", false},
        row{"{]", false},
        row{R"({"a":1)", false},
        row{R"({"a"})", false},
        row{R"({"a":})", false},
        row{R"({"a":1,})", false},
        row{R"({,"a":1})", false},
        row{"{a:1}", false},
        row{"{1:1}", false},
        row{R"({"a":1 "b":2})", false},
        row{R"({"a"::1})", false},
        row{R"({"a",1})", false},
        row{"\"a", false},
        row{R"("\)", false},
        row{R"("\x")", false},
        row{R"("\u12")", false},
        row{R"("\u12g4")", false},
        row{"'a'", false},
        row{"\"\n\"", false},
        row{std::string{"\"\0\"", 3}, false},
        row{std::string{"1\0", 2}, false},
        row{"1 2", false},
        row{"{}{}", false},
        row{"\"\x80\"", false},
        row{"\"\xC0\x80\"", false},
        row{"\"\xED\xA0\x80\"", false},
        row{"\"\xC3\"", false},
        row{"\xEF\xBB\xBF{}", false},
        row{"/**/1", false}}) {
    CAPTURE(text);
    CHECK(accepts(text) == valid);
    CHECK(accepts("[" + text + "]") == (valid || text == " " || text == ""));
    CHECK(accepts("{\"x\": " + text + " }") == valid);
  }
}

TEST_CASE("every beginning of a text is refused") {
  std::string_view text = R"( {"a":[1.5e-3,true,{"b":"c\u00e9\\","d":null}],"e":{}, "f" : [ ] })";
  REQUIRE(accepts(text));
  for (std::size_t size = 0; size < text.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(accepts(text.substr(0, size)));
  }
}

TEST_CASE("the cursor and another parser agree about garbled texts") {
  const std::string text
    = R"({"a":[1.5e-3,true,{"b":"c\u1234\\ \"x","d":null}],"e":{},"long text, é":[ "" ]})";
  constexpr std::string_view bytes = "{}[]\":,\\tfnu-+.eE01 \x01\x80\xc3\n";
  std::mt19937 random{7};
  auto below = [&](std::size_t end) { return random() % end; };
  int valid = 0;
  for (int i = 0; i < 8000; ++i) {
    auto garbled = text;
    for (auto change = below(2); change < 2; ++change)
      switch (auto at = below(garbled.size()); below(3)) {
        case 0: garbled[at] = bytes[below(bytes.size())]; break;
        case 1: garbled.insert(at, 1, bytes[below(bytes.size())]); break;
        default: garbled.erase(at, 1); break;
      }
    bool expected = nlohmann::json::accept(garbled);
    valid += expected;
    if (accepts(garbled) != expected)
      FAIL(garbled);
  }
  CHECK(valid > 200);
}

TEST_CASE("nesting is bounded") {
  constexpr auto most = json_cursor::depth_max;
  CHECK(accepts(repeated("[", most) + repeated("]", most)));
  CHECK(accepts(repeated(R"({"a":)", most) + "1" + repeated("}", most)));
  CHECK(accepts(repeated(R"({"a":[)", most / 2) + repeated("]}", most / 2)));
  CHECK_FALSE(accepts(repeated(R"({"a":[)", most / 2) + repeated("}]", most / 2)));
  for (auto opening : {"[", R"({"a":)"}) {
    auto text = repeated(opening, 1000000);
    json_cursor at{text};
    CHECK(at.skip().empty());
    CHECK(at.problem() == "nested too deeply");
  }
}

TEST_CASE("members and elements are found where they lie") {
  std::string_view text = R"({ "a" : 1 ,"b":[ 2, [3] ,{}],"\u0063\"":{"d":"x"} })";
  json_cursor at{text};
  REQUIRE(at.enter_object());
  REQUIRE(at.next_member());
  CHECK(at.key() == "a");
  CHECK(at.member_offset() == 2);
  CHECK(at.skip() == "1");
  CHECK(at.offset() == 9);
  REQUIRE(at.next_member());
  CHECK(at.key() == "b");
  REQUIRE(at.enter_array());
  std::string elements;
  while (at.next_element())
    elements += std::string{at.skip()} + ";";
  CHECK(elements == "2;[3];{};");
  REQUIRE(at.next_member());
  CHECK(at.key() == "c\"");
  CHECK(at.member_offset() == text.find("\"\\u0063"));
  CHECK(at.skip() == R"({"d":"x"})");
  CHECK(at.key() == "c\"");
  CHECK_FALSE(at.next_member());
  CHECK(at.finished());
}

TEST_CASE("after a failure there is nothing more") {
  json_cursor at{R"({"a":tru,"b":1})"};
  REQUIRE(at.enter_object());
  REQUIRE(at.next_member());
  CHECK(at.skip().empty());
  CHECK(at.offset() == 5);
  CHECK_FALSE(at.next_member());
  CHECK_FALSE(at.next_element());
  CHECK_FALSE(at.enter_array());
  CHECK(at.skip().empty());
  CHECK(at.peek() == '\0');
  CHECK_FALSE(at.finished());
  CHECK(at.problem() == "not valid JSON");
  CHECK(at.offset() == 5);
}

TEST_CASE("a value that nobody read is a failure") {
  json_cursor at{R"({"a":1,"b":2})"};
  REQUIRE(at.enter_object());
  REQUIRE(at.next_member());
  CHECK_FALSE(at.next_member());
  CHECK(at.failed());
}

TEST_CASE("what is no UTF-8 is refused where it is") {
  json_cursor at{"{\"\u00e9\":\"\xE2\x82\"}"};
  CHECK(at.problem() == "not valid UTF-8");
  CHECK(at.offset() == 7);
  CHECK_FALSE(at.enter_object());
}

TEST_CASE("numbers of digits only") {
  constexpr std::uint64_t max = 4294967295;
  using row = std::pair<std::string_view, std::optional<std::uint64_t>>;
  for (auto [text, expected] :
       {row{"0", 0}, row{" 17", 17}, row{"4294967295", max}, row{"4294967296", {}},
        row{"99999999999999999999999999", {}}, row{"-1", {}}, row{"00", {}}, row{"01", {}},
        row{"1.0", {}}, row{"1e1", {}}, row{"\"1\"", {}}, row{"null", {}}, row{"", {}},
        row{"[1]", {}}}) {
    CAPTURE(text);
    json_cursor at{text};
    auto value = at.read_unsigned(max);
    CHECK(at.finished() == expected.has_value());
    if (expected)
      CHECK(value == *expected);
  }
}

TEST_CASE("strings are unescaped") {
  using row = std::pair<std::string_view, std::string>;
  for (const auto& [inside, text] :
       {row{"", ""}, row{"plain \u00e9", "plain \u00e9"},
        row{R"(\"\\\/\b\f\n\r\t)", "\"\\/\b\f\n\r\t"},
        row{R"(\u0041\u00e9\u20AC)", "A\u00e9\u20ac"}, row{R"(\ud83d\ude00!)", "\U0001F600!"},
        row{R"(\uDBFF\uDFFF)", "\U0010FFFF"}, row{R"(\u0000)", std::string{"\0", 1}},
        row{R"(\ud83d)", "\uFFFD"}, row{R"(\ude00\ud83d)", "\uFFFD\uFFFD"},
        row{R"(\ud83dx\u0041)", "\uFFFDxA"}, row{R"(\ud83d\u0041)", "\uFFFDA"},
        row{R"(\ud83d\ud83d\ude00)", "\uFFFD\U0001F600"}, row{R"(\ud83d\n)", "\uFFFD\n"},
        row{R"(a\\u0041)", "a\\u0041"}}) {
    CAPTURE(inside);
    CHECK(unescaped(inside) == text);
  }
}

TEST_CASE("numbers have the nearest value") {
  using limits = std::numeric_limits<std::int64_t>;
  using row = std::pair<std::string_view, std::optional<std::int64_t>>;
  for (auto [text, value] :
       {row{"0", 0}, row{"-0", 0}, row{"-17", -17}, row{"5.0", 5}, row{"1e3", 1000}, row{"5.5", {}},
        row{"1e-3", {}}, row{"9223372036854775807", limits::max()},
        row{"9223372036854775808", limits::max()}, row{"-9223372036854775809", limits::min()},
        row{"99999999999999999999999999", limits::max()}, row{"1e30", limits::max()},
        row{"-1e999", limits::min()}}) {
    CAPTURE(text);
    CHECK(to_integer(text) == value);
  }
  CHECK(to_double("-2.5e-1") == -0.25);
  CHECK(to_double("1e999") == std::numeric_limits<double>::infinity());
  CHECK(to_double("-1e999") == -std::numeric_limits<double>::infinity());
  CHECK(to_count("18446744073709551615") == std::numeric_limits<std::uint64_t>::max());
  for (auto text : {"18446744073709551616", "-1", "1.0", "", "\"1\"", "1 "})
    CHECK_FALSE(to_count(text));
}

} // namespace llumnix::relay
