#include "discovery_rig.hpp"
#include "integrations/discovery/pod_ledger.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {
namespace {

using records = std::map<std::string, std::string>;

constexpr unix_ms noon = 1'700'000'000'000; // by our wall clock

record_rules rules(std::string role = "neutral") {
  return {60s, std::move(role), parse_networks({"10.0.0.0/8", ".svc"}).filter};
}

std::string ids(const pod_ledger& ledger) {
  heard_lists heard;
  heard.listener()(ledger.alive());
  return heard.ids();
}

} // namespace

TEST_CASE("of the first reading, the writers' clocks say who is alive") {
  struct row {
    unix_ms written;
    std::chrono::seconds alive_for; // if it is not written again
  };
  const row rows[] = {
    {noon, 60s},
    {noon - 1000, 59s},
    {noon - 59'000, 1s},
    {noon - 60'000, 0s},
    {noon - 3'600'000, 0s},
    {noon + 3'600'000, 60s}, // ahead: once only
    {0, 0s},
    {-5, 0s},
    {INT64_MIN, 0s},
    {INT64_MAX, 60s},
  };
  for (auto [written, alive_for] : rows) {
    CAPTURE(written);
    pod_ledger ledger{rules()};
    ledger.read({{"p", record_of("p", 1, written)}}, noon);
    CHECK(ids(ledger) == (alive_for > 0s ? "p_dp0" : ""));
    for (auto age = 0s; age < alive_for; age += 1s) {
      CHECK(ids(ledger) == "p_dp0");
      ledger.pass(1s);
      ledger.read({{"p", record_of("p", 1, written)}}, noon + 1000); // left as it was
    }
    CHECK(ids(ledger) == "");
    CHECK(ledger.held() == 1);
  }
}

TEST_CASE("later a record lives by being renewed, whatever time its writer thinks it is") {
  for (unix_ms apart : {-86'400'000LL, -61'000LL, 0LL, 61'000LL, 86'400'000LL}) {
    CAPTURE(apart);
    pod_ledger ledger{rules()};
    auto utc = noon;
    ledger.read({{"p", record_of("p", 1, utc + apart)}}, utc);
    const bool hidden = apart < -60'000; // until it is renewed for the first time
    CHECK(ids(ledger) == (hidden ? "" : "p_dp0"));
    for (int beat = 0; beat < 10; ++beat) {
      const auto renewed = record_of("p", 1, utc + apart);
      for (int second = 0; second < 50; ++second) {
        ledger.read({{"p", renewed}}, utc);
        if (beat > 0)
          CHECK(ids(ledger) == "p_dp0");
        ledger.pass(1s);
        utc += 1000;
      }
    }
    ledger.pass(60s); // it is not renewed any more
    CHECK(ids(ledger) == "");
    ledger.put("p", record_of("p", 1, utc + apart));
    CHECK(ids(ledger) == "p_dp0");
  }
}

TEST_CASE("a pod that appears later was written just now") {
  pod_ledger ledger{rules()};
  ledger.read({}, noon);
  ledger.read({{"p", record_of("p", 1, 0)}}, noon);
  CHECK(ids(ledger) == "p_dp0");
  ledger.put("q", record_of("q", 2, 0));
  CHECK(ids(ledger) == "p_dp0 q_dp0");
}

TEST_CASE("what changes under a pod's name is another engine") {
  pod_ledger ledger{rules()};
  ledger.read({{"p", record_of("p", 1, noon)}}, noon);
  const auto before = ledger.alive();
  ledger.put("p", record_of("p", 2, noon));
  CHECK(ledger.alive() != before);
  CHECK(ledger.alive()[0].address == "10.0.0.2:8000");
  ledger.remove("p");
  ledger.remove("p");
  ledger.remove("nobody");
  CHECK(ids(ledger) == "");
  CHECK(ledger.held() == 0);
}

TEST_CASE("a pod that is gone is gone, but a store that has none any more lost them") {
  auto a = record_of("a", 1, noon), b = record_of("b", 2, noon);
  SUBCASE("one of two") {
    pod_ledger ledger{rules()};
    ledger.read({{"a", a}, {"b", b}}, noon);
    ledger.read({{"b", b}}, noon);
    CHECK(ids(ledger) == "b_dp0");
  }
  SUBCASE("all, for good") {
    pod_ledger ledger{rules()};
    ledger.read({{"a", a}, {"b", b}}, noon);
    for (int i = 0; i < 60; ++i) {
      CHECK(ids(ledger) == "a_dp0 b_dp0");
      ledger.pass(1s);
      ledger.read({}, noon);
    }
    CHECK(ids(ledger) == "");
    CHECK(ledger.held() == 0);
  }
  SUBCASE("all, and they come back one by one") {
    pod_ledger ledger{rules()};
    ledger.read({{"a", a}, {"b", b}}, noon);
    ledger.read({}, noon);
    CHECK(ledger.held() == 0);
    ledger.pass(30s);
    ledger.read({{"b", record_of("b", 2, noon + 1)}}, noon);
    CHECK(ids(ledger) == "a_dp0 b_dp0");
    CHECK(ledger.held() == 1);
    ledger.pass(29s);
    CHECK(ids(ledger) == "a_dp0 b_dp0");
    ledger.pass(1s); // a was not written again
    CHECK(ids(ledger) == "b_dp0");
  }
  SUBCASE("the last one says good-bye") { // as a lease's end does
    pod_ledger ledger{rules()};
    ledger.read({{"a", a}}, noon);
    ledger.remove("a");
    ledger.read({}, noon);
    CHECK(ids(ledger) == "");
  }
}

TEST_CASE("an address belongs to the pod that came last") {
  pod_ledger ledger{rules()};
  ledger.read({{"new", record_of("new", 1, noon)}, {"old", record_of("old", 1, noon - 9)}}, noon);
  CHECK(ids(ledger) == "new_dp0");                  // by their clocks: nothing else is known
  ledger.put("old", record_of("old", 1, noon + 5)); // a renewal claims nothing
  CHECK(ids(ledger) == "new_dp0");
  ledger.put("newest", record_of("newest", 1, 0));
  CHECK(ids(ledger) == "newest_dp0");
  ledger.put("new", record_of("new", 1, noon + 9));
  CHECK(ids(ledger) == "newest_dp0");
  ledger.remove("newest");
  CHECK(ids(ledger) == "new_dp0");
  ledger.put("old", record_of("old", 2, noon + 9));
  CHECK(ids(ledger) == "new_dp0 old_dp0");
  CHECK(ledger.problems() == 0);
}

TEST_CASE("only engines of the wanted role inside the networks are used") {
  auto instance = [](std::string role, std::string ip, std::int32_t rank, std::string kv = "") {
    return pod_instance{role, ip, 8000 + rank, kv, kv.empty() ? 0 : 9000, rank, 4, "", 1};
  };
  const auto record = encode(
    {"p",
     noon,
     {instance("neutral", "10.0.0.1", 0), instance("prefill", "10.0.0.1", 1),
      instance("decode", "10.0.0.1", 2), instance("neutral", "a.svc", 3)}});
  const std::pair<std::string, std::string> rows[] = {
    {"neutral", "p_dp0 p_dp3"},
    {"prefill", "p_dp1"},
    {"decode", "p_dp2"},
    {"all", "p_dp0 p_dp1 p_dp2 p_dp3"},
  };
  for (const auto& [role, used] : rows) {
    CAPTURE(role);
    pod_ledger ledger{rules(role)};
    ledger.read({{"p", record}}, noon);
    CHECK(ids(ledger) == used);
    CHECK(ledger.problems() == 0);
  }
  pod_ledger ledger{rules()};
  const auto outside = encode(
    {"q",
     noon,
     {instance("neutral", "169.254.169.254", 0), instance("neutral", "10.0.0.9", 1),
      instance("neutral", "10.0.0.8", 2, "8.8.8.8"),
      instance("prefill", "9.9.9.9", 3)}}); // nobody asks where that is
  ledger.read({{"q", outside}}, noon);
  CHECK(ids(ledger) == "q_dp1");
  CHECK(ledger.problems() == 2);
  ledger.put("q", outside + std::string{"\x7a\x01x"}); // the same in other bytes: said already
  CHECK(ledger.problems() == 2);
}

TEST_CASE("records that are none are said once and harm nobody") {
  pod_ledger ledger{rules()};
  const records all{
    {"bad", "\xff\xff"},
    {"good", record_of("good", 1, noon)},
    {"lo ng", record_of("lo ng", 2, noon)},
    {"big", std::string(record_bytes_max + 1, 'x')},
    {"nobody", encode({"nobody", noon, {}})}};
  for (int i = 0; i < 3; ++i)
    ledger.read(all, noon);
  CHECK(ids(ledger) == "good_dp0");
  CHECK(ledger.problems() == 3);
  CHECK(ledger.held() == 5);
  ledger.put("bad", record_of("bad", 3, noon));
  CHECK(ids(ledger) == "bad_dp0 good_dp0");
}

TEST_CASE("a store may hold anything, we hold so much") {
  pod_ledger ledger{rules()};
  for (std::size_t i = 0; i < records_max + 10; ++i) {
    const auto pod = "p" + std::to_string(i);
    ledger.put(pod, record_of(pod, 1, noon));
  }
  CHECK(ledger.held() == records_max);
  CHECK(ledger.alive().size() == 1);
}

} // namespace llumnix::testing
