#include "runtime/scheduling/kv_index_memory.hpp"
#include "runtime/scheduling/prefix_hits.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

using chunks = std::vector<std::vector<std::string>>; // who holds each
using holders = std::vector<prefix_holder>;
using hits = std::vector<prefix_hit>;

holders runs_of(const chunks& held, std::uint32_t chunk, std::uint32_t prompt) {
  prefix_runs runs{chunk, prompt};
  for (const auto& names : held)
    runs.add(names);
  return runs.holders();
}

} // namespace

// Mends weakness 2 of spec/scheduling.md.
TEST_CASE("a run begins at the first chunk, ends at a gap, and is no longer than the prompt") {
  struct row {
    const char* what;
    chunks held;
    std::uint32_t chunk, prompt;
    holders found;
  };
  const row rows[]{
    {"no chunk", {}, 4, 3, {}},
    {"nobody", {{}, {}}, 4, 8, {}},
    {"not the first", {{}, {"a"}, {"a"}}, 4, 12, {}},
    {"a late one beside an early one", {{"a"}, {"a", "b"}, {"b"}}, 4, 12, {{"a", 8}}},
    {"a gap", {{"a"}, {}, {"a"}}, 4, 12, {{"a", 4}}},
    {"a gap of one of two",
     {{"a", "b"}, {"b"}, {"b", "a"}, {"a", "b"}},
     4,
     16,
     {{"a", 4}, {"b", 16}}},
    {"ordered by name", {{"c", "b", "a"}, {"b"}}, 4, 8, {{"a", 4}, {"b", 8}, {"c", 4}}},
    {"several copies at one place", {{"a", "a"}, {"a", "a", "a"}}, 4, 8, {{"a", 8}}},
    {"a tail counts its own tokens", {{"a", "b"}, {"a", "b"}, {"a"}}, 4, 10, {{"a", 10}, {"b", 8}}},
    {"a tail alone", {{"a"}}, 256, 7, {{"a", 7}}},
    {"more than 32 bits", {{"a"}, {"a"}}, 4000000000u, 4294967295u, {{"a", 4294967295u}}},
    {"no tokens", {{"a"}}, 4, 0, {}}};
  for (const auto& [what, held, chunk, prompt, found] : rows) {
    CAPTURE(what);
    CHECK(runs_of(held, chunk, prompt) == found);
  }
}

TEST_CASE("once nobody holds everything, further chunks are not worth asking for") {
  prefix_runs runs{4, 100};
  const std::vector<std::string> both{"a", "b"}, one{"b"}, none{};
  CHECK(runs.add(both));
  CHECK(runs.add(one));
  CHECK_FALSE(runs.add(std::vector<std::string>{"a"})); // had a gap already
  CHECK_FALSE(runs.add(both));
  CHECK_FALSE(runs.add(none));
  CHECK(runs.holders() == holders{{"a", 4}, {"b", 8}});
}

TEST_CASE("every instance at a holder's address is credited, and nobody else") {
  const prefix_holders found{
    holder_naming::kv_address, {{"10.0.0.1", 512}, {"10.0.0.2", 2000}, {"10.0.0.9", 700}}};
  const instances_by_address addresses{
    {"10.0.0.1", {"e_dp1", "e_dp0"}}, {"10.0.0.2", {"f"}}, {"10.0.0.3", {"g"}}};
  auto made = find_hits(found, 1000, addresses);
  CHECK(made.asked);
  CHECK(made.instances == hits{{"e_dp0", 512}, {"e_dp1", 512}, {"f", 1000}});
  struct row {
    instance_id id;
    std::uint32_t hit, miss;
    float ratio;
  };
  for (const auto& [id, hit, miss, ratio] :
       {row{"e_dp0", 512, 488, 0.512f}, row{"e_dp1", 512, 488, 0.512f}, row{"f", 1000, 0, 1.0f},
        row{"g", 0, 1000, 0.0f}, row{"", 0, 1000, 0.0f}}) {
    CAPTURE(id);
    CHECK(made.hit_tokens(id) == hit);
    CHECK(made.miss_tokens(id) == miss);
    CHECK(made.hit_ratio(id) == ratio);
  }
}

TEST_CASE("holders are found in a view by what names them") {
  cluster_view view;
  auto know = [&](const std::string& id, const std::string& address) {
    instance_metadata metadata;
    metadata.instance_id = id;
    metadata.ip_kvs = address;
    view.put(metadata, {"n", 1});
  };
  know("a", "10.0.0.2"), know("b", "10.0.0.1"), know("c", "10.0.0.1"), know("d", "");
  using expected = hits;
  struct row {
    prefix_holders found;
    expected made;
  };
  for (const auto& [found, made] :
       {row{
          {holder_naming::kv_address, {{"10.0.0.1", 256}, {"10.0.0.9", 512}}},
          {{"b", 256}, {"c", 256}}},
        row{
          {holder_naming::kv_address, {{"10.0.0.1", 4000}, {"10.0.0.2", 8}}},
          {{"a", 8}, {"b", 1000}, {"c", 1000}}},
        row{{holder_naming::instance, {{"10.0.0.1", 256}, {"d", 16}, {"e", 32}}}, {{"d", 16}}},
        row{{holder_naming::instance, {}}, {}}}) {
    auto hits = find_hits(found, 1000, view);
    CHECK(hits.asked);
    CHECK(hits.prompt_tokens == 1000);
    CHECK(hits.instances == made);
  }
}

// Mends weakness 1 of spec/scheduling.md.
TEST_CASE("where nobody was asked nobody misses anything; an empty prompt has no ratio") {
  const prefix_hits none{false, 1000, {}};
  CHECK(none.miss_tokens("a") == 0);
  CHECK(none.hit_tokens("a") == 0);
  CHECK(none.hit_ratio("a") == 0);
  auto empty = find_hits({holder_naming::instance, {{"a", 5}}}, 0, instances_by_address{});
  CHECK(empty.instances.list().empty());
  CHECK(empty.hit_ratio("a") == 0);
  CHECK(empty.miss_tokens("a") == 0);
}

TEST_CASE("an instance named twice has its longest hit") {
  auto by_address = find_hits(
    {holder_naming::kv_address, {{"x", 8}, {"y", 12}}}, 20, {{"x", {"a", "a"}}, {"y", {"a"}}});
  CHECK(by_address.instances == hits{{"a", 12}});
  auto by_id = find_hits(
    {holder_naming::instance, {{"b", 4}, {"a", 30}, {"b", 6}}}, 20, instances_by_address{});
  CHECK(by_id.instances == hits{{"a", 20}, {"b", 6}});
}

TEST_CASE("the index in memory answers with common beginnings, at once") {
  kv_index_memory index;
  index.put("b", {1, 2, 3});
  index.put("b", {1, 2, 3, 4, 5, 6});
  index.put("a", {1, 9});
  index.put("c", {2, 3});
  std::vector<result<prefix_holders>> heard;
  auto ask = [&](const std::vector<token_id>& prompt) {
    index.find(
      prompt, "m", [&](result<prefix_holders> found) { heard.push_back(std::move(found)); });
    return heard.back();
  };
  CHECK(ask({1, 2, 3, 4})->list == holders{{"a", 1}, {"b", 4}});
  CHECK(ask({7})->list.empty());
  index.fail(error{errc::timeout, "slow"});
  CHECK(ask({1}).error().code == errc::timeout);
  index.fail({});
  CHECK(ask({1})->named_by == holder_naming::instance);
  CHECK(heard.size() == 4);
}
