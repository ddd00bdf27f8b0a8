#include "runtime/cluster/engine_roster.hpp"

#include <doctest/doctest.h>

#include <string>

namespace llumnix {

namespace {

using words = std::vector<std::string>;

/// "a" is an engine at a:1; "a@2" one of that id at 2:1.
std::vector<discovered_engine> engines(const words& list) {
  std::vector<discovered_engine> all;
  for (const auto& word : list) {
    auto at = word.find('@');
    auto engine = engine_at((at == word.npos ? word : word.substr(at + 1)) + ":1");
    engine.id = word.substr(0, at);
    all.push_back(engine);
  }
  return all;
}

words ids(const std::vector<discovered_engine>& list) {
  words all;
  for (const auto& engine : list)
    all.push_back(engine.id);
  return all;
}

} // namespace

TEST_CASE("an engine of which the address is known is called by it") {
  auto engine = engine_at("10.0.0.1:8000");
  CHECK(engine.id == "10.0.0.1:8000");
  CHECK(engine.address == "10.0.0.1:8000");
  CHECK(engine.role == "neutral");
}

TEST_CASE("what another list of engines changes") {
  struct row {
    words before, list, gone, came;
    std::size_t left_out;
  };
  for (const auto& x : {
         row{{}, {}, {}, {}, 0},
         row{{}, {"a", "b"}, {}, {"a", "b"}, 0},
         row{{"a", "b"}, {"a", "b"}, {}, {}, 0},
         row{{"a", "b"}, {"b"}, {"a"}, {}, 0},
         row{{"a", "b"}, {}, {"a", "b"}, {}, 0},
         row{{"a"}, {"a@2"}, {"a"}, {"a"}, 0}, // it moved: another one
         row{{"a@2"}, {"b@2"}, {"a"}, {"b"}, 0},
         row{{}, {"a", "a@2"}, {}, {"a"}, 0}, // ids are there once, whoever says otherwise
         row{{}, {"a", "b", "c", "d", "e"}, {}, {"a", "b", "c"}, 2},
         row{{"c", "d"}, {"a", "b", "c", "d"}, {}, {"a"}, 1}, // who is there stays
         row{{"a", "b", "c"}, {"a@2", "b", "c", "d"}, {"a"}, {"a"}, 1},
         row{{"a", "b", "c"}, {"b", "c", "d"}, {"a"}, {"d"}, 0},
       }) {
    CAPTURE(x.before);
    CAPTURE(x.list);
    engine_roster roster{3};
    roster.take(engines(x.before));
    auto changes = roster.take(engines(x.list));
    CHECK(changes.gone == x.gone);
    CHECK(ids(changes.came) == x.came);
    CHECK(changes.left_out == x.left_out);
    CHECK(roster.size() <= 3);
    CHECK(roster.take(engines(x.list)).gone.empty()); // said once
  }
}

TEST_CASE("a record that differs in anything is another engine") {
  auto engine = engine_at("a:1");
  for (auto change : {
         +[](discovered_engine& x) { x.address = "a:2"; },
         +[](discovered_engine& x) { x.role = "decode"; },
         +[](discovered_engine& x) { x.model = "m"; },
         +[](discovered_engine& x) { x.kv_address = "a:3"; },
         +[](discovered_engine& x) { x.dp_rank = 1; },
         +[](discovered_engine& x) { x.dp_size = 2; },
         +[](discovered_engine& x) { x.version = 1; },
       }) {
    engine_roster roster;
    roster.take({engine});
    auto changed = engine;
    change(changed);
    auto changes = roster.take({changed});
    CHECK(changes.gone == words{"a:1"});
    CHECK(changes.came == std::vector<discovered_engine>{changed});
  }
}

} // namespace llumnix
