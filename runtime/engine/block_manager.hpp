#pragma once

#include "runtime/engine/kv_changes.hpp"
#include "runtime/engine/kv_pool.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace llumnix {

/// Who holds which KV blocks: reference counts, the free list, and the prefix cache.
///
/// A full block may be cached under a key, the digest of its last position, which stands for
/// everything up to there. A cached block that nobody holds is free: it is found by its key until
/// it is handed out again, the longest unused first. Blocks without a key are handed out before
/// those.
class block_manager {
public:
  /// `pool` outlives the manager. With `poison_freed` bytes are overwritten as a block becomes free
  /// and nothing is cached.
  block_manager(kv_pool& pool, bool prefix_cache, bool poison_freed);

  std::uint32_t total() const { return static_cast<std::uint32_t>(blocks_.size()); }
  /// Blocks nobody holds, cached ones included.
  std::uint32_t free() const { return free_; }
  std::uint32_t cached() const { return static_cast<std::uint32_t>(by_key_.size()); }
  bool caches() const { return caches_; }

  /// How many blocks at the front of `keys` are cached, up to the first that is not.
  std::uint32_t count_cached(std::span<const std::uint64_t> keys) const;
  /// Appends to `table` the blocks cached under `keys` (all must be), and `fresh` overwritten ones.
  /// All or nothing: false when fewer than `spare` blocks would be left free.
  bool take(
    std::span<const std::uint64_t> keys, std::uint32_t fresh, std::vector<block_index>& table,
    std::uint32_t spare = 0);
  /// Lets go of all blocks of `table` and empties it. The last become reusable first, so that a
  /// prefix outlives what was built on it.
  void release(std::vector<block_index>& table);
  /// One more hold on held blocks, so that they outlive whoever has them in his table.
  void pin(std::span<const block_index> blocks);
  /// Ends that hold and empties `blocks`, as `release`.
  void unpin(std::vector<block_index>& blocks);
  /// Blocks nobody holds but pins. Walks everything where there are any.
  std::uint32_t pinned() const;
  /// Caches a held block. `parent` is the key of the block before it, 0 for the first; `tokens` are
  /// for `changes`. Ignored where another block is cached under this key.
  void cache(
    block_index block, std::uint64_t key, std::uint64_t parent,
    std::span<const token_id> tokens = {});
  /// Takes blocks with bad bytes out of the cache, and whatever was built on them.
  void distrust(std::span<const block_index> bad);

  /// A cached block, and the key it is built on.
  struct cached_block {
    block_index block = 0;
    std::uint64_t key = 0;
    std::uint64_t parent = 0;
  };
  /// All those with whatever they are built on still cached, each after that. Walks everything.
  std::vector<cached_block> cached_chains() const;
  /// What the cache did, for those who want to know.
  kv_change_log& changes() { return changes_; }

  /// Holders of a block, pins included.
  std::uint32_t references(block_index block) const { return blocks_[block].references; }
  /// Whether list, counts and cache agree; walks everything. For tests.
  bool consistent() const;

private:
  static constexpr block_index none = static_cast<block_index>(-1);
  struct entry {
    std::uint32_t references = 0;
    std::uint32_t pins = 0; ///< among the references
    bool keyed = false;
    std::uint64_t key = 0;
    std::uint64_t parent = 0;
    block_index before = none; ///< in the free list
    block_index after = none;
  };
  void link_front(block_index block);
  void link_back(block_index block);
  void unlink(block_index block);
  void drop_key(block_index block);

  kv_pool& pool_;
  bool caches_;
  bool poison_freed_;
  std::vector<entry> blocks_;
  block_index first_ = none; ///< handed out next
  block_index last_ = none;
  std::uint32_t free_ = 0;
  std::size_t pins_ = 0; ///< of all blocks
  std::unordered_map<std::uint64_t, block_index> by_key_;
  kv_change_log changes_;
};

} // namespace llumnix
