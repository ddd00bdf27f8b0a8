#include "runtime/engine/block_manager.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace llumnix {

block_manager::block_manager(kv_pool& pool, bool prefix_cache, bool poison_freed)
  : pool_{pool},
    caches_{prefix_cache && !poison_freed},
    poison_freed_{poison_freed},
    blocks_(pool.blocks()),
    changes_{pool.block_tokens()} {
  for (block_index block = 0; block < total(); ++block)
    link_back(block);
}

std::uint32_t block_manager::count_cached(std::span<const std::uint64_t> keys) const {
  std::uint32_t found = 0;
  if (!by_key_.empty())
    while (found < keys.size() && by_key_.contains(keys[found]))
      ++found;
  return found;
}

bool block_manager::take(
  std::span<const std::uint64_t> keys, std::uint32_t fresh, std::vector<block_index>& table,
  std::uint32_t spare) {
  std::uint32_t revived = 0; // cached and free: taking them uses up free blocks
  for (auto key : keys)
    revived += blocks_[by_key_.at(key)].references == 0;
  if (fresh + revived + spare > free_)
    return false;
  for (auto key : keys) {
    auto block = by_key_.at(key);
    if (blocks_[block].references++ == 0)
      unlink(block);
    table.push_back(block);
  }
  for (; fresh > 0; --fresh) {
    auto block = first_;
    unlink(block);
    drop_key(block);
    pool_.overwrite(block);
    blocks_[block].references = 1;
    table.push_back(block);
  }
  return true;
}

void block_manager::release(std::vector<block_index>& table) {
  for (; !table.empty(); table.pop_back()) {
    auto block = table.back();
    LLUMNIX_ASSERT(blocks_[block].references > 0);
    if (--blocks_[block].references > 0)
      continue;
    if (poison_freed_)
      pool_.overwrite(block);
    if (blocks_[block].keyed)
      link_back(block);
    else
      link_front(block);
  }
}

void block_manager::pin(std::span<const block_index> blocks) {
  for (auto block : blocks) {
    LLUMNIX_ASSERT(blocks_[block].references > 0);
    ++blocks_[block].references;
    ++blocks_[block].pins;
    ++pins_;
  }
}

void block_manager::unpin(std::vector<block_index>& blocks) {
  for (auto block : blocks) {
    LLUMNIX_ASSERT(blocks_[block].pins > 0);
    --blocks_[block].pins;
    --pins_;
  }
  release(blocks);
}

std::uint32_t block_manager::pinned() const {
  if (pins_ == 0)
    return 0;
  return static_cast<std::uint32_t>(std::count_if(
    blocks_.begin(), blocks_.end(),
    [](const entry& x) { return x.pins > 0 && x.pins == x.references; }));
}

void block_manager::cache(
  block_index block, std::uint64_t key, std::uint64_t parent, std::span<const token_id> tokens) {
  if (!caches_ || blocks_[block].keyed || !by_key_.try_emplace(key, block).second)
    return;
  blocks_[block].keyed = true;
  blocks_[block].key = key;
  blocks_[block].parent = parent;
  changes_.store(parent, key, tokens);
}

void block_manager::distrust(std::span<const block_index> bad) {
  std::unordered_set<std::uint64_t> gone;
  for (auto block : bad)
    if (blocks_[block].keyed) {
      gone.insert(blocks_[block].key);
      drop_key(block);
    }
  // Descendants, some perhaps held or last held by others. Rare, so a walk over all blocks will do.
  for (auto more = !gone.empty(); more;) {
    more = false;
    for (block_index block = 0; block < total(); ++block)
      if (blocks_[block].keyed && gone.contains(blocks_[block].parent)) {
        more = gone.insert(blocks_[block].key).second || more;
        drop_key(block);
      }
  }
}

void block_manager::link_front(block_index block) {
  blocks_[block].before = none;
  blocks_[block].after = first_;
  (first_ == none ? last_ : blocks_[first_].before) = block;
  first_ = block;
  ++free_;
}

void block_manager::link_back(block_index block) {
  blocks_[block].after = none;
  blocks_[block].before = last_;
  (last_ == none ? first_ : blocks_[last_].after) = block;
  last_ = block;
  ++free_;
}

void block_manager::unlink(block_index block) {
  auto& it = blocks_[block];
  (it.before == none ? first_ : blocks_[it.before].after) = it.after;
  (it.after == none ? last_ : blocks_[it.after].before) = it.before;
  it.before = it.after = none;
  --free_;
}

void block_manager::drop_key(block_index block) {
  if (!blocks_[block].keyed)
    return;
  by_key_.erase(blocks_[block].key);
  blocks_[block].keyed = false;
  changes_.remove(blocks_[block].key);
}

std::vector<block_manager::cached_block> block_manager::cached_chains() const {
  std::unordered_map<std::uint64_t, std::vector<block_index>> built_on;
  for (block_index block = 0; block < total(); ++block)
    if (blocks_[block].keyed)
      built_on[blocks_[block].parent].push_back(block);
  std::vector<cached_block> chains;
  auto next = std::exchange(built_on[0], {});
  while (!next.empty()) {
    auto block = next.back();
    next.pop_back();
    const auto& it = blocks_[block];
    chains.push_back({block, it.key, it.parent});
    auto more = std::exchange(built_on[it.key], {});
    next.insert(next.end(), more.begin(), more.end());
  }
  return chains;
}

bool block_manager::consistent() const {
  std::uint32_t listed = 0;
  auto previous = none;
  for (auto block = first_; block != none; previous = block, block = blocks_[block].after, ++listed)
    if (blocks_[block].references != 0 || blocks_[block].before != previous || listed > total())
      return false;
  auto unheld = std::count_if(
    blocks_.begin(), blocks_.end(), [](const entry& x) { return x.references == 0; });
  auto keyed
    = std::count_if(blocks_.begin(), blocks_.end(), [](const entry& x) { return x.keyed; });
  auto mapped = std::all_of(by_key_.begin(), by_key_.end(), [this](const auto& x) {
    return blocks_[x.second].keyed && blocks_[x.second].key == x.first;
  });
  std::size_t pins = 0;
  for (const auto& x : blocks_) {
    pins += x.pins;
    if (x.pins > x.references)
      return false;
  }
  return mapped && pins == pins_ && previous == last_ && listed == free_ && unheld == listed
         && static_cast<std::size_t>(keyed) == by_key_.size();
}

} // namespace llumnix
