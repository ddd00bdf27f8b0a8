#include "apps/reference/extra_args.hpp"
#include "apps/reference/flag_table.hpp"
#include "apps/reference/gateway_flags.hpp"
#include "apps/reference/go_style.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <tuple>

namespace llumnix {

namespace {

using words = std::vector<std::string>;
using pairs = std::vector<std::pair<std::string, std::string>>;
using namespace std::chrono_literals;

} // namespace

TEST_CASE("values are read as Go reads them") {
  using enum flag_form;
  using row = std::tuple<flag_form, const char*, flag_value>;
  constexpr auto infinity = std::numeric_limits<double>::infinity();
  for (const auto& [form, text, value] : {
         row{text, "", std::string{}},
         row{text, " a=b ", std::string{" a=b "}},
         row{whole, "0", std::int64_t{0}},
         row{whole, "-0", std::int64_t{0}},
         row{whole, "+7", std::int64_t{7}},
         row{whole, "-1", std::int64_t{-1}},
         row{whole, "0x1F", std::int64_t{31}},
         row{whole, "-0X1f", std::int64_t{-31}},
         row{whole, "0b101", std::int64_t{5}},
         row{whole, "0o17", std::int64_t{15}},
         row{whole, "017", std::int64_t{15}}, // octal, in Go too
         row{whole, "9223372036854775807", std::int64_t{INT64_MAX}},
         row{whole, "-9223372036854775808", std::int64_t{INT64_MIN}},
         row{number, "0.7", 0.7},
         row{number, "+1e3", 1000.0},
         row{number, "-.5", -0.5},
         row{number, "8192", 8192.0},
         row{number, "inf", infinity},
         row{number, "-Inf", -infinity},
         row{number, "+infinity", infinity},
         row{toggle, "T", true},
         row{toggle, "1", true},
         row{toggle, "False", false},
         row{duration, "1m30s", std::string{"90s"}},
       }) {
    CAPTURE(text);
    CHECK(read_flag(form, text) == value);
  }
  using wrong = std::pair<flag_form, const char*>;
  for (auto [form, text] : {
         wrong{whole, ""},
         wrong{whole, "-"},
         wrong{whole, "--1"},
         wrong{whole, "+-1"},
         wrong{whole, "-+1"},
         wrong{whole, "1.0"},
         wrong{whole, "1e3"},
         wrong{whole, " 1"},
         wrong{whole, "0x"},
         wrong{whole, "08"},
         wrong{whole, "0b2"},
         wrong{whole, "9223372036854775808"},
         wrong{whole, "-9223372036854775809"},
         wrong{whole, "99999999999999999999999"},
         wrong{number, ""},
         wrong{number, "+"},
         wrong{number, "--1"},
         wrong{number, "+-1"},
         wrong{number, "-+1"},
         wrong{number, "nan"},
         wrong{number, "-NaN"},
         wrong{number, "1e999"},
         wrong{number, "1,5"},
         wrong{number, "1 "},
         wrong{toggle, ""},
         wrong{toggle, "yes"},
         wrong{toggle, "tRUE"},
         wrong{duration, "5"},
       }) {
    CAPTURE(text);
    CHECK_FALSE(read_flag(form, text).has_value());
  }
}

TEST_CASE("a long value is shortened between two characters") {
  CHECK(shown_value("") == "an empty value");
  CHECK(shown_value(std::string(60, 'a')) == std::string(60, 'a'));
  CHECK(shown_value(std::string(61, 'a')) == std::string(57, 'a') + "...");
  CHECK(shown_value(std::string(56, 'a') + "\u00b5" + "aaa") == std::string(56, 'a') + "...");
}

TEST_CASE("extra-args go on top of what was given") {
  given_flags given{
    {"port", "80"}, {"extra-args", "port=81,prot=1,host,=5,extra-args='port=82',v=x,v=3,port=0x52"}};
  auto warnings = put_extra_args_on_top(gateway_flags(), given);
  CHECK(given.at("port") == "0x52"); // the last counts
  CHECK(given.at("v") == "3");
  CHECK(given.size() == 3);
  CHECK(
    warnings
    == words{
      "host has no '=': passed over", "=5 names no flag: passed over",
      "there is no flag prot: passed over",
      "there is no flag extra-args: passed over", "v: x is no whole number: passed over"});
  given = {{"port", "80"}};
  CHECK(put_extra_args_on_top(gateway_flags(), given).empty());
  CHECK(given == given_flags{{"port", "80"}});
}

TEST_CASE("extra-args are split where the reference splits them") {
  struct row {
    std::string text;
    pairs flags;
    std::size_t warnings = 0;
  };
  for (const auto& [text, flags, warnings] : {
         row{"", {}},
         row{" , ,,", {}},
         row{"a=1", {{"a", "1"}}},
         row{"a=1,b=2", {{"a", "1"}, {"b", "2"}}},
         row{" a = 1 , b=2 ", {{"a", "1"}, {"b", "2"}}},
         row{"a=", {{"a", ""}}},
         row{"=1, = ,b=2", {{"b", "2"}}, 2},
         row{"a=b=c", {{"a", "b=c"}}},
         row{"a", {}, 1},
         row{"a,b=1", {{"b", "1"}}, 1},
         row{"a='1,2',b=3", {{"a", "1,2"}, {"b", "3"}}},
         row{"a=\"1,2\",b=3", {{"a", "1,2"}, {"b", "3"}}},
         row{"a='x\"y',b=\"p'q\"", {{"a", "x\"y"}, {"b", "p'q"}}},
         row{"a=' 1 '", {{"a", "1"}}},   // trimmed after the quotes are gone
         row{"a= '1'", {{"a", "'1'"}}},  // no quote right behind the '='
         row{"a='1'x", {{"a", "'1'x"}}}, // no pair
         row{"a='1\"", {{"a", "'1\""}}},
         row{"a='", {{"a", "'"}}},
         row{"a=''", {{"a", ""}}},
         row{"a='1,b=2", {{"a", "'1,b=2"}}}, // never closed: all of it
         row{"a=[1,2],b=3", {{"a", "[1,2]"}, {"b", "3"}}},
         row{"a=[1,[2,3],4],b=3", {{"a", "[1,[2,3],4]"}, {"b", "3"}}},
         row{"a=[{\"p\":\"x,y\"},2],b=3", {{"a", "[{\"p\":\"x,y\"},2]"}, {"b", "3"}}},
         row{"a=['],b=3", {{"a", "[']"}, {"b", "3"}}}, // quotes in brackets are plain text
         row{"a=1],b=3", {{"a", "1]"}, {"b", "3"}}},
         row{"a=[1,b=3", {{"a", "[1,b=3"}}},
         row{"a=1\\,2,b=3", {{"a", "1\\,2"}, {"b", "3"}}}, // the backslash stays
         row{"a=\\'1,b=3", {{"a", "\\'1"}, {"b", "3"}}},
         row{"a='1\\',2',b=3", {{"a", "1\\',2"}, {"b", "3"}}},
         row{"a=1\\", {{"a", "1\\"}}},
         row{"a=\\[1,b=2", {{"a", "\\[1"}, {"b", "2"}}},
       }) {
    CAPTURE(text);
    auto read = read_extra_args(text);
    CHECK(read.flags == flags);
    CHECK(read.warnings.size() == warnings);
  }
}

TEST_CASE("durations are read as Go writes them") {
  using row = std::pair<const char*, std::chrono::microseconds>;
  for (auto [text, value] :
       {row{"1s", 1s}, row{"1m30s", 90s}, row{"500ms", 500ms}, row{"1.5h", 90min}, row{"0", 0s},
        row{"0s", 0s}, row{"+2s", 2s}, row{"0.1s", 100ms}, row{"1h0m0.5s", 3600500ms},
        row{"1us", 1ms}, row{"1000us", 1ms}, row{"1\u00b5s", 1ms}, row{"2000000ns", 2ms},
        row{".5s", 500ms}, row{"1.s", 1s}}) {
    CAPTURE(text);
    milliseconds read{-1};
    CHECK(parse_go_duration(text, read));
    CHECK(read == value);
  }
  for (auto text :
       {"", "1", "s", "1x", "1s1", "-1s", "1 s", "1s ", "1..5s", "99999999999999999h", "+", "nan",
        "infs", "1e3s"}) {
    CAPTURE(text);
    milliseconds read{};
    CHECK_FALSE(parse_go_duration(text, read));
  }
}

TEST_CASE("flags in the manner of Go are taken") {
  struct row {
    words given, own;
  };
  for (const auto& [given, own] : {
         row{{"gateway"}, {"gateway"}},
         row{{"--port", "80"}, {"--flag", "port=80"}},
         row{{"-port", "80"}, {"--flag", "port=80"}},
         row{{"--port=80"}, {"--flag", "port=80"}},
         row{{"-port=80"}, {"--flag", "port=80"}},
         row{
           {"--discovery-redis-password=", "--port=1"},
           {"--flag", "discovery-redis-password=", "--flag", "port=1"}},
         row{{"--discovery-redis-password", "-a=b"}, {"--flag", "discovery-redis-password=-a=b"}},
         row{{"--forward-tokens"}, {"--flag", "forward-tokens=true"}},
         row{{"--forward-tokens=false"}, {"--flag", "forward-tokens=false"}},
         row{
           {"--forward-tokens", "--port", "1"},
           {"--flag", "forward-tokens=true", "--flag", "port=1"}},
         row{{"-v", "4"}, {"--flag", "v=4"}},
         row{{"-v=4"}, {"--flag", "v=4"}},
         row{{"--extra-args", "a=1,b=2"}, {"--flag", "extra-args=a=1,b=2"}},
         row{{"--port"}, {"--port"}},
         row{{"--set", "a.b=c", "--port", "1"}, {"--set", "a.b=c", "--flag", "port=1"}},
         row{{"-set", "a.b=c"}, {"--set", "a.b=c"}},
         row{{"-help"}, {"--help"}},
         row{{"-h"}, {"-h"}},
         row{{"--prot", "1"}, {"--prot", "1"}},
         row{{"---port", "1"}, {"---port", "1"}},
         row{{"-", "=", ""}, {"-", "=", ""}},
         row{{"--", "--port", "1"}, {"--", "--port", "1"}},
       }) {
    CAPTURE(given);
    CHECK(without_go_style(gateway_flags(), given) == own);
  }
}

} // namespace llumnix
