#pragma once

#include "runtime/base/ids.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llumnix {

/// Blocks of one prompt, one after the other, that a prefix cache has from now on, or no more.
struct kv_run {
  std::uint32_t blocks = 0;
  bool stored = false;      ///< false: removed
  std::uint64_t parent = 0; ///< of stored ones: the block before the first; 0: a prompt's start
  friend bool operator==(const kv_run&, const kv_run&) = default;
};

/// What a prefix cache did, in the order in which it did it. Blocks go by the engine's own names
/// for them. Flat, as it travels with every step.
struct kv_changes {
  bool cleared = false;              ///< before all else: what was said before is void
  std::uint32_t block_tokens = 0;    ///< tokens per block
  std::vector<kv_run> runs;          ///< in order
  std::vector<std::uint64_t> hashes; ///< names of the blocks, run after run
  std::vector<token_id> tokens;      ///< of the blocks stored, run after run

  void store(std::uint64_t parent, std::uint64_t hash, std::span<const token_id> block);
  void remove(std::uint64_t hash);
  bool empty() const { return !cleared && runs.empty(); }
  std::size_t bytes() const {
    return hashes.size() * sizeof(hashes[0]) + tokens.size() * sizeof(tokens[0]);
  }
  /// Whether the numbers agree: what comes from outside may be anything.
  bool sound() const;
};

/// Notes what a prefix cache does for somebody who asks now and then, and forgets it all where that
/// takes too long. Costs nothing while nobody wants to know.
class kv_change_log {
public:
  /// `bytes_max`: of names and tokens kept until they are taken.
  explicit kv_change_log(std::uint32_t block_tokens, std::size_t bytes_max = 4u << 20)
    : block_tokens_{block_tokens}, bytes_max_{bytes_max} {}

  void turn(bool on);
  /// As in `kv_changes`.
  void store(std::uint64_t parent, std::uint64_t hash, std::span<const token_id> block);
  void remove(std::uint64_t hash);
  /// Since this was last asked. Nothing but `cleared`: there were too many; what the cache holds
  /// now is to be said anew.
  kv_changes take();

private:
  bool room();

  std::uint32_t block_tokens_;
  std::size_t bytes_max_;
  bool on_ = false;
  kv_changes noted_;
};

} // namespace llumnix
