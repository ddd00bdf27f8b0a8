#include "runtime/cluster/reported_requests.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace llumnix {
namespace {

constexpr auto neutral = infer_type::neutral;
constexpr auto prefill = infer_type::prefill;
constexpr auto decode = infer_type::decode;

request_progress news(
  const char* store, const char* request, const char* gateway, const char* instance,
  std::uint64_t tokens = 0) {
  return {false, request, gateway, {store, instance}, tokens};
}

/// Gateways g and h; r1 of g at a, and r2 of g in both stages, at p and d.
reported_requests some() {
  reported_requests all;
  all.add_gateway("g");
  all.add_gateway("h");
  REQUIRE(all.allocate(neutral, "r1", "g", "a", 10));
  REQUIRE(all.allocate(prefill, "r2", "g", "p", 20));
  REQUIRE(all.allocate(decode, "r2", "g", "d", 20));
  return all;
}

std::string words(const result<bool>& answer) {
  return answer ? (*answer ? "grown" : "same") : answer.error().context;
}

std::uint64_t tokens_at(const reported_requests& all, const char* instance) {
  auto at = all.loads().find(instance);
  return at == all.loads().end() ? 0 : at->second.tokens;
}

} // namespace

TEST_CASE("a placement counts if its gateway is connected, once in each store") {
  auto all = some();
  struct row {
    infer_type store;
    const char *request, *gateway, *refusal;
  };
  for (auto [store, request, gateway, refusal] :
       {row{neutral, "r1", "g", "request state exists"},
        row{neutral, "r1", "nobody", "request state exists"}, // that is looked at first
        row{neutral, "r3", "nobody", "gateway not found"},
        row{neutral, "r3", "", "gateway not found"}, row{prefill, "r1", "h", ""},
        row{neutral, "r2", "g", ""}}) {
    CAPTURE(request);
    CAPTURE(gateway);
    auto counted = all.allocate(store, request, gateway, "x", 1);
    CHECK(counted.has_value() == std::string{refusal}.empty());
    if (!counted)
      CHECK(counted.error().context == refusal);
  }
  CHECK(all.size() == 5);
  CHECK(tokens_at(all, "x") == 2);
}

TEST_CASE("there is a bound to what is counted") {
  reported_requests all{2};
  all.add_gateway("g");
  CHECK(all.allocate(neutral, "r1", "g", "a", 1));
  CHECK(all.allocate(decode, "r1", "g", "a", 1));
  CHECK_FALSE(all.allocate(neutral, "r2", "g", "a", 1));
  CHECK(all.release("r1", "g", {"decode", "a"}));
  CHECK(all.allocate(neutral, "r2", "g", "a", 1));
}

TEST_CASE("reports make a request larger, never smaller, and must fit") {
  auto all = some();
  struct row {
    request_progress told;
    const char* answer;
    std::uint64_t at_a; ///< tokens afterwards
  };
  for (const auto& [told, answer, at_a] :
       {row{news("neutral", "r1", "g", "a", 12), "grown", 12},
        row{news("neutral", "r1", "g", "a", 12), "same", 12},
        row{news("neutral", "r1", "g", "a", 3), "same", 12},
        row{news("Neutral", "r1", "g", "a", 13), "not match infer type", 12},
        row{news("", "r1", "g", "a", 13), "not match infer type", 12},
        row{news("neutral", "r2", "g", "a", 13), "request state not exists", 12},
        row{news("neutral", "r1", "k", "a", 13), "gateway not found", 12},
        row{news("neutral", "r1", "g", "b", 13), "request state not exists", 12},
        row{news("neutral", "r1", "h", "a", 13), "request gateway changed", 12},
        row{news("decode", "r2", "g", "d", 21), "grown", 12}}) {
    CAPTURE(told.request);
    CAPTURE(told.gateway);
    CHECK(words(all.update(told)) == answer);
    CHECK(tokens_at(all, "a") == at_a);
  }
  CHECK(tokens_at(all, "d") == 21);
  CHECK(tokens_at(all, "p") == 20);
}

TEST_CASE("a request waits until its prefill is done") {
  auto all = some();
  using load = reported_requests::load;
  CHECK(all.loads().at("a") == load{10, 10, 1, 1});
  CHECK(all.prefill_done(news("neutral", "r1", "g", "b"))); // elsewhere: means nothing
  CHECK(all.loads().at("a") == load{10, 10, 1, 1});
  CHECK_FALSE(all.prefill_done(news("neutral", "r9", "g", "a")));
  CHECK_FALSE(all.prefill_done(news("neutral", "r1", "k", "a")));
  CHECK(all.prefill_done(news("neutral", "r1", "g", "a")));
  for (int again = 0; again < 2; ++again) {
    CHECK(all.prefill_done(news("neutral", "r1", "g", "a")));
    CHECK(all.loads().at("a") == load{10, 0, 1, 0});
  }
  CHECK(all.update(news("neutral", "r1", "g", "a", 15)));
  CHECK(all.loads().at("a") == load{15, 0, 1, 0});
}

TEST_CASE("what an instance has is the sum of its requests at any time") {
  reported_requests all;
  using load = reported_requests::load;
  all.add_gateway("g");
  all.add_gateway("h");
  auto at_a = [&] { return all.loads().at("a"); };
  REQUIRE(all.allocate(neutral, "r1", "g", "a", 10));
  REQUIRE(all.allocate(neutral, "r2", "h", "a", 5));
  REQUIRE(all.allocate(decode, "r2", "h", "a", 5)); // both stages of it
  CHECK(at_a() == load{20, 20, 3, 3});
  CHECK(all.update(news("neutral", "r1", "g", "a", 12)));
  CHECK(at_a() == load{22, 22, 3, 3});
  CHECK(all.prefill_done(news("neutral", "r1", "g", "a")));
  CHECK(all.update(news("neutral", "r1", "g", "a", 20)));
  CHECK(at_a() == load{30, 10, 3, 2});
  CHECK(all.release("r2", "h", {"neutral", "a"}));
  CHECK(at_a() == load{25, 5, 2, 1});
  all.remove_gateway("g");
  CHECK(at_a() == load{5, 5, 1, 1});
  CHECK(all.release("r2", "h", {"decode", "a"}));
  CHECK(at_a() == load{0, 0, 0, 0});
  REQUIRE(all.allocate(neutral, "r3", "h", "a", 1));
  all.remove_instances({"a"});
  CHECK_FALSE(all.loads().contains("a"));
  REQUIRE(all.allocate(neutral, "r3", "h", "a", 2));
  CHECK(at_a() == load{2, 2, 1, 1});
}

TEST_CASE("a release ends a request where it is") {
  auto all = some();
  CHECK_FALSE(all.release("r1", "g", {"prefill", "a"}));
  CHECK_FALSE(all.release("r1", "g", {"neutral", "b"}));
  CHECK_FALSE(all.release("r1", "h", {"neutral", "a"}));
  CHECK_FALSE(all.release("r9", "g", {"neutral", "a"}));
  CHECK_FALSE(all.release("r1", "g", {"odd", "a"}));
  CHECK(all.size() == 3);
  CHECK(all.release("r1", "g", {"neutral", "a"}));
  CHECK_FALSE(all.release("r1", "g", {"neutral", "a"}));
  CHECK(all.release("r2", "g", {"prefill", "p"}));
  auto left = all.places("r2");
  REQUIRE(left.size() == 1);
  CHECK(left[0].first == "d");
  CHECK(left[0].second.stage == decode);
  CHECK(left[0].second.num_tokens == 20);
}

TEST_CASE("with a gateway or an instance its requests end") {
  auto all = some();
  REQUIRE(all.allocate(neutral, "r4", "h", "a", 1));
  all.remove_instances({"a", "nobody"});
  CHECK(all.size() == 2);
  CHECK(all.remove_gateway("h").empty());
  CHECK(all.remove_gateway("g") == std::vector<std::string>{"r2", "r2"});
  CHECK(all.remove_gateway("g").empty());
  CHECK(all.size() == 0);
  CHECK_FALSE(all.allocate(neutral, "r1", "g", "a", 1));
}

TEST_CASE("no number is too large") {
  constexpr auto most = std::numeric_limits<std::uint64_t>::max();
  reported_requests all;
  all.add_gateway("g");
  REQUIRE(all.allocate(neutral, "r1", "g", "a", most));
  REQUIRE(all.allocate(neutral, "r2", "g", "a", 7));
  CHECK(tokens_at(all, "a") == (std::uint64_t{1} << 40) + 7);
  CHECK(all.update(news("neutral", "r2", "g", "a", most)));
  CHECK(tokens_at(all, "a") == std::uint64_t{2} << 40);
  CHECK(all.places("r1")[0].second.num_tokens == std::numeric_limits<std::int32_t>::max());
  CHECK(all.release("r1", "g", {"neutral", "a"}));
  CHECK(all.release("r2", "g", {"neutral", "a"}));
  CHECK(tokens_at(all, "a") == 0);
}

} // namespace llumnix
