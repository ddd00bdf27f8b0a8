#include "gateway/openai/forgive.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

namespace llumnix::openai {
namespace {

const std::string unknown = "\xEF\xBF\xBD"; // U+FFFD

std::string forgiven(std::string text) {
  forgive(text);
  return text;
}

} // namespace

TEST_CASE("what is good, and what no reader takes, stays as it is") {
  for (const std::string text :
       {R"({"a":"x\n\"\\\/é€😀","b":[1,-2.5,3e7,true,null]})", R"("\ud83d\ude00\uFFFF\u0000")",
        R"([9223372036854775807,-9223372036854775808,18446744073709551615,1e308,1e-400])",
        R"("\\ud800")", R"("\x")", R"("\)", R"("\u)", R"("\u12)", R"("\ud8z0")", R"("open)", "",
        "{", "01", "-", "--5", "1.5.6", "\xFF", "{\xC0}", R"({"a":\ud800})"}) {
    CAPTURE(text);
    auto copy = text;
    CHECK_FALSE(forgive(copy));
    CHECK(copy == text);
  }
}

TEST_CASE("in strings, bytes that are no UTF-8 are replaced one by one") {
  using row = std::pair<std::string, std::string>;
  for (const auto& [text, expected] :
       {row{"\"\xFF\"", "\"" + unknown + "\""},
        row{
          "\"a\x80"
          "b\"",
          "\"a" + unknown + "b\""},
        row{"\"\xE2\x82\"", "\"" + unknown + unknown + "\""},
        row{"\"\xED\xA0\x80\"", "\"" + unknown + unknown + unknown + "\""}, // a surrogate's bytes
        row{"\"\xC0\xAF\xE2\x82\xAC\"", "\"" + unknown + unknown + "\xE2\x82\xAC\""},
        row{"{\"\xFF\":\"\xFE\"}", "{\"" + unknown + "\":\"" + unknown + "\"}"},
        row{"\"\\\xFF\"", "\"\\" + unknown + "\""}, row{"\"\xF0\x9F", "\"" + unknown + unknown}}) {
    CAPTURE(text);
    CHECK(forgiven(text) == expected);
  }
}

TEST_CASE("half of a surrogate pair is replaced, a whole one is not") {
  using row = std::pair<std::string, std::string>;
  for (const auto& [text, expected] :
       {row{R"("\ud800")", R"("\ufffd")"}, row{R"("\uDFFFx")", R"("\ufffdx")"},
        row{R"("\ud800\u0041")", R"("\ufffd\u0041")"},
        row{R"("\ud800\ud83d\ude00\ude00")", R"("\ufffd\ud83d\ude00\ufffd")"},
        row{R"("\udc00\ud800")", R"("\ufffd\ufffd")"}, row{R"("\\\ud800")", R"("\\\ufffd")"},
        row{R"("\ud800)", R"("\ufffd)"}, row{R"("\ud800\ud)", R"("\ufffd\ud)"},
        row{R"({"\ud800":1})", R"({"\ufffd":1})"}}) {
    CAPTURE(text);
    CHECK(forgiven(text) == expected);
  }
}

TEST_CASE("numbers beyond what fits become floats, outside of strings only") {
  using row = std::pair<std::string, std::string>;
  const std::string most = "1.7976931348623157e308";
  for (const auto& [text, expected] :
       {row{"18446744073709551616", "18446744073709551616e0"},
        row{"-9223372036854775809", "-9223372036854775809e0"},
        row{"[99999999999999999999,1]", "[99999999999999999999e0,1]"},
        row{
          R"({"99999999999999999999":"99999999999999999999","a":99999999999999999999})",
          R"({"99999999999999999999":"99999999999999999999","a":99999999999999999999e0})"},
        row{"1e400", most}, row{"-1e400", "-" + most}, row{std::string(400, '9'), most},
        row{"-" + std::string(400, '9') + ".5", "-" + most}}) {
    CAPTURE(text);
    CHECK(forgiven(text) == expected);
  }
}

TEST_CASE(
  "a number of a million digits, and a million of what is wrong, take no time to speak of") {
  const std::size_t count = 1'000'000;
  CHECK(forgiven(std::string(count, '7')) == "1.7976931348623157e308");
  auto bytes = forgiven('"' + std::string(count, '\xFF') + '"');
  CHECK(bytes.size() == 3 * count + 2);
}

} // namespace llumnix::openai
