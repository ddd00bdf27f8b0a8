#pragma once

#include "runtime/base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace llumnix {

struct prefix_index_options {
  /// Blocks known at once, all instances together: each costs 32 to 120 bytes, most where many
  /// instances share it.
  std::size_t max_blocks = 1'000'000;
  std::uint32_t max_instances = 4'096; ///< known at once; 65535 at most
  /// Stirs the hashes. Drawn by chance in production, so that nobody can write prompts or events
  /// that collide.
  std::uint64_t seed = 0;
};

/// Blocks that an engine caches from now on, each following the one before it.
struct stored_blocks {
  std::span<const std::uint64_t> hashes; ///< the engine's own names for them
  std::optional<std::uint64_t> parent;   ///< its name for the block before; none: a prompt's start
  std::span<const token_id> tokens;      ///< `block_tokens` for each block
  std::uint32_t block_tokens = 0;        ///< tokens per block, 1 to 65536
  std::uint64_t adapter = 0;             ///< what computed them besides the model; 0: nothing
  /// What else each block's content depends on, 0 for nothing (images, a salt); empty: none does.
  std::span<const std::uint64_t> extras;
};

/// What a `prefix_index` was told, in blocks, since it was made.
struct prefix_index_counters {
  std::uint64_t stored = 0;         ///< told, and known from then on (again, maybe)
  std::uint64_t removed = 0;        ///< told, and forgotten
  std::uint64_t unknown = 0;        ///< told to be removed, and not known
  std::uint64_t unknown_parent = 0; ///< skipped: nobody knows what they follow
  std::uint64_t refused = 0; ///< skipped: no event that makes sense, one instance or block size too
                             ///< many, or a chain longer than all of `max_blocks`
  std::uint64_t evicted = 0; ///< forgotten to make room
};

/// Who holds which prefix, by what engines say of their KV blocks.
///
/// Engines name blocks as they like; here a block is its tokens and everything before them, so
/// prefixes meet that are equal, whatever the engines call them. Blocks of different sizes never
/// meet. Bounded: the blocks stored or matched longest ago make room, those deep in a prompt before
/// those they follow. Events may come twice, late or never: what is not known is not claimed, and
/// what an engine has removed is not either. A plain value, for one thread at a time.
class prefix_index {
public:
  explicit prefix_index(prefix_index_options options = {});
  ~prefix_index();
  prefix_index(prefix_index&&) noexcept;
  prefix_index& operator=(prefix_index&&) noexcept;

  /// `instance` holds these blocks. A block that is named twice is gone with the first name that is
  /// removed.
  void stored(const instance_id& instance, const stored_blocks& blocks);
  /// `instance` has let go of the blocks with these names of its own.
  void removed(const instance_id& instance, std::span<const std::uint64_t> hashes);
  /// `instance` may hold no block at all: it said so, or some of what it said was lost.
  void cleared(const instance_id& instance);
  /// There is no such instance any more; its number may become another's.
  void forget(const instance_id& instance);

  /// Writes to `held`, by the instances' numbers, how many tokens at the front of `tokens` each
  /// holds in whole blocks (computed with `adapter`), 0 for none. Takes memory only while `held`
  /// is smaller than ever before. What is found is kept longer.
  void
  match(std::span<const token_id> tokens, std::uint64_t adapter, std::vector<std::uint32_t>& held);

  /// Where `match` writes of `instance`: from its first stored block until it is forgotten.
  std::optional<std::uint32_t> number_of(const instance_id& instance) const;
  /// Whose number that is; null: nobody's. Good until the next event.
  const instance_id* instance_at(std::uint32_t number) const;
  /// Blocks known, all instances together; at most `max_blocks`.
  std::size_t blocks() const;
  const prefix_index_counters& counters() const;
  /// Whether all inner links agree; walks everything. For tests.
  bool consistent() const;

private:
  struct state;
  std::unique_ptr<state> state_;
};

} // namespace llumnix
