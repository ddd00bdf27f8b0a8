#include "runtime/engine/block_manager.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace llumnix;

namespace {

struct manager_fixture {
  explicit manager_fixture(std::uint32_t blocks = 4, bool cache = true, bool poison = false)
    : pool{*kv_pool::make(blocks, 2, 16)}, manager{pool, cache, poison} {}

  /// Takes `count` blocks and caches them as a chain of these keys.
  std::vector<block_index> chain(std::vector<std::uint64_t> keys) {
    std::vector<block_index> table;
    REQUIRE(manager.take({}, static_cast<std::uint32_t>(keys.size()), table));
    for (std::size_t i = 0; i < keys.size(); ++i)
      manager.cache(table[i], keys[i], i == 0 ? 0 : keys[i - 1]);
    return table;
  }
  std::uint32_t cached(std::vector<std::uint64_t> keys) { return manager.count_cached(keys); }

  kv_pool pool;
  block_manager manager;
};

} // namespace

TEST_CASE("blocks are taken all or none, and come back") {
  manager_fixture x;
  std::vector<block_index> table;
  CHECK(x.manager.take({}, 3, table));
  CHECK(x.manager.free() == 1);
  CHECK_FALSE(x.manager.take({}, 2, table));
  CHECK(table.size() == 3);
  CHECK(x.manager.take({}, 1, table));
  std::sort(table.begin(), table.end());
  CHECK(table == std::vector<block_index>{0, 1, 2, 3});
  x.manager.release(table);
  CHECK(table.empty());
  CHECK(x.manager.free() == 4);
  CHECK(x.manager.consistent());
}

TEST_CASE("a cached block is shared while held and found again when free") {
  manager_fixture x;
  auto first = x.chain({11, 12});
  CHECK(x.cached({11, 12, 13}) == 2);
  CHECK(x.cached({12}) == 1);
  std::vector<block_index> second;
  std::vector<std::uint64_t> keys{11, 12};
  CHECK(x.manager.take(keys, 1, second));
  CHECK(second[0] == first[0]);
  CHECK(x.manager.references(first[0]) == 2);
  CHECK(x.manager.free() == 1);
  x.manager.release(first);
  CHECK(x.manager.free() == 1);
  x.manager.release(second);
  CHECK(x.manager.free() == 4);
  CHECK(x.cached({11, 12}) == 2);
  CHECK(x.manager.consistent());
}

TEST_CASE("reviving cached blocks uses up free ones") {
  manager_fixture x;
  auto table = x.chain({11, 12, 13});
  x.manager.release(table);
  std::vector<std::uint64_t> keys{11, 12, 13};
  CHECK_FALSE(x.manager.take(keys, 2, table));
  CHECK(table.empty());
  CHECK(x.manager.free() == 4);
  CHECK(x.manager.take(keys, 1, table));
  CHECK(x.manager.free() == 0);
}

TEST_CASE("the longest unused cached block goes first, a chain from its end") {
  manager_fixture x;
  auto old = x.chain({11, 12});
  auto young = x.chain({21, 22});
  x.manager.release(old);
  x.manager.release(young);
  std::vector<block_index> taken;
  REQUIRE(x.manager.take({}, 1, taken));
  CHECK(x.cached({11, 12}) == 1);
  REQUIRE(x.manager.take({}, 2, taken));
  CHECK(x.cached({11}) == 0);
  CHECK(x.cached({21, 22}) == 1);
  CHECK(x.manager.consistent());
}

TEST_CASE("use makes a cached block young again") {
  manager_fixture x;
  auto a = x.chain({11}), b = x.chain({21}), rest = x.chain({31, 32});
  x.manager.release(a);
  x.manager.release(b);
  std::vector<std::uint64_t> key{11};
  REQUIRE(x.manager.take(key, 0, a));
  x.manager.release(a);
  REQUIRE(x.manager.take({}, 1, rest));
  CHECK(x.cached({11}) == 1);
  CHECK(x.cached({21}) == 0);
}

TEST_CASE("blocks without a key are handed out before cached ones") {
  manager_fixture x;
  auto cached = x.chain({11});
  std::vector<block_index> plain;
  REQUIRE(x.manager.take({}, 3, plain));
  x.manager.release(cached);
  x.manager.release(plain);
  REQUIRE(x.manager.take({}, 3, plain));
  CHECK(x.cached({11}) == 1);
}

TEST_CASE("a second block with the same content is not cached") {
  manager_fixture x;
  auto first = x.chain({11}), second = x.chain({11});
  CHECK(x.manager.cached() == 1);
  x.manager.release(second);
  CHECK(x.cached({11}) == 1);
  x.manager.release(first);
  CHECK(x.manager.consistent());
}

TEST_CASE("a bad block leaves the cache with all that was built on it") {
  manager_fixture x{8};
  auto trunk = x.chain({11, 12});
  auto leaf = x.chain({13});
  x.manager.cache(leaf[0], 13, 12);
  auto other = x.chain({21});
  std::vector<block_index> branch;
  REQUIRE(x.manager.take({}, 2, branch));
  x.manager.cache(branch[1], 34, 33); // built on a block seen later in the walk
  x.manager.cache(branch[0], 33, 12);
  x.manager.distrust(std::vector<block_index>{trunk[1]});
  CHECK(x.cached({11}) == 1);
  for (std::uint64_t key : {12, 33, 34})
    CHECK(x.cached({key}) == 0);
  CHECK(x.cached({21}) == 1);
  CHECK(x.manager.consistent());
}

TEST_CASE("bytes are overwritten when a block is handed out, or at once if so configured") {
  for (bool poison : {false, true}) {
    CAPTURE(poison);
    manager_fixture x{1, true, poison};
    std::vector<block_index> table;
    REQUIRE(x.manager.take({}, 1, table));
    x.pool.write(0, 1, 42);
    x.manager.cache(0, 7, 0);
    x.manager.release(table);
    CHECK((x.pool.read(0, 1, 0) == 42) == !poison);
    CHECK(x.cached({7}) == (poison ? 0 : 1));
    REQUIRE(x.manager.take({}, 1, table));
    CHECK(x.pool.read(0, 1, 0) != 42);
    CHECK(x.pool.read(0, 1, 0) == x.pool.read(0, 0, 1));
  }
}

TEST_CASE("pinned blocks stay held, and their bytes stay, when their holder lets go") {
  for (bool poison : {false, true}) {
    CAPTURE(poison);
    manager_fixture x{4, true, poison};
    std::vector<block_index> table;
    REQUIRE(x.manager.take({}, 3, table));
    x.pool.write(table[0], 1, 42);
    std::vector<block_index> pinned{table[0], table[1]}, again{table[1]};
    x.manager.pin(pinned);
    x.manager.pin(again);
    CHECK(x.manager.pinned() == 0); // somebody else holds them
    x.manager.release(table);
    CHECK(x.manager.pinned() == 2);
    CHECK(x.manager.free() == 2);
    CHECK_FALSE(x.manager.take({}, 3, table));
    CHECK(x.pool.holds(pinned[0], 1, 42));
    CHECK(x.manager.consistent());
    auto first = pinned[0];
    x.manager.unpin(pinned);
    CHECK(pinned.empty());
    CHECK(x.manager.pinned() == 1);
    CHECK(x.pool.holds(first, 1, 42) == !poison);
    x.manager.unpin(again);
    CHECK(x.manager.pinned() == 0);
    CHECK(x.manager.free() == 4);
    CHECK(x.manager.consistent());
  }
}

TEST_CASE("blocks can be taken so that some stay free") {
  manager_fixture x;
  std::vector<block_index> table;
  CHECK_FALSE(x.manager.take({}, 3, table, 2));
  CHECK(table.empty());
  CHECK(x.manager.take({}, 2, table, 2));
  CHECK(x.manager.free() == 2);
}
