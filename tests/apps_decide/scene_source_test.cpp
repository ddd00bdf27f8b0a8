#include "apps/decide/scene_source.hpp"

#include <doctest/doctest.h>

#include <sstream>
#include <vector>

namespace llumnix {

namespace {

std::vector<std::string> texts_in(const std::string& file, std::size_t size_max = 100) {
  std::istringstream from{file};
  scene_source source{from, size_max};
  std::vector<std::string> texts;
  while (auto text = source.next())
    texts.push_back(*text);
  return texts;
}

using texts = std::vector<std::string>;

} // namespace

TEST_CASE("a file is one scene if it is one JSON value, else a scene a line") {
  struct row {
    std::string file;
    texts expected;
  };
  const std::vector<row> rows{
    {"", {}},
    {"\n \r\n", {}},
    {"{}", {"{}"}},
    {"{}\n", {"{}"}},
    {"{}\n\n{}", {"{}", "{}"}},
    {"{\n\"a\": 1\n}\n", {"{\n\"a\": 1\n}"}},
    {"[\n{},\n{}\n]", {"[\n{},\n{}\n]"}}, // one value, though none that is a scene
    {"{}\nbad\n{}", {"{}", "bad", "{}"}},
    {"bad\n{}", {"bad", "{}"}},                             // the first line may be the bad one
    {"{\"a\": \n{\"b\": 1}\n", {"{\"a\": ", "{\"b\": 1}"}}, // cut off
    {"{\n  \"a\": 1,\n}", {"{\n  \"a\": 1,\n}"}},           // a mistake in a scene over lines
    {"{}\r\n{}\r\n", {"{}\r", "{}\r"}},
  };
  for (auto& [file, expected] : rows) {
    CAPTURE(file);
    CHECK(texts_in(file) == expected);
  }
}

TEST_CASE("a text that is too long comes cut, and the others whole") {
  std::string digits(1000, '1');
  CHECK(texts_in("{}\n" + digits + "\n{}", 10) == texts{"{}", digits.substr(0, 11), "{}"});
  CHECK(texts_in(digits + "x\n{}\n{}", 10) == texts{digits.substr(0, 11), "{}", "{}"});
  CHECK(texts_in("{\n" + digits + "\n" + digits, 10) == texts{"{\n" + digits.substr(0, 9)});
}

} // namespace llumnix
