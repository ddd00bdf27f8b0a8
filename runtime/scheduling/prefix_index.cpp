#include "runtime/scheduling/prefix_index.hpp"

#include "runtime/scheduling/hash_table.hpp"
#include "runtime/scheduling/instance_sets.hpp"

#define XXH_INLINE_ALL
#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>
#include <utility>
#include <xxhash.h>

namespace llumnix {
namespace {

using std::uint16_t;
using std::uint32_t;
using std::uint64_t;

constexpr uint32_t none = hash_table::none;
constexpr uint32_t block_tokens_max = 65'536;
constexpr uint32_t instances_max = 65'535;
constexpr std::size_t sizes_max = 8; ///< block sizes at once

constexpr uint64_t scatter(uint64_t x) {
  x = (x ^ (x >> 32)) * 0x9E3779B97F4A7C15ull;
  return x ^ (x >> 29);
}

/// Digest of a block's own tokens. Does not depend on the block before, so that the processor works
/// on several at once.
uint64_t digest(std::span<const token_id> tokens, uint64_t seed) {
  return XXH3_64bits_withSeed(tokens.data(), tokens.size_bytes(), seed);
}

/// Name of a block by its digest and the name of the one before.
constexpr uint64_t chain(uint64_t parent, uint64_t digest, uint64_t extra) {
  return scatter(parent * 0x94D049BB133111EBull + digest) ^ (extra == 0 ? 0 : scatter(~extra));
}

/// A block: a prefix that ends here, and who holds it.
struct block {
  uint64_t key = 0;
  uint32_t newer = none; ///< by last use
  uint32_t older = none;
  uint32_t names = none; ///< the first of its names; a block without is gone
  instance_set holders;
};
static_assert(sizeof(block) == 32);

/// What an instance calls a block it holds.
struct name {
  uint64_t hash = 0;
  uint32_t block = none;
  uint32_t block_before = none; ///< other names of the block
  uint32_t block_after = none;
  uint32_t holder_before = none; ///< other names of the instance
  uint32_t holder_after = none;
  uint16_t holder = 0;
  std::uint8_t size = 0; ///< which block size
};
static_assert(sizeof(name) == 32);

struct holder {
  instance_id id; ///< empty: nobody has this number
  bool used = false;
  uint32_t names = none;
};

struct block_size {
  uint32_t tokens = 0; ///< 0: free
  std::size_t blocks = 0;
};

} // namespace

struct prefix_index::state {
  explicit state(prefix_index_options options)
    : max_blocks{std::clamp<std::size_t>(options.max_blocks, 1, 1u << 30)},
      max_instances{std::clamp<uint32_t>(options.max_instances, 1, instances_max)},
      seed{options.seed},
      sets{max_instances},
      live{sets} {}

  uint64_t root(uint32_t block_tokens, uint64_t adapter) const {
    return scatter(scatter(seed ^ 0xD1B54A32D192ED03ull) + block_tokens) ^ scatter(~adapter);
  }
  uint64_t name_hash(uint32_t number, uint64_t hash) const {
    return scatter((hash ^ seed) * 0xBF58476D1CE4E5B9ull + number);
  }

  // Finding.
  uint32_t find_name(uint32_t number, uint64_t hash) const {
    return by_name.find(name_hash(number, hash), [&](uint32_t at) {
      return names[at].hash == hash && names[at].holder == number;
    });
  }
  uint32_t find_block(uint64_t key) const {
    return by_key.find(key, [&](uint32_t at) { return blocks[at].key == key; });
  }
  uint32_t known_number(const instance_id& instance) const {
    auto known = numbers.find(instance);
    return known == numbers.end() ? none : known->second;
  }
  uint32_t number_for(const instance_id& instance);
  std::size_t size_for(uint32_t tokens);

  // Use: blocks from the newest to the oldest.
  void unlink(uint32_t at);
  void link_after(uint32_t before, uint32_t at); ///< `none`: before all
  void use_after(uint32_t before, uint32_t at) {
    if (at == before || (before == none ? newest : blocks[before].older) == at)
      return;
    unlink(at);
    link_after(before, at);
  }

  uint32_t put_block(uint64_t key, uint32_t before);
  bool put_name(uint32_t number, uint64_t hash, uint32_t at, std::size_t size);
  void drop_name(uint32_t at);
  void drop_block(uint32_t at);
  void evict();

  void stored(const instance_id& instance, const stored_blocks& told);
  void skip(uint32_t number, std::span<const uint64_t> hashes, uint64_t& counter);
  void clear(uint32_t number);
  void match(
    uint32_t per_block, std::span<const token_id> tokens, uint64_t adapter,
    std::vector<uint32_t>& held);
  void look_ahead(std::span<const token_id> tokens, uint32_t per_block, uint64_t key);
  bool consistent() const;

  std::size_t max_blocks;
  uint32_t max_instances;
  uint64_t seed;
  prefix_index_counters counters;
  std::vector<holder> holders; ///< by number
  std::unordered_map<instance_id, uint32_t> numbers;
  std::array<block_size, sizes_max> sizes{};
  slot_pool<block> blocks;
  slot_pool<name> names;
  hash_table by_key;
  hash_table by_name;
  uint32_t newest = none;
  uint32_t oldest = none;

  instance_sets sets;

  // While matching: who holds all blocks so far, and the blocks to come.
  prefix_survivors live;
  struct {
    std::size_t count = 0;
    std::array<uint64_t, 32> keys;
    std::array<uint32_t, 32> at; ///< up to the first that is `none`
  } ahead;
};

uint32_t prefix_index::state::number_for(const instance_id& instance) {
  if (auto known = known_number(instance); known != none)
    return known;
  if (numbers.size() >= max_instances)
    return none;
  auto free = std::find_if(holders.begin(), holders.end(), [](auto& it) { return !it.used; });
  auto number = static_cast<uint32_t>(free - holders.begin());
  if (free == holders.end())
    holders.emplace_back();
  holders[number] = {instance, true, none};
  numbers.emplace(instance, number);
  return number;
}

std::size_t prefix_index::state::size_for(uint32_t tokens) {
  auto free = sizes_max;
  for (std::size_t i = 0; i < sizes_max; ++i) {
    if (sizes[i].tokens == tokens)
      return i;
    if (sizes[i].blocks == 0)
      free = std::min(free, i);
  }
  if (free < sizes_max)
    sizes[free] = {tokens, 0};
  return free;
}

void prefix_index::state::unlink(uint32_t at) {
  auto& it = blocks[at];
  (it.newer == none ? newest : blocks[it.newer].older) = it.older;
  (it.older == none ? oldest : blocks[it.older].newer) = it.newer;
}

void prefix_index::state::link_after(uint32_t before, uint32_t at) {
  auto& it = blocks[at];
  auto& after = before == none ? newest : blocks[before].older;
  it.newer = before;
  it.older = after;
  (it.older == none ? oldest : blocks[it.older].newer) = at;
  after = at;
}

/// The block of that key, made if there is none, used right after `before`.
uint32_t prefix_index::state::put_block(uint64_t key, uint32_t before) {
  auto at = find_block(key);
  if (at != none) {
    use_after(before, at);
    return at;
  }
  at = blocks.take();
  blocks[at].key = key;
  link_after(before, at);
  by_key.insert(key, at);
  return at;
}

/// False when there is no room, even without all other blocks.
bool prefix_index::state::put_name(uint32_t number, uint64_t hash, uint32_t at, std::size_t size) {
  if (auto known = find_name(number, hash); known != none) {
    if (names[known].block == at) {
      sets.add(blocks[at].holders, number);
      return true;
    }
    drop_name(known); // the engine calls something else by this name now
  }
  while (names.used() >= max_blocks) {
    if (oldest == at)
      return false;
    evict();
  }
  auto mine = names.take();
  auto& it = names[mine];
  it.hash = hash;
  it.holder = static_cast<uint16_t>(number);
  it.block = at;
  it.block_after = std::exchange(blocks[at].names, mine);
  if (it.block_after != none)
    names[it.block_after].block_before = mine;
  it.holder_after = std::exchange(holders[number].names, mine);
  if (it.holder_after != none)
    names[it.holder_after].holder_before = mine;
  by_name.insert(name_hash(number, hash), mine);
  sets.add(blocks[at].holders, number);
  it.size = static_cast<std::uint8_t>(size);
  ++sizes[size].blocks;
  return true;
}

void prefix_index::state::drop_name(uint32_t at) {
  auto& it = names[at];
  auto& of = blocks[it.block];
  (it.block_before == none ? of.names : names[it.block_before].block_after) = it.block_after;
  if (it.block_after != none)
    names[it.block_after].block_before = it.block_before;
  (it.holder_before == none ? holders[it.holder].names : names[it.holder_before].holder_after)
    = it.holder_after;
  if (it.holder_after != none)
    names[it.holder_after].holder_before = it.holder_before;
  by_name.erase(name_hash(it.holder, it.hash), at);
  sets.remove(of.holders, it.holder);
  --sizes[it.size].blocks;
  if (of.names == none)
    drop_block(it.block);
  names.give_back(at);
}

/// One without names.
void prefix_index::state::drop_block(uint32_t at) {
  by_key.erase(blocks[at].key, at);
  unlink(at);
  blocks.give_back(at);
}

void prefix_index::state::evict() {
  for (auto at = blocks[oldest].names; at != none;) {
    auto after = names[at].block_after;
    drop_name(at); // the last takes the block along
    at = after;
    ++counters.evicted;
  }
}

void prefix_index::state::stored(const instance_id& instance, const stored_blocks& told) {
  auto count = told.hashes.size();
  auto per_block = told.block_tokens;
  auto sound = per_block > 0 && per_block <= block_tokens_max
               && told.tokens.size() / per_block == count && told.tokens.size() % per_block == 0
               && (told.extras.empty() || told.extras.size() == count);
  auto number = sound && count > 0 ? number_for(instance) : known_number(instance);
  auto size = sound && number != none ? size_for(per_block) : sizes_max;
  auto parent = told.parent && number != none ? find_name(number, *told.parent) : none;
  if (size == sizes_max)
    return skip(number, told.hashes, counters.refused);
  if (told.parent && (parent == none || names[parent].size != size))
    return skip(number, told.hashes, counters.unknown_parent);
  auto before = none;
  auto key = root(per_block, told.adapter);
  if (told.parent) {
    before = names[parent].block;
    use_after(none, before);
    key = blocks[before].key;
  }
  for (std::size_t i = 0; i < count; ++i) {
    auto extra = told.extras.empty() ? 0 : told.extras[i];
    key = chain(key, digest(told.tokens.subspan(i * per_block, per_block), seed), extra);
    auto at = put_block(key, before);
    if (!put_name(number, told.hashes[i], at, size)) {
      if (blocks[at].names == none)
        drop_block(at);
      return skip(number, told.hashes.subspan(i), counters.refused);
    }
    ++counters.stored;
    before = at;
  }
}

/// Counts blocks that cannot be placed. Whatever had their names before is not called so any more.
void prefix_index::state::skip(
  uint32_t number, std::span<const uint64_t> hashes, uint64_t& counter) {
  counter += hashes.size();
  for (auto hash : hashes)
    if (auto at = number == none ? none : find_name(number, hash); at != none)
      drop_name(at);
}

void prefix_index::state::clear(uint32_t number) {
  while (holders[number].names != none)
    drop_name(holders[number].names);
}

/// Names the next blocks of a prompt and finds them, all of them at once, so that they need not
/// wait for memory one after the other.
void prefix_index::state::look_ahead(
  std::span<const token_id> tokens, uint32_t per_block, uint64_t key) {
  ahead.count = std::min(ahead.keys.size(), tokens.size() / per_block);
  for (std::size_t i = 0; i < ahead.count; ++i) {
    ahead.keys[i] = key = chain(key, digest(tokens.subspan(i * per_block, per_block), seed), 0);
    by_key.prefetch(key);
  }
  for (std::size_t i = 0; i < ahead.count; ++i)
    if (ahead.at[i] = by_key.guess(ahead.keys[i]); ahead.at[i] != none)
      __builtin_prefetch(&blocks[ahead.at[i]], 1);
  for (std::size_t i = 0; i < ahead.count && ahead.at[i] != none; ++i) {
    const auto& it = blocks[ahead.at[i]];
    if (it.key != ahead.keys[i])
      ahead.at[i] = find_block(ahead.keys[i]);
    else
      sets.prefetch(it.holders);
  }
}

void prefix_index::state::match(
  uint32_t per_block, std::span<const token_id> tokens, uint64_t adapter,
  std::vector<uint32_t>& held) {
  auto key = root(per_block, adapter);
  auto before = none;
  uint32_t so_far = 0;
  for (bool more = true; more && tokens.size() - so_far >= per_block;) {
    look_ahead(tokens.subspan(so_far), per_block, key);
    key = ahead.keys[ahead.count - 1];
    for (std::size_t i = 0; more && i < ahead.count; ++i) {
      auto at = ahead.at[i];
      more
        = at != none
          && (so_far > 0 ? live.narrow(blocks[at].holders, so_far, held) : live.begin(blocks[at].holders));
      if (!more)
        break;
      use_after(before, at);
      before = at;
      so_far += per_block;
    }
  }
  if (so_far > 0)
    live.end(so_far, held);
}

bool prefix_index::state::consistent() const {
  std::size_t listed = 0;
  std::size_t named = 0;
  std::array<std::size_t, sizes_max> of_size{};
  auto newer = none;
  for (auto at = newest; at != none; newer = at, at = blocks[at].older, ++listed) {
    const auto& it = blocks[at];
    if (it.newer != newer || it.names == none || find_block(it.key) != at || listed > max_blocks)
      return false;
    std::size_t held = 0;
    for (uint32_t number = 0; number < holders.size(); ++number)
      held += sets.contains(it.holders, number);
    auto previous = none;
    for (auto each = it.names; each != none; previous = each, each = names[each].block_after) {
      if (
        names[each].block != at || names[each].block_before != previous
        || find_name(names[each].holder, names[each].hash) != each || ++named > max_blocks)
        return false;
      ++of_size[names[each].size];
    }
    if (held != it.holders.count)
      return false;
  }
  std::size_t owned = 0;
  for (uint32_t number = 0; number < holders.size(); ++number)
    for (auto each = holders[number].names; each != none; each = names[each].holder_after)
      if (names[each].holder != number || !holders[number].used || ++owned > max_blocks)
        return false;
  auto sized = std::equal(sizes.begin(), sizes.end(), of_size.begin(), [](auto& it, auto count) {
    return it.blocks == count;
  });
  return sized && newer == oldest && listed == blocks.used() && listed == by_key.size()
         && named == owned && named == names.used() && named == by_name.size();
}

prefix_index::prefix_index(prefix_index_options options)
  : state_{std::make_unique<state>(options)} {}
prefix_index::~prefix_index() = default;
prefix_index::prefix_index(prefix_index&&) noexcept = default;
prefix_index& prefix_index::operator=(prefix_index&&) noexcept = default;

void prefix_index::stored(const instance_id& instance, const stored_blocks& blocks) {
  state_->stored(instance, blocks);
}

void prefix_index::removed(const instance_id& instance, std::span<const std::uint64_t> hashes) {
  auto number = state_->known_number(instance);
  for (auto hash : hashes) {
    auto at = number == none ? none : state_->find_name(number, hash);
    ++(at == none ? state_->counters.unknown : state_->counters.removed);
    if (at != none)
      state_->drop_name(at);
  }
}

void prefix_index::cleared(const instance_id& instance) {
  if (auto number = state_->known_number(instance); number != none)
    state_->clear(number);
}

void prefix_index::forget(const instance_id& instance) {
  cleared(instance);
  if (auto number = state_->known_number(instance); number != none) {
    state_->holders[number] = {};
    state_->numbers.erase(instance);
  }
}

void prefix_index::match(
  std::span<const token_id> tokens, std::uint64_t adapter, std::vector<std::uint32_t>& held) {
  held.assign(state_->holders.size(), 0);
  for (const auto& size : state_->sizes)
    if (size.blocks > 0)
      state_->match(size.tokens, tokens, adapter, held);
}

std::optional<std::uint32_t> prefix_index::number_of(const instance_id& instance) const {
  auto number = state_->known_number(instance);
  return number == none ? std::nullopt : std::optional{number};
}

std::size_t prefix_index::blocks() const {
  return state_->names.used();
}

const instance_id* prefix_index::instance_at(std::uint32_t number) const {
  const auto& all = state_->holders;
  return number < all.size() && all[number].used ? &all[number].id : nullptr;
}

const prefix_index_counters& prefix_index::counters() const {
  return state_->counters;
}

bool prefix_index::consistent() const {
  return state_->consistent();
}

} // namespace llumnix
