#include "integrations/discovery/pod_record.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace llumnix {
namespace {

using text = std::string;

text from_hex(std::string_view hex) {
  text bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(text{hex.substr(i, 2)}, nullptr, 16));
  return bytes;
}

pod_instance good(std::int32_t rank = 0, std::int32_t size = 2) {
  return {"neutral", "10.0.0.1", 8000 + rank, "10.0.0.2", 9000, rank, size, "m", 1};
}

} // namespace

// Written by the reference's own sidecar.
TEST_CASE("recorded records are read and written byte for byte") {
  struct row {
    text hex;
    pod_record record;
  };
  const row rows[] = {
    {"0a05706f642d3018fbd095ffbc31222a0a076e65757472616c120831302e302e302e3118c03e220831302e302e302"
     "e"
     "3128a846380142016d4801",
     {"pod-0", 1700000000123, {{"neutral", "10.0.0.1", 8000, "10.0.0.1", 9000, 0, 1, "m", 1}}}},
    {"0a0970726566696c6c2d3018fbd095ffbc3122270a0770726566696c6c120831302e302e302e3218c03e220831302"
     "e"
     "302e302e3228a8463802480122290a0770726566696c6c120831302e302e302e3218c13e220831302e302e302e322"
     "8"
     "a846300138024801",
     {"prefill-0",
      1700000000123,
      {{"prefill", "10.0.0.2", 8000, "10.0.0.2", 9000, 0, 2, "", 1},
       {"prefill", "10.0.0.2", 8001, "10.0.0.2", 9000, 1, 2, "", 1}}}},
    {"0a05706f642d3218fbd095ffbc31", {"pod-2", 1700000000123, {}}},
  };
  for (const auto& [hex, record] : rows) {
    CAPTURE(record.pod_name);
    auto decoded = decode_pod_record(from_hex(hex));
    REQUIRE(decoded);
    CHECK(*decoded == record);
    CHECK(encode(record) == from_hex(hex));
  }
}

TEST_CASE("a record tells of engines") {
  pod_record record{
    "prefill-0",
    1,
    {{"prefill", "fd00::2", 8000, "fd00::3", 9000, 0, 2, "m", 7},
     {"prefill", "fd00::2", 8001, "", 9000, 1, 2, "", 0}}};
  auto found = engines_of("prefill-0", record);
  CHECK(found.problems.empty());
  REQUIRE(found.engines.size() == 2);
  CHECK(
    found.engines[0]
    == discovered_engine{
      "prefill-0_dp0", "[fd00::2]:8000", "prefill", "m", "[fd00::3]:9000", 0, 2, 7});
  CHECK(
    found.engines[1]
    == discovered_engine{"prefill-0_dp1", "[fd00::2]:8001", "prefill", "", "", 1, 2, 0});
  record.instances = {{"decode", "10.0.0.1", 1, "", 0, 0, 0, "", 0}}; // no dp_size
  found = engines_of("prefill-0", record);
  REQUIRE(found.engines.size() == 1);
  CHECK(found.engines[0].dp_size == 1);
}

TEST_CASE("an instance that is no engine harms no sibling") {
  using change = void (*)(pod_instance&);
  const std::pair<const char*, change> rows[] = {
    {"no type", [](pod_instance& x) { x.instance_type.clear(); }},
    {"odd type", [](pod_instance& x) { x.instance_type = "Neutral"; }},
    {"no address", [](pod_instance& x) { x.entrypoint_ip.clear(); }},
    {"odd address", [](pod_instance& x) { x.entrypoint_ip = "10.0.0.1/x\r\n"; }},
    {"no port", [](pod_instance& x) { x.entrypoint_port = 0; }},
    {"negative port", [](pod_instance& x) { x.entrypoint_port = -8000; }},
    {"port", [](pod_instance& x) { x.entrypoint_port = 65536; }},
    {"KV port", [](pod_instance& x) { x.kv_transfer_port = 1 << 30; }},
    {"KV address", [](pod_instance& x) { x.kv_transfer_ip = "a b"; }},
    {"negative rank", [](pod_instance& x) { x.dp_rank = -1; }},
    {"rank", [](pod_instance& x) { x.dp_rank = 2; }},
    {"same rank", [](pod_instance& x) { x.dp_rank = 0; }},
    {"negative size", [](pod_instance& x) { x.dp_size = -1; }},
    {"size", [](pod_instance& x) { x.dp_size = 1025; }},
    {"model", [](pod_instance& x) { x.model = text(513, 'm'); }},
    {"no text", [](pod_instance& x) { x.model = "\xff\xfe"; }},
    {"lines", [](pod_instance& x) { x.model = "a\nb"; }},
  };
  for (const auto& [name, spoil] : rows) {
    CAPTURE(name);
    pod_record record{"p", 1, {good(0), good(1)}};
    spoil(record.instances[1]);
    auto decoded = decode_pod_record(encode(record));
    REQUIRE(decoded);
    auto found = engines_of("p", *decoded);
    REQUIRE(found.engines.size() == 1);
    CHECK(found.engines[0].id == "p_dp0");
    REQUIRE(found.problems.size() == 1);
    CHECK(std::all_of(found.problems[0].begin(), found.problems[0].end(), [](char c) {
      return c >= ' ' && c < 0x7f;
    }));
  }
}

TEST_CASE("bytes that are no record, and instances that are none") {
  const auto whole = encode({"p", 1, {good()}});
  CHECK(decode_pod_record(""));                        // all zero
  for (std::size_t cut = 1; cut < whole.size(); ++cut) // ends within a field, or between two
    if (auto decoded = decode_pod_record(whole.substr(0, cut)))
      CHECK(decoded->instances.empty());
    else
      CHECK(decoded.error().code == errc::bad_message);
  CHECK_FALSE(decode_pod_record("\xff\xff\xff"));
  CHECK_FALSE(decode_pod_record("hello"));
  CHECK(decode_pod_record(text(record_bytes_max + 1, '\0')).error().code == errc::too_long);

  // Unknown fields at both levels: number 2, unused, and number 15.
  auto more = text{"\x12\x03"} + "abc" + whole + "\x7a\x01x";
  auto decoded = decode_pod_record(more);
  REQUIRE(decoded);
  CHECK(*decoded == pod_record{"p", 1, {good()}});

  // An instance that is no message, between two that are.
  auto pod = [](const text& pieces) { return text{"\x0a\x01p"} + pieces; };
  auto piece
    = [](const text& bytes) { return "\x22" + text(1, static_cast<char>(bytes.size())) + bytes; };
  const text fine = from_hex("0a076e65757472616c120831302e302e302e3118c03e"); // rank 0
  const text second = fine + from_hex("30013802");                            // rank 1 of 2
  decoded = decode_pod_record(pod(piece(fine) + piece("\xff\xff") + piece(second)));
  REQUIRE(decoded);
  CHECK(decoded->instances.size() == 2);
  CHECK(decoded->unreadable == 1);
  auto found = engines_of("p", *decoded);
  CHECK(found.engines.size() == 2);
  REQUIRE(found.problems.size() == 1);
  CHECK(found.problems[0] == "1 instances cannot be read");
}

TEST_CASE("what a record claims is bounded") {
  pod_record record{"p", 1, {}};
  for (int i = 0; i < 1030; ++i)
    record.instances.push_back({"neutral", "10.0.0.1", 1 + i, "", 0, i, 1024, "", 0});
  auto decoded = decode_pod_record(encode(record));
  REQUIRE(decoded);
  CHECK(decoded->instances.size() == pod_instances_max);
  CHECK(decoded->unreadable == 6);
  auto found = engines_of("p", *decoded);
  CHECK(found.engines.size() == pod_instances_max);

  decoded = decode_pod_record(text(record_bytes_max, '\x22')); // lengths 34, and a cut one
  CHECK(!decoded);
  text empty_ones;
  for (std::size_t i = 0; i < record_bytes_max / 2; ++i)
    empty_ones += text{"\x22\0", 2};
  decoded = decode_pod_record(empty_ones);
  REQUIRE(decoded);
  CHECK(decoded->instances.size() == pod_instances_max);
  found = engines_of("p", *decoded);
  CHECK(found.engines.empty());
  CHECK(found.problems.size() <= 16);
}

TEST_CASE("a pod goes by the name of its key") {
  pod_record record{"other\n", 1, {good()}};
  auto found = engines_of("p", record);
  REQUIRE(found.engines.size() == 1);
  CHECK(found.engines[0].id == "p_dp0");
  CHECK(
    found.problems == std::vector<text>{"calls itself 'other\\x0a'; goes by the name of its key"});
  for (const auto& bad :
       {text{}, text(254, 'a'), text{"a b"}, text{"a\"b"}, text{"a/b"}, text{"\xff"}}) {
    CAPTURE(bad);
    found = engines_of(bad, record);
    CHECK(found.engines.empty());
    CHECK(found.problems.size() == 1);
  }
}

} // namespace llumnix
