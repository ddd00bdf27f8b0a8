#include "integrations/mooncake/metadata_messages.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace llumnix::mooncake;

namespace {

using names = std::vector<std::string>;
using lists = std::vector<names>;

const names two{"k1", "k 2"};

std::string data(const std::string& text) {
  return R"({"success":true,"data":)" + text + "}";
}

std::string k1(const std::string& text) {
  return data(R"({"k1":)" + text + "}");
}

} // namespace

TEST_CASE("what is no answer is refused") {
  struct row {
    std::string body;
    errc code;
  };
  const row rows[]{
    {"", errc::bad_message},
    {"nonsense", errc::bad_message},
    {"{", errc::bad_message},
    {"{} {}", errc::bad_message},
    {"\xff\xfe", errc::bad_message},
    {"[]", errc::bad_message},
    {"true", errc::bad_message},
    {std::string(1000, '['), errc::bad_message},
    {data(std::string(1000, '[') + std::string(1000, ']')), errc::bad_message},
    {R"({"success":"true","data":{}})", errc::bad_message},
    {R"({"success":1,"data":{}})", errc::bad_message},
    {data("[]"), errc::bad_message},
    {data("\"k1\""), errc::bad_message},
    {k1("[]"), errc::bad_message},
    {k1("7"), errc::bad_message},
    {k1(R"({"ok":true,"values":{}})"), errc::bad_message},
    {k1(R"({"ok":true,"values":"10.0.0.1:1"})"), errc::bad_message},
    {k1(R"({"ok":true,"values":[null]})"), errc::bad_message},
    {k1(R"({"ok":true,"values":["10.0.0.1:1"]})"), errc::bad_message},
    {k1(R"({"ok":true,"values":[{"transport_endpoint_":7}]})"), errc::bad_message},
    {"{}", errc::internal},
    {R"({"success":false})", errc::internal},
    {R"({"success":null,"data":{}})", errc::internal},
    {R"({"success":false,"data":{"k1":{"values":[{"transport_endpoint_":"10.0.0.1:1"}]}}})",
     errc::internal}};
  for (const auto& [body, code] : rows) {
    CAPTURE(body);
    auto read = read_holders(body, two);
    REQUIRE(!read);
    CHECK(read.error().code == code);
  }
}

TEST_CASE("the holders of each key are the hosts of its replicas") {
  auto at = [](const std::string& text) { return R"({"transport_endpoint_":)" + text + "}"; };
  struct row {
    std::string body;
    lists holders;
  };
  const row rows[]{
    {data("{}"), {{}, {}}},
    {data("null"), {{}, {}}},
    {R"({"success":true})", {{}, {}}},
    {k1("null"), {{}, {}}},
    {k1("{}"), {{}, {}}},
    {k1(R"({"ok":false,"values":null})"), {{}, {}}},
    {k1(R"({"ok":false,"values":[)" + at("\"10.0.0.1:17001\"") + "]}"), {{"10.0.0.1"}, {}}},
    {k1(R"({"values":[)" + at("\"\"") + "," + at("\":80\"") + "," + at("null") + ",{}]}"),
     {{}, {}}},
    {k1(R"({"values":[)" + at("\"10.0.0.1\"") + "]}"), {{"10.0.0.1"}, {}}},
    {k1(R"({"values":[)" + at("\"" + std::string(254, 'h') + ":1\"") + "]}"), {{}, {}}},
    {data(
       R"({"k 2":{"ok":true,"values":[)" + at("\"b:1:2\"") + "," + at("\"a:1\"") + ","
       + at("\"a:2\"")
       + R"(]},"unasked":[],"k1":{"values":[{"buffers":[[1]],"transport_endpoint_":"c:1"}]}})"),
     {{"c"}, {"b", "a", "a"}}},
    {data(
       R"({"k1":{"values":[)" + at("\"a:1\"") + R"(]},"k1":{"values":[)" + at("\"b:1\"") + "]}}"),
     {{"b"}, {}}}};
  for (const auto& [body, holders] : rows) {
    CAPTURE(body);
    auto read = read_holders(body, two);
    REQUIRE(read);
    CHECK(*read == holders);
  }
}

TEST_CASE("keys are encoded as in a form, their separators are not") {
  struct row {
    names keys;
    std::size_t bytes;
    std::string target;
    std::size_t taken;
  };
  const row rows[]{
    {{"aZ09-_.~"}, 1000, "/batch_query_keys?keys=aZ09-_.~", 1},
    {{"a b", "c,d", "e/%+\xc3\xbc"}, 1000, "/batch_query_keys?keys=a+b,c%2Cd,e%2F%25%2B%C3%BC", 3},
    {{"aaa", "bbb", "ccc"}, 30, "/batch_query_keys?keys=aaa,bbb", 2}, // to the byte
    {{"aaa", "bbb", "ccc"}, 29, "/batch_query_keys?keys=aaa", 1},
    {{"aaa", "bbb", "ccc"}, 0, "/batch_query_keys?keys=aaa", 1}};
  for (const auto& [keys, bytes, target, taken] : rows) {
    auto made = ask_holders(keys, bytes);
    CHECK(made.target == target);
    CHECK(made.keys == taken);
  }
}
