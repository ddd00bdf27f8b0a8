#include "integrations/discovery/base64.hpp"
#include "integrations/discovery/etcd_messages.hpp"
#include "integrations/discovery/etcd_reading.hpp"
#include "integrations/discovery/pod_ledger.hpp"
#include "integrations/discovery/pod_record.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace llumnix {
namespace {

using nlohmann::json;
using text = std::string;

etcd::record at(text pod, std::int64_t revision = 1, text value = "v") {
  return {"llumnix/discovery/" + pod, std::move(value), revision};
}

} // namespace

// "llumnix/discovery/" and what follows all that begin so, "llumnix/discovery0".
TEST_CASE("etcd is asked in its own words") {
  const json records{
    {"key", "bGx1bW5peC9kaXNjb3Zlcnkv"}, {"range_end", "bGx1bW5peC9kaXNjb3Zlcnkw"}};
  auto with = [&](json more) {
    auto all = records;
    all.update(more);
    return all;
  };
  CHECK(json::parse(etcd::range_request("", 64, 0)) == with({{"limit", "64"}}));
  CHECK(
    json::parse(etcd::range_request("k", 1, 7))
    == with({{"key", "aw=="}, {"limit", "1"}, {"revision", "7"}}));
  CHECK(
    json::parse(etcd::probe_request())
    == with(
      {{"limit", "1"}, {"keys_only", true}, {"sort_order", "DESCEND"}, {"sort_target", "MOD"}}));
  CHECK(
    json::parse(etcd::watch_request(8))
    == json{
      {"create_request",
       with({{"start_revision", "8"}, {"progress_notify", true}, {"fragment", true}})}});
  CHECK(
    json::parse(etcd::authenticate_request("u\"", "p\\\n"))
    == json{{"name", "u\""}, {"password", "p\\\n"}});
  CHECK_NOTHROW(etcd::authenticate_request("\xff", "\xfe")); // no text, but whoever wants it
}

// Answers of etcd 3.4.23, but for their header's ids.
TEST_CASE("what etcd answers is understood") {
  auto range = etcd::read_range(
    R"({"header":{"cluster_id":"4586","member_id":"1005","revision":"1","raft_term":"2"}})");
  REQUIRE(range);
  CHECK(range->revision == 1);
  CHECK(range->records.empty());
  CHECK(range->count == 0);
  CHECK_FALSE(range->more);
  range = etcd::read_range(
    R"({"header":{"revision":"9"},"kvs":[{"key":"bGx1bW5peC9kaXNjb3ZlcnkvcDE=","create_revision":"2","mod_revision":"5","version":"4","value":"YWJj"},{"key":"aw==","mod_revision":"9","version":"1"}],"more":true,"count":"3"})");
  REQUIRE(range);
  CHECK(range->revision == 9);
  CHECK(range->more);
  CHECK(range->count == 3);
  REQUIRE(range->records.size() == 2);
  CHECK(range->records[0].key == "llumnix/discovery/p1");
  CHECK(range->records[0].value == "abc");
  CHECK(range->records[0].revision == 5);
  CHECK(range->records[1].value.empty());

  auto line = etcd::read_watch(R"({"result":{"header":{"revision":"2"},"created":true}})");
  REQUIRE(line);
  CHECK(line->created);
  CHECK(line->changes.empty());
  line = etcd::read_watch(
    R"({"result":{"header":{"revision":"3"},"events":[{"kv":{"key":"aw==","mod_revision":"2","value":"YWJj"}},{"type":"PUT","kv":{"key":"aw==","value":""}},{"type":"DELETE","kv":{"key":"aw==","mod_revision":"3"}}]}})");
  REQUIRE(line);
  REQUIRE(line->changes.size() == 3);
  CHECK_FALSE(line->changes[0].removed);
  CHECK(line->changes[0].what.value == "abc");
  CHECK_FALSE(line->changes[1].removed);
  CHECK(line->changes[2].removed);
  CHECK(line->changes[2].what.revision == 3);
  line = etcd::read_watch(
    R"({"result":{"header":{"raft_term":"2"},"canceled":true,"compact_revision":"3"}})");
  REQUIRE(line);
  CHECK(line->canceled);
  CHECK(line->compact_revision == 3);
  line = etcd::read_watch(R"({"error":{"grpc_code":14,"http_code":503,"message":"no\nleader"}})");
  REQUIRE(!line);
  CHECK(line.error() == error{errc::internal, "etcd says: no\\x0aleader"});

  CHECK(*etcd::read_token(R"({"header":{},"token":"abc.7"})") == "abc.7");
  CHECK(
    etcd::read_refusal(400, R"({"error":"etcdserver: x","message":"etcdserver: x","code":11})")
    == "status 400: etcdserver: x");
  CHECK(etcd::read_refusal(502, "<html>") == "status 502");
  CHECK(etcd::read_refusal(500, "[]") == "status 500");
}

TEST_CASE("what no etcd answers is no answer") {
  const char* ranges[] = {
    "",
    "{",
    "[]",
    "null",
    "7",
    "\"x\"",
    "{}",
    R"({"header":{}})",
    R"({"header":7})",
    R"({"header":{"revision":"0"}})",
    R"({"header":{"revision":"-1"}})",
    R"({"header":{"revision":"1x"}})",
    R"({"header":{"revision":1.5}})",
    R"({"header":{"revision":"99999999999999999999"}})",
    R"({"header":{"revision":"1"},"kvs":{}})",
    R"({"header":{"revision":"1"},"kvs":[7]})",
    R"({"header":{"revision":"1"},"kvs":[{"key":"?"}]})",
    R"({"header":{"revision":"1"},"kvs":[{"key":"aw==","value":"a"}]})",
    R"({"header":{"revision":"1"},"kvs":[{"key":7}]})",
    R"({"header":{"revision":"1"},"kvs":[{"key":"aw==","mod_revision":[]}]})",
    R"({"header":{"revision":"1"},"more":"yes"})",
    R"({"header":{"revision":"1"},"count":{}})",
    "{\"header\":{\"revision\":\"1\"}}x",
    "\xff\xfe"};
  for (const text body : ranges) {
    CAPTURE(body);
    auto reply = etcd::read_range(body);
    REQUIRE(!reply);
    CHECK(reply.error().code == errc::bad_message);
  }
  const char* lines[] = {
    "",
    "{",
    "[]",
    "{}",
    R"({"result":7})",
    R"({"result":{"events":{}}})",
    R"({"result":{"events":[{}]}})",
    R"({"result":{"events":[{"type":"PUT"}]}})",
    R"({"result":{"events":[{"type":"EAT","kv":{"key":"aw=="}}]}})",
    R"({"result":{"events":[{"type":1,"kv":{"key":"aw=="}}]}})",
    R"({"result":{"events":[{"kv":{"key":"!"}}]}})",
    R"({"result":{"canceled":1}})",
    R"({"result":{"compact_revision":"x"}})"};
  for (const text line : lines) {
    CAPTURE(line);
    auto reply = etcd::read_watch(line);
    REQUIRE(!reply);
    CHECK(reply.error().code == errc::bad_message);
  }
  const text tokens[] = {
    "",
    "[]",
    "{}",
    R"({"token":""})",
    R"({"token":7})",
    R"({"token":"a\r\nx: y"})",
    R"({"token":"a b"})",
    R"({"token":")" + text(5000, 'a') + "\"}"};
  for (const auto& body : tokens) {
    CAPTURE(body);
    CHECK_FALSE(etcd::read_token(body));
  }
  CHECK_FALSE(etcd::read_range(text(100000, '[')));
  CHECK_FALSE(etcd::read_watch(text(100000, '{')));
}

TEST_CASE("records are read page by page as of one revision") {
  etcd_reading reading;
  CHECK(reading.next() == etcd::range_request("", 64, 0));
  auto last = reading.take({10, {at("a", 3), at("b", 9)}, true, 3});
  REQUIRE(last);
  CHECK_FALSE(*last);
  CHECK(reading.next() == etcd::range_request(text{"llumnix/discovery/b\0", 20}, 64, 10));
  last = reading.take({12, {at("c", 5)}, false, 1});
  REQUIRE(last);
  CHECK(*last);
  CHECK(reading.revision == 10);
  CHECK(reading.newest == 9);
  CHECK(reading.bytes_of_pod == std::map<text, text>{{"a", "v"}, {"b", "v"}, {"c", "v"}});
  CHECK(reading.problems.empty());
}

TEST_CASE("a page that does not go on where the last one ended is refused") {
  const std::vector<etcd::record> rows[] = {
    {}, // and more to come
    {at("b")},
    {at("a")},
    {at("d"), at("c")},
    {at("d"), at("d")},
    {{"llumnix/discovery0", "v", 1}},
    {{"other", "v", 1}},
    std::vector<etcd::record>(65, at("c")),
  };
  for (const auto& page : rows) {
    etcd_reading reading;
    REQUIRE(reading.take({10, {at("b")}, true, 9}));
    auto last = reading.take({10, page, true, 9});
    REQUIRE(!last);
    CHECK(last.error().code == errc::bad_message);
  }
}

TEST_CASE("pages shrink where they are too long, and grow again") {
  etcd_reading reading;
  for (std::size_t records : {8, 1}) {
    CHECK(reading.shrink());
    CHECK(reading.next() == etcd::range_request("", records, 0));
  }
  CHECK_FALSE(reading.shrink());
  REQUIRE(reading.take({10, {at("a")}, true, 9}));
  CHECK(reading.next() == etcd::range_request(text{"llumnix/discovery/a\0", 20}, 2, 10));
}

TEST_CASE("what a reading keeps is bounded") {
  etcd_reading reading;
  REQUIRE(reading.take(
    {10, {at("", 1), at("a", 1, text(1 << 20, 'x')), at(text(600, 'n'), 1)}, false, 9}));
  CHECK(reading.bytes_of_pod.size() == 1);
  CHECK(reading.bytes_of_pod["a"].size() == record_bytes_max + 1); // too long all the same
  CHECK(reading.problems.size() == 2);

  etcd_reading endless;
  std::size_t pages = 0;
  for (bool last = false; !last; ++pages) {
    std::vector<etcd::record> page;
    for (int i = 0; i < 64; ++i)
      page.push_back(at("p" + std::to_string(1'000'000 + pages * 64) + std::to_string(100 + i)));
    auto taken = endless.take({10, std::move(page), true, 1 << 20});
    REQUIRE(taken);
    last = *taken;
  }
  CHECK(pages == records_max / 64);
  CHECK(endless.problems.size() == 1);
}

TEST_CASE("a watch is doubted when probes know more than it told, for longer than a moment") {
  struct probe {
    std::int64_t newest_there;
    std::size_t count_there;
    std::int64_t newest_told;
    std::size_t count_told;
  };
  struct row {
    const char* what;
    std::vector<probe> probes;
    std::size_t lags_at; // index; the size: never
  };
  const row rows[] = {
    {"agrees", {{5, 2, 5, 2}, {6, 2, 6, 2}, {6, 2, 6, 2}}, 3},
    {"ahead of the probe", {{5, 2, 7, 2}, {7, 2, 9, 2}}, 2},
    {"a moment behind", {{7, 2, 5, 2}, {9, 2, 7, 2}, {11, 2, 9, 2}}, 3},
    {"silent", {{5, 2, 5, 2}, {7, 2, 5, 2}, {7, 2, 5, 2}}, 2},
    {"a removal is missing", {{5, 2, 5, 2}, {5, 1, 5, 2}, {5, 1, 5, 2}, {5, 1, 5, 2}}, 3},
    {"a removal is late", {{5, 1, 5, 2}, {5, 1, 5, 2}, {5, 1, 5, 1}, {5, 0, 5, 1}}, 4},
    {"the newest is removed", {{9, 2, 9, 2}, {5, 1, 9, 1}, {5, 1, 9, 1}}, 3},
  };
  for (const auto& [what, probes, lags_at] : rows) {
    CAPTURE(what);
    watch_doubt doubt;
    std::size_t at = 0;
    while (at < probes.size()
           && !doubt.lags(
             probes[at].newest_there, probes[at].count_there, probes[at].newest_told,
             probes[at].count_told))
      ++at;
    CHECK(at == lags_at);
  }
}

} // namespace llumnix
