#include "runtime/scheduling/prefix_index.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>

namespace llumnix {
namespace {

using names = std::vector<std::uint64_t>;
using ids = std::vector<token_id>;
using parent = std::optional<std::uint64_t>;

/// An event that keeps what it points to.
struct told {
  names hashes;
  parent after;
  ids tokens;
  std::uint32_t block_tokens = 2;
  std::uint64_t adapter = 0;
  names extras = {};

  stored_blocks view() const { return {hashes, after, tokens, block_tokens, adapter, extras}; }
};

std::uint32_t held(
  prefix_index& index, const instance_id& instance, const ids& tokens, std::uint64_t adapter = 0) {
  std::vector<std::uint32_t> all;
  index.match(tokens, adapter, all);
  auto number = index.number_of(instance);
  return number ? all.at(*number) : 0;
}

/// A slow second index: each block is the whole text up to its end.
class literal_index {
public:
  void stored(const instance_id& instance, const told& event) {
    auto& of = instances_[instance];
    auto size = event.block_tokens;
    bool sound = size > 0 && event.tokens.size() == event.hashes.size() * size
                 && (event.extras.empty() || event.extras.size() == event.hashes.size());
    auto text = prefix{size, event.adapter};
    if (event.after) {
      auto known = of.named.find(*event.after);
      sound = sound && known != of.named.end() && known->second[0] == size;
      if (sound)
        text = known->second;
    }
    for (std::size_t i = 0; i < event.hashes.size(); ++i) {
      if (sound) {
        text.push_back(event.extras.empty() ? 0 : event.extras[i]);
        text.insert(
          text.end(), event.tokens.begin() + static_cast<std::ptrdiff_t>(i * size),
          event.tokens.begin() + static_cast<std::ptrdiff_t>((i + 1) * size));
      }
      auto known = of.named.find(event.hashes[i]);
      if (known != of.named.end() && (!sound || known->second != text))
        remove(of, event.hashes[i]);
      if (sound) {
        of.named[event.hashes[i]] = text;
        of.claimed.insert(text);
      }
    }
  }
  void removed(const instance_id& instance, const names& hashes) {
    for (auto hash : hashes)
      remove(instances_[instance], hash);
  }
  void cleared(const instance_id& instance) { instances_[instance] = {}; }

  /// What the index should answer when it has room for all.
  std::uint32_t claimed(const instance_id& instance, const ids& tokens, std::uint64_t adapter) {
    return longest(instances_[instance].claimed, tokens, adapter);
  }
  /// What the engine holds, by any name.
  std::uint32_t truly(const instance_id& instance, const ids& tokens, std::uint64_t adapter) {
    std::set<prefix> all;
    for (const auto& [hash, text] : instances_[instance].named)
      all.insert(text);
    return longest(all, tokens, adapter);
  }
  std::size_t blocks() const {
    std::size_t sum = 0;
    for (const auto& [id, of] : instances_)
      sum += of.named.size();
    return sum;
  }

private:
  using prefix = std::vector<std::uint64_t>; // block size, adapter, then extra and tokens of each
  struct instance {
    std::map<std::uint64_t, prefix> named;
    std::set<prefix> claimed;
  };
  static void remove(instance& of, std::uint64_t hash) {
    if (auto known = of.named.find(hash); known != of.named.end()) {
      of.claimed.erase(known->second);
      of.named.erase(known);
    }
  }
  static std::uint32_t
  longest(const std::set<prefix>& of, const ids& tokens, std::uint64_t adapter) {
    std::size_t best = 0;
    for (std::uint32_t size = 1; size <= 3; ++size) {
      prefix text{size, adapter};
      for (std::size_t end = size; end <= tokens.size(); end += size) {
        text.push_back(0);
        text.insert(
          text.end(), tokens.begin() + static_cast<std::ptrdiff_t>(end - size),
          tokens.begin() + static_cast<std::ptrdiff_t>(end));
        if (!of.contains(text))
          break;
        best = std::max(best, end);
      }
    }
    return static_cast<std::uint32_t>(best);
  }
  std::map<instance_id, instance> instances_;
};

/// Engines at work, by chance: some share names, some use a name twice, some lie.
class random_engines {
public:
  random_engines(std::uint32_t seed, int instances) : chance_{seed}, instances_{instances} {}

  int below(int end) { return static_cast<int>(chance_() % static_cast<std::uint32_t>(end)); }
  instance_id instance() { return "engine-" + std::to_string(below(instances_)); }
  ids text(int length) {
    ids tokens(static_cast<std::size_t>(length));
    for (auto& token : tokens)
      token = static_cast<token_id>(below(5) == 0);
    return tokens;
  }
  std::uint64_t name() { return static_cast<std::uint64_t>(below(40)); }
  std::uint64_t adapter() { return below(6) == 0; }
  names some_names(int most) {
    names some(static_cast<std::size_t>(below(most + 1)));
    for (auto& it : some)
      it = name();
    return some;
  }
  told event() {
    told some;
    some.hashes = some_names(4);
    if (below(2) == 0)
      some.after = name();
    some.block_tokens = below(8) == 0 ? static_cast<std::uint32_t>(below(4)) : 2;
    some.tokens = text(static_cast<int>(some.hashes.size() * some.block_tokens));
    some.adapter = adapter();
    if (below(6) == 0)
      some.extras.assign(some.hashes.size(), static_cast<std::uint64_t>(below(2)));
    if (below(20) == 0)
      some.tokens.push_back(0);
    return some;
  }

private:
  std::mt19937 chance_;
  int instances_;
};

} // namespace

TEST_CASE("what makes no sense is refused, and its names are taken at their word") {
  const told good{{1, 2}, {}, {10, 11, 12, 13}};
  const ids prompt{10, 11, 12, 13};
  struct row {
    const char* what;
    told event;
    std::uint64_t refused;
    std::uint64_t unknown_parent;
    std::uint32_t left;
  };
  for (const auto& [what, event, refused, unknown_parent, left] :
       {row{"no blocks", {{}, {}, {}}, 0, 0, 4}, row{"no block size", {{2}, {}, {}, 0}, 1, 0, 2},
        row{"a block size beyond all bounds", {{2}, {}, ids(65'537), 65'537}, 1, 0, 2},
        row{"a token too few", {{2}, {}, {1}}, 1, 0, 2},
        row{"a token too many", {{2}, {}, {1, 2, 3}}, 1, 0, 2},
        row{"tokens without blocks", {{}, {}, {1, 2}}, 0, 0, 4},
        row{"extras of other blocks", {{2}, {}, {1, 2}, 2, 0, {0, 0}}, 1, 0, 2},
        row{"a parent nobody knows", {{2}, 77, {1, 2}}, 0, 1, 2},
        row{"a parent of another size", {{2}, 1, {1, 2, 3}, 3}, 0, 1, 2},
        row{"its own parent, unknown", {{5}, 5, {1, 2}}, 0, 1, 4}}) {
    CAPTURE(what);
    prefix_index index;
    index.stored("a", good.view());
    index.stored("a", event.view());
    CHECK(index.counters().refused == refused);
    CHECK(index.counters().unknown_parent == unknown_parent);
    CHECK(held(index, "a", prompt) == left);
    CHECK(index.consistent());
  }
}

TEST_CASE("nothing is known of nobody") {
  prefix_index index;
  std::vector<std::uint32_t> all{7};
  index.match(ids{1, 2, 3}, 0, all);
  CHECK(all.empty());
  index.removed("a", names{1});
  index.cleared("a");
  index.forget("a");
  CHECK(index.counters().unknown == 1);
  CHECK_FALSE(index.number_of("a"));
  index.stored("a", told{{1}, 9, {1, 2}}.view()); // known by name now, and holds nothing
  CHECK(held(index, "a", {1, 2}) == 0);
  CHECK(index.blocks() == 0);
  CHECK(index.consistent());
}

TEST_CASE("equal prefixes meet, whatever the engines call them") {
  prefix_index index;
  index.stored("a", told{{1, 2, 3}, {}, {10, 11, 12, 13, 14, 15}}.view());
  index.stored("b", told{{90}, {}, {10, 11}}.view());
  index.stored("b", told{{91}, 90, {12, 13}}.view());
  index.stored("c", told{{1}, {}, {12, 13}}.view()); // the tokens of a second block, at the start
  struct row {
    ids prompt;
    std::uint32_t a, b, c;
  };
  for (const auto& [prompt, a, b, c] :
       {row{{}, 0, 0, 0}, row{{10}, 0, 0, 0}, row{{10, 11}, 2, 2, 0}, row{{10, 11, 12}, 2, 2, 0},
        row{{10, 11, 12, 13}, 4, 4, 0}, row{{10, 11, 12, 13, 14, 15}, 6, 4, 0},
        row{{10, 11, 12, 13, 14, 15, 16, 17}, 6, 4, 0}, row{{10, 11, 13, 12}, 2, 2, 0},
        row{{12, 13}, 0, 0, 2}, row{{11, 10}, 0, 0, 0}}) {
    CAPTURE(prompt.size());
    CHECK(held(index, "a", prompt) == a);
    CHECK(held(index, "b", prompt) == b);
    CHECK(held(index, "c", prompt) == c);
  }
  CHECK(index.blocks() == 6);
  CHECK(index.counters().stored == 6);
}

TEST_CASE("adapters, images and block sizes keep prefixes apart") {
  prefix_index index;
  const ids prompt{10, 11, 12, 13};
  index.stored("plain", told{{1, 2}, {}, prompt}.view());
  index.stored("adapted", told{{1, 2}, {}, prompt, 2, 5}.view());
  index.stored("image", told{{1, 2}, {}, prompt, 2, 0, {0, 8}}.view());
  index.stored("salted", told{{1, 2}, {}, prompt, 2, 0, {8, 0}}.view());
  index.stored("small", told{{1, 2, 3}, {}, {10, 11, 12}, 1}.view());
  struct row {
    const char* instance;
    std::uint32_t plain, adapted;
  };
  for (auto [instance, plain, adapted] :
       {row{"plain", 4, 0}, row{"adapted", 0, 4}, row{"image", 2, 0}, row{"salted", 0, 0},
        row{"small", 3, 0}}) {
    CAPTURE(instance);
    CHECK(held(index, instance, prompt) == plain);
    CHECK(held(index, instance, prompt, 5) == adapted);
  }
  index.stored("plain", told{{4, 5, 6}, {}, {10, 11, 12}, 1}.view()); // both: the longer counts
  CHECK(held(index, "plain", prompt) == 4);
}

TEST_CASE("a hole ends what is held, until it is filled") {
  prefix_index index;
  const ids prompt{1, 2, 3, 4, 5, 6};
  index.stored("a", told{{1, 2, 3}, {}, prompt}.view());
  index.stored("b", told{{1, 2, 3}, {}, prompt}.view());
  index.removed("a", names{2, 2, 99});
  CHECK(index.counters().removed == 1);
  CHECK(index.counters().unknown == 2);
  CHECK(held(index, "a", prompt) == 2);
  CHECK(held(index, "b", prompt) == 6);
  index.stored("a", told{{7}, 1, {3, 4}}.view());
  CHECK(held(index, "a", prompt) == 6);
  index.stored("a", told{{7}, 1, {3, 4}}.view()); // twice
  CHECK(index.blocks() == 6);
  index.cleared("a");
  CHECK(held(index, "a", prompt) == 0);
  CHECK(held(index, "b", prompt) == 6);
  CHECK(index.number_of("a") == 0);
  CHECK(index.consistent());
}

TEST_CASE("a block named twice is gone with the first name removed") {
  prefix_index index;
  index.stored("a", told{{1}, {}, {1, 2}}.view());
  index.stored("a", told{{2}, {}, {1, 2}}.view());
  CHECK(index.blocks() == 2);
  index.removed("a", names{2});
  CHECK(held(index, "a", {1, 2}) == 0);
  index.stored("a", told{{1}, {}, {1, 2}}.view());
  CHECK(held(index, "a", {1, 2}) == 2);
  index.stored("a", told{{1}, {}, {3, 4}}.view()); // the name of another from now on
  CHECK(held(index, "a", {1, 2}) == 0);
  CHECK(held(index, "a", {3, 4}) == 2);
  CHECK(index.blocks() == 1);
  CHECK(index.consistent());
}

TEST_CASE("the number of a forgotten instance is another's, with nothing held") {
  prefix_index index{{.max_blocks = 100, .max_instances = 2}};
  for (const char* instance : {"a", "b", "c"})
    index.stored(instance, told{{1}, {}, {1, 2}}.view());
  CHECK(index.counters().refused == 1);
  CHECK_FALSE(index.number_of("c"));
  REQUIRE(index.instance_at(0));
  CHECK(*index.instance_at(0) == "a");
  CHECK_FALSE(index.instance_at(2));
  index.forget("a");
  CHECK_FALSE(index.number_of("a"));
  CHECK_FALSE(index.instance_at(0));
  index.stored("c", told{{1}, {}, {3, 4}}.view());
  CHECK(index.number_of("c") == 0);
  CHECK(held(index, "c", {1, 2}) == 0);
  CHECK(held(index, "c", {3, 4}) == 2);
  CHECK(held(index, "b", {1, 2}) == 2);
  CHECK(index.consistent());
}

TEST_CASE("no more than eight block sizes at once") {
  prefix_index index;
  for (std::uint32_t size = 1; size <= 9; ++size)
    index.stored("a", told{{size}, {}, ids(size), size}.view());
  CHECK(index.counters().refused == 1);
  CHECK(held(index, "a", ids(9)) == 8);
  index.removed("a", names{3});
  index.stored("a", told{{9}, {}, ids(9), 9}.view());
  CHECK(held(index, "a", ids(9)) == 9);
}

TEST_CASE("many hold a block, then few, then none") {
  prefix_index index{{.max_blocks = 10'000, .max_instances = 600}};
  auto name_of = [](int i) { return "engine-" + std::to_string(i); };
  const ids prompt{1, 2, 3, 4, 5, 6};
  auto blocks_of = [](int i) { return 1 + static_cast<std::size_t>(i) % 3; };
  auto store = [&](int i) {
    told event{{1, 2, 3}, {}, prompt};
    event.hashes.resize(blocks_of(i));
    event.tokens.resize(2 * blocks_of(i));
    index.stored(name_of(i), event.view());
  };
  for (int i = 0; i < 600; ++i)
    store(i);
  std::vector<std::uint32_t> all;
  for (int gone = 0; gone <= 600; ++gone) {
    if (gone % 50 == 0 || gone > 590) {
      index.match(prompt, 0, all);
      REQUIRE(all.size() == 600);
      for (int i = 0; i < 600; ++i)
        REQUIRE(all[static_cast<std::size_t>(i)] == (i < gone ? 0 : 2 * blocks_of(i)));
      CHECK(index.consistent());
    }
    index.cleared(name_of(gone));
  }
  CHECK(index.blocks() == 0);
}

TEST_CASE("room is made of what was stored or matched longest ago, the deepest first") {
  prefix_index index{{.max_blocks = 4, .max_instances = 10}};
  index.stored("a", told{{1, 2}, {}, {1, 1, 2, 2}}.view());
  index.stored("a", told{{3, 4}, {}, {3, 3, 4, 4}}.view());
  CHECK(held(index, "a", {1, 1, 2, 2}) == 4); // matched, hence newer
  index.stored("a", told{{5}, {}, {5, 5}}.view());
  CHECK(index.counters().evicted == 1);
  CHECK(index.blocks() == 4);
  CHECK(held(index, "a", {1, 1, 2, 2}) == 4);
  CHECK(held(index, "a", {3, 3, 4, 4}) == 2);
  CHECK(held(index, "a", {5, 5}) == 2);
  index.stored("a", told{{6}, 1, {6, 6}}.view()); // a child keeps its parent
  CHECK(index.counters().evicted == 2);
  CHECK(held(index, "a", {1, 1, 6, 6}) == 4);
  CHECK(held(index, "a", {1, 1, 2, 2}) == 2); // the oldest, and deeper than the next
  CHECK(held(index, "a", {3, 3}) == 2);
  CHECK(index.consistent());
}

TEST_CASE("a chain longer than the whole index keeps its front") {
  prefix_index index{{.max_blocks = 3, .max_instances = 10}};
  index.stored("a", told{{1, 2, 3, 4, 5}, {}, {1, 1, 2, 2, 3, 3, 4, 4, 5, 5}}.view());
  CHECK(index.blocks() == 3);
  CHECK(index.counters().stored == 3);
  CHECK(index.counters().refused == 2);
  CHECK(held(index, "a", {1, 1, 2, 2, 3, 3, 4, 4, 5, 5}) == 6);
  index.stored("b", told{{1, 1}, {}, {1, 1, 2, 2}}.view()); // one name for two: the second
  CHECK(held(index, "b", {1, 1, 2, 2}) == 0);
  CHECK(index.consistent());
}

TEST_CASE("matching again takes no memory") {
  prefix_index index;
  index.stored("a", told{{1}, {}, {1, 2}}.view());
  std::vector<std::uint32_t> all;
  index.match(ids{1, 2}, 0, all);
  const auto* before = all.data();
  index.match(ids{1, 2, 3}, 0, all);
  CHECK(all.data() == before);
}

TEST_CASE("long prompts are matched to their end") {
  ids prompt(2 * 1'000);
  for (std::size_t i = 0; i < prompt.size(); ++i)
    prompt[i] = static_cast<token_id>(i);
  names hashes(1'000);
  for (std::size_t i = 0; i < hashes.size(); ++i)
    hashes[i] = i;
  prefix_index index;
  index.stored("a", told{hashes, {}, prompt}.view());
  for (std::uint32_t tokens : {2u, 62u, 64u, 66u, 1'998u, 2'000u})
    CHECK(held(index, "a", {prompt.begin(), prompt.begin() + tokens}) == tokens);
}

TEST_CASE("with room for all it knows what a literal index knows") {
  for (std::uint32_t seed = 1; seed <= 4; ++seed) {
    CAPTURE(seed);
    auto instances = seed % 2 == 0 ? 3 : 70;
    random_engines engines{seed, instances};
    prefix_index index{{.max_blocks = 100'000, .max_instances = 300, .seed = seed}};
    literal_index literal;
    for (int step = 0; step < 2'500; ++step) {
      CAPTURE(step);
      auto instance = engines.instance();
      auto act = engines.below(100);
      if (act < 50) {
        auto event = engines.event();
        index.stored(instance, event.view());
        literal.stored(instance, event);
      } else if (act < 75) {
        auto gone = engines.some_names(3);
        index.removed(instance, gone);
        literal.removed(instance, gone);
      } else if (act == 75) {
        index.cleared(instance);
        literal.cleared(instance);
      } else if (act == 76) {
        index.forget(instance);
        literal.cleared(instance);
      } else {
        auto prompt = engines.text(engines.below(9));
        auto adapter = engines.adapter();
        REQUIRE(
          held(index, instance, prompt, adapter) == literal.claimed(instance, prompt, adapter));
      }
      REQUIRE(index.blocks() == literal.blocks());
      if (step % 500 == 0)
        REQUIRE(index.consistent());
    }
  }
}

TEST_CASE("short of room it never claims what is not there") {
  for (std::uint32_t seed = 1; seed <= 6; ++seed) {
    CAPTURE(seed);
    random_engines engines{seed, seed % 2 == 0 ? 2 : 12};
    auto room = static_cast<std::size_t>(3 + engines.below(30));
    prefix_index index{{.max_blocks = room, .max_instances = 20, .seed = seed}};
    literal_index literal;
    std::size_t claimed = 0;
    for (int step = 0; step < 2'500; ++step) {
      CAPTURE(step);
      auto instance = engines.instance();
      auto act = engines.below(100);
      if (act < 50) {
        auto event = engines.event();
        index.stored(instance, event.view());
        literal.stored(instance, event);
      } else if (act < 65) {
        auto gone = engines.some_names(3);
        index.removed(instance, gone);
        literal.removed(instance, gone);
      } else {
        auto prompt = engines.text(engines.below(9));
        auto adapter = engines.adapter();
        auto said = held(index, instance, prompt, adapter);
        REQUIRE(said <= literal.truly(instance, prompt, adapter));
        claimed += said > 0;
      }
      REQUIRE(index.blocks() <= room);
      if (step % 500 == 0)
        REQUIRE(index.consistent());
    }
    CHECK(index.counters().evicted > 0);
    CHECK(claimed > 0);
  }
}

} // namespace llumnix
