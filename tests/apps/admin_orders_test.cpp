#include "apps/admin_orders.hpp"

#include <doctest/doctest.h>

namespace llumnix {

using namespace std::chrono_literals;

TEST_CASE("a migrate body that is not what it should be is told its path") {
  struct row {
    std::string body;
    std::string message;
  };
  std::vector<row> rows{
    {"", "the body is no JSON"},
    {"{", "the body is no JSON"},
    {R"({"request":"r","to":"b"} x)", "the body is no JSON"},
    {std::string(60000, '['), "the body is no JSON"},
    {"[]", "the body is one JSON object"},
    {"7", "the body is one JSON object"},
    {"{}", "to: is missing: the instance that takes them"},
    {R"({"request":"r"})", "to: is missing: the instance that takes them"},
    {R"({"to":"b"})", "request: is missing: give the request to be moved, or `from`, an instance"},
    {R"({"request":"r","from":"a","to":"b"})",
     "from: does not go with `request`; give one of them"},
    {R"({"request":"r","to":"b","too":1})", "too: no such field; did you mean to?"},
    {R"({"from":"a","to":"b","num_request":1})",
     "num_request: no such field; did you mean num_requests?"},
    {R"({"request":"r","to":"b","force":true})", "force: no such field"},
    {R"({"request":"r","to":"b","to":"c"})", "to: is given twice; keep one of them"},
    {R"({"request":7,"to":"b"})", "request: is no text"},
    {R"({"request":null,"to":"b"})", "request: is no text"},
    {R"({"request":"","to":"b"})", "request: is empty"},
    {R"({"request":"r","to":["b"]})", "to: is no text"},
    {R"({"request":"r","to":")" + std::string(257, 'x') + R"("})", "to: is longer than 256 bytes"},
    {R"({"request":"r","to":"b","num_requests":1})",
     "num_requests: chooses among requests; it goes with `from`, not with `request`"},
    {R"({"request":"r","to":"b","policy":"SR"})",
     "policy: chooses among requests; it goes with `from`, not with `request`"},
    {R"({"from":"a","to":"b","policy":"XX"})",
     "policy: is none of LCR, FCR, LR, SR, FCW, FCWSR, LPSR"},
    {R"({"from":"a","to":"b","policy":1})",
     "policy: is none of LCR, FCR, LR, SR, FCW, FCWSR, LPSR"},
  };
  for (const char* value :
       {"0", "-2", "1.5", "1e3", "\"1\"", "true", "null", "1000000001", "18446744073709551615",
        "-9223372036854775808", "1e999"})
    rows.push_back(
      {std::string{R"({"from":"a","to":"b","num_requests":)"} + value + "}",
       value == std::string{"1e999"} ? "the body is no JSON"
                                     : "num_requests: is no whole number from 1 to 1000000000, and "
                                       "not -1, which stands for all"});
  for (const char* value : {"0", "-1", "1.5", "\"9\""})
    rows.push_back(
      {std::string{R"({"from":"a","to":"b","num_tokens":)"} + value + "}",
       "num_tokens: is no whole number from 1 to 1000000000"});
  for (const char* value : {"0", "-0.5", "1.01", "\"1\"", "1e300"})
    rows.push_back(
      {std::string{R"({"from":"a","to":"b","kv_ratio":)"} + value + "}",
       "kv_ratio: is no number above 0, up to 1"});
  rows.push_back(
    {R"({"from":"a","to":"b","num_requests":1,"kv_ratio":0.5})",
     "kv_ratio: does not go with num_requests"});
  for (const auto& [body, message] : rows) {
    CAPTURE(body.substr(0, 100));
    auto read = read_migrate_body(body);
    REQUIRE(!read);
    CHECK(read.error().code == errc::invalid_argument);
    CHECK(read.error().context == message);
  }
}

TEST_CASE("a request is named by either form of its id") {
  for (const char* id : {"sea", "chatcmpl-sea", "cmpl-sea"}) {
    auto read = read_migrate_body(std::string{R"({"to":"engine-1","request":")"} + id + "\"}");
    REQUIRE(read);
    const auto& order = std::get<order_msg::move_request>(read->order);
    CHECK(order.request == "sea");
    CHECK(order.to == "engine-1");
  }
}

TEST_CASE("a selection is the shortest request unless something else is said") {
  using rule = selection_rule;
  using order = selection_order;
  struct row {
    const char* more;
    request_selection expected;
  };
  for (const auto& [more, expected] : std::vector<row>{
         {"", {rule::requests, order::shortest_running, 1}},
         {R"(,"num_requests":3)", {rule::requests, order::shortest_running, 3}},
         {R"(,"num_requests":-1,"policy":"LR")", {rule::requests, order::longest_running, -1}},
         {R"(,"num_tokens":1024,"policy":"FCW")", {rule::tokens, order::earliest_waiting, 1024}},
         {R"(,"kv_ratio":0.25)", {rule::kv_ratio, order::shortest_running, 0.25}},
         {R"(,"kv_ratio":1)", {rule::kv_ratio, order::shortest_running, 1}}}) {
    CAPTURE(more);
    auto read = read_migrate_body(std::string{R"({"from":"a","to":"b")"} + more + "}");
    REQUIRE(read);
    const auto& some = std::get<order_msg::move_some>(read->order);
    CHECK(some.from == "a");
    CHECK(some.to == "b");
    CHECK(some.selection == expected);
  }
}

TEST_CASE("a drain's query is its timeout and nothing else") {
  for (const auto& [query, message] : std::vector<std::pair<const char*, const char*>>{
         {"timout=3s", "timout: no such field; did you mean timeout?"},
         {"x", "x: no such field"},
         {"timeout", "timeout: is no duration above 0; write it like 250ms, 10s or 2m"},
         {"timeout=", "timeout: is no duration above 0; write it like 250ms, 10s or 2m"},
         {"timeout=3", "timeout: is no duration above 0; write it like 250ms, 10s or 2m"},
         {"timeout=-3s", "timeout: is no duration above 0; write it like 250ms, 10s or 2m"},
         {"timeout=0s", "timeout: is no duration above 0; write it like 250ms, 10s or 2m"},
         {"timeout=25h", "timeout: is longer than 24h"},
         {"timeout=3s&timeout=4s", "timeout: is given twice; keep one of them"}}) {
    CAPTURE(query);
    auto read = read_drain_query(query);
    REQUIRE(!read);
    CHECK(read.error().context == message);
  }
  for (const auto& [query, expected] :
       std::vector<std::pair<const char*, std::chrono::milliseconds>>{
         {"", 60s},
         {"&", 60s},
         {"timeout=250ms", 250ms},
         {"timeout=24h", 24h},
         {"timeout=1%30s&", 10s}}) {
    CAPTURE(query);
    auto read = read_drain_query(query);
    REQUIRE(read);
    CHECK(*read == expected);
  }
}

TEST_CASE("where no body is wanted none is taken") {
  CHECK(read_no_body(""));
  CHECK(read_no_body(" {} "));
  for (auto body : {"x", "[]", R"({"timeout":"3s"})"})
    CHECK(!read_no_body(body));
}

TEST_CASE("a host names a loopback address by its port and a name of loopback") {
  struct row {
    const char* address;
    const char* host;
    bool names;
  };
  for (const auto& [address, host, names] : std::vector<row>{
         {"127.0.0.1:8090", "127.0.0.1:8090", true},
         {"127.0.0.1:8090", "localhost:8090", true},
         {"127.0.0.1:8090", "LocalHost:8090", true},
         {"127.0.0.1:8090", "[::1]:8090", true},
         {"[::1]:8090", "localhost:8090", true},
         {"127.0.0.1:80", "localhost", true},
         {"127.0.0.1:8090", "", false},
         {"127.0.0.1:8090", "127.0.0.1", false},
         {"127.0.0.1:8090", "127.0.0.1:8091", false},
         {"127.0.0.1:8090", "evil.example:8090", false},
         {"127.0.0.1:8090", "127.evil.example:8090", false},
         {"127.0.0.1:8090", "localhost.evil.example:8090", false},
         {"127.0.0.1:8090", "10.0.0.1:8090", false},
         {"0.0.0.0:8090", "llumnix.default.svc:80", true}, // there the key speaks
       }) {
    CAPTURE(address);
    CAPTURE(host);
    CHECK(names_address(host, address) == names);
  }
}

TEST_CASE("JSON is told by its type, whatever follows") {
  for (auto type :
       {"application/json", "Application/JSON", "application/json; charset=utf-8",
        "application/json ;x"})
    CHECK(is_json(type));
  for (auto type :
       {"", "text/plain", "application/jsonp", "application/x-www-form-urlencoded",
        "text/plain; application/json"})
    CHECK(!is_json(type));
}

} // namespace llumnix
