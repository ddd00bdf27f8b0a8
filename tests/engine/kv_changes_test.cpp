#include "runtime/engine/kv_changes.hpp"
#include "runtime/engine/modeled_tokens.hpp"
#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>

#include <map>

using namespace llumnix;
using testing::engine_fixture;
using testing::letters;

namespace {

using ids = std::vector<token_id>;
using names = std::vector<std::uint64_t>;

/// What a listener knows of a cache from what it was told: tokens of each block and its parent.
struct listener {
  struct block {
    std::uint64_t parent;
    ids tokens;
    friend bool operator==(const block&, const block&) = default;
  };
  void hear(const kv_changes& told) {
    REQUIRE(told.sound());
    if (told.cleared)
      known.clear();
    auto hash = told.hashes.begin();
    auto token = told.tokens.begin();
    for (const auto& run : told.runs) {
      auto parent = run.parent;
      for (std::uint32_t i = 0; i < run.blocks; ++i, ++hash) {
        if (!run.stored) {
          CHECK(known.erase(*hash) == 1);
          continue;
        }
        known[*hash] = {parent, ids(token, token + told.block_tokens)};
        token += told.block_tokens;
        parent = *hash;
      }
    }
  }
  std::map<std::uint64_t, block> known;
};

listener told_all(const modeled_engine& engine) {
  listener all;
  for (const auto& part : engine.cached_kv())
    all.hear(part);
  for (const auto& [hash, block] : all.known)
    CHECK((block.parent == 0 || all.known.contains(block.parent)));
  return all;
}

ids bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

} // namespace

TEST_CASE("blocks that follow each other are one run") {
  const ids block{1, 2};
  kv_changes x;
  x.block_tokens = 2;
  CHECK(x.empty());
  x.store(0, 11, block);
  x.store(11, 12, block);
  x.store(11, 13, block); // another branch
  x.remove(7);
  x.remove(8);
  x.store(8, 9, block); // the name before it is of one removed
  x.store(0, 21, block);
  CHECK(
    x.runs
    == std::vector<kv_run>{{2, true, 0}, {1, true, 11}, {2, false, 0}, {1, true, 8}, {1, true, 0}});
  CHECK(x.hashes == names{11, 12, 13, 7, 8, 9, 21});
  CHECK(x.tokens.size() == 2 * 5);
  CHECK(x.sound());
}

TEST_CASE("changes whose numbers do not agree are not sound") {
  kv_changes right;
  right.block_tokens = 2;
  right.store(0, 11, ids{1, 2});
  right.remove(12);
  REQUIRE(right.sound());
  struct row {
    const char* what;
    void (*break_it)(kv_changes&);
  };
  for (auto [what, break_it] : {
         row{"a name too few", [](kv_changes& x) { x.hashes.pop_back(); }},
         row{"a name too many", [](kv_changes& x) { x.hashes.push_back(1); }},
         row{"a token too few", [](kv_changes& x) { x.tokens.pop_back(); }},
         row{"a token too many", [](kv_changes& x) { x.tokens.push_back(1); }},
         row{"more blocks than names", [](kv_changes& x) { x.runs[0].blocks = 0xFFFFFFFF; }},
         row{"blocks of no tokens", [](kv_changes& x) { x.block_tokens = 0, x.tokens.clear(); }},
         row{"blocks of too many tokens", [](kv_changes& x) { x.block_tokens = 0x80000001; }},
         row{"tokens of none", [](kv_changes& x) { x.runs[0].stored = false; }},
       }) {
    CAPTURE(what);
    auto x = right;
    break_it(x);
    CHECK_FALSE(x.sound());
  }
}

TEST_CASE("a log keeps nothing unless somebody listens, and gives up where "
          "that takes too long") {
  const ids block{1, 2};
  kv_change_log log{2, 50}; // 16 bytes for each block stored, 8 for one removed
  log.store(0, 1, block);
  CHECK(log.take().empty());
  log.turn(true);
  log.store(0, 1, block);
  log.turn(true);
  log.store(1, 2, block);
  auto told = log.take();
  CHECK(told.hashes == names{1, 2});
  CHECK(told.block_tokens == 2);
  CHECK(log.take().empty());
  for (std::uint64_t i = 0; i < 4; ++i)
    log.store(i, i + 1, block);
  CHECK(log.take().hashes.size() == 4); // 48 bytes, below 50, had room for one more
  for (std::uint64_t i = 0; i < 5; ++i)
    log.store(i, i + 1, block);
  log.remove(1);
  told = log.take();
  CHECK(told.cleared);
  CHECK(told.runs.empty());
  log.remove(1);
  CHECK(log.take().runs.size() == 1);
  log.remove(1);
  log.turn(false);
  log.turn(true);
  CHECK(log.take().empty());
}

TEST_CASE("an id can be read off two digests") {
  for (token_id id : {0u, 65u, 263u, 512u, 1023u})
    for (std::uint64_t before : {0ull, 1ull, 0xFFFFFFFFFFFFFFFFull, 0x123456789ABCDEFull}) {
      CAPTURE(id);
      CHECK(modeled::id_between(before, modeled::next_digest(before, id)) == id);
    }
  CHECK(modeled::unmix(modeled::mix(0x8000000000000001ull)) == 0x8000000000000001ull);
}

TEST_CASE("an engine tells what it caches, in full blocks, and what it lets go") {
  engine_fixture x; // 64 blocks of 4 tokens
  x.engine->note_kv_changes(true);
  listener heard;
  REQUIRE(x.submit(x.request(1, "abcdefghij", 1)) == errc::ok);
  x.step();
  auto told = x.engine->take_kv_changes();
  CHECK(told.runs == std::vector<kv_run>{{2, true, 0}});
  CHECK(told.tokens == bytes("abcdefgh"));
  heard.hear(told);
  CHECK(heard.known == told_all(*x.engine).known);

  REQUIRE(x.submit(x.request(2, "abcdefghijkl!", 1)) == errc::ok);
  x.step();
  auto more = x.engine->take_kv_changes();
  CHECK(more.runs == std::vector<kv_run>{{1, true, told.hashes[1]}});
  CHECK(more.tokens == bytes("ijkl"));
  heard.hear(more);

  REQUIRE(x.submit(x.request(3, "abcdefghijkl!", 1)) == errc::ok);
  x.step();
  CHECK(x.engine->take_kv_changes().empty()); // nothing new
  CHECK(heard.known == told_all(*x.engine).known);

  REQUIRE(x.submit(x.request(4, letters(250, 3), 1)) == errc::ok); // 63 blocks of 64
  x.run();
  heard.hear(x.engine->take_kv_changes());
  CHECK(heard.known == told_all(*x.engine).known);
  CHECK(heard.known.size() == x.engine->blocks().cached());
  CHECK(heard.known.size() == 62 + 1); // of the three, the one that the others were built on
}

TEST_CASE("who listens to a busy engine always knows what it holds") {
  auto config = engine_fixture::small();
  config.blocks = 24;
  engine_fixture x{config};
  for (std::uint64_t number = 0; number < 4; ++number)
    REQUIRE(
      x.submit(x.request(number, letters(20, static_cast<unsigned>(number)), 12)) == errc::ok);
  x.step();
  x.engine->note_kv_changes(true);
  auto heard = told_all(*x.engine); // in the middle
  for (std::uint64_t number = 4; number < 40; ++number) {
    REQUIRE(
      x.submit(x.request(number, letters(10 + number, static_cast<unsigned>(number % 7)), 9))
      == errc::ok);
    for (int i = 0; i < 5; ++i) {
      x.step();
      heard.hear(x.engine->take_kv_changes());
    }
    if (number % 5 == 0)
      x.engine->abort(x.stream(number), 0);
    CHECK(heard.known.size() == x.engine->blocks().cached());
  }
  x.run();
  heard.hear(x.engine->take_kv_changes());
  for (const auto& [hash, block] : told_all(*x.engine).known)
    CHECK(heard.known.at(hash) == block);
}

TEST_CASE("blocks with bad bytes are let go as soon as they were told") {
  auto config = engine_fixture::small();
  config.corrupt = "r1:1";
  engine_fixture x{config};
  x.engine->note_kv_changes(true);
  REQUIRE(x.submit(x.request(1, "abcdefghij", 1)) == errc::ok);
  x.run();
  listener heard;
  heard.hear(x.engine->take_kv_changes());
  CHECK(heard.known.size() == 1);
  CHECK(heard.known.begin()->second.tokens == bytes("abcd"));
  CHECK(heard.known == told_all(*x.engine).known);
}

TEST_CASE("what a cache holds comes in parts that fit into messages") {
  auto config = engine_fixture::small();
  config.blocks = 30'000;
  config.max_num_batched_tokens = 120'000;
  engine_fixture x{config};
  REQUIRE(x.submit(x.request(1, letters(100'001, 1), 1)) == errc::ok);
  x.run();
  auto parts = x.engine->cached_kv();
  CHECK(parts.size() == 3); // 25000 blocks of 24 bytes, 256 KiB a part
  for (std::size_t i = 0; i < parts.size(); ++i) {
    CHECK(parts[i].cleared == (i == 0));
    CHECK(parts[i].runs.size() == 1);
  }
  CHECK(told_all(*x.engine).known.size() == 25'000);
}

TEST_CASE("an engine without a prefix cache has nothing to tell") {
  auto config = engine_fixture::small();
  config.prefix_cache = false;
  engine_fixture x{config};
  x.engine->note_kv_changes(true);
  REQUIRE(x.submit(x.request(1, "abcdefghij", 4)) == errc::ok);
  x.run();
  CHECK(x.engine->take_kv_changes().empty());
  auto parts = x.engine->cached_kv();
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].cleared);
  CHECK(parts[0].runs.empty());
}
