#include "runtime/engine/kv_changes.hpp"

#include <utility>

namespace llumnix {

void kv_changes::store(std::uint64_t parent, std::uint64_t hash, std::span<const token_id> block) {
  if (runs.empty() || !runs.back().stored || hashes.back() != parent)
    runs.push_back({0, true, parent});
  ++runs.back().blocks;
  hashes.push_back(hash);
  tokens.insert(tokens.end(), block.begin(), block.end());
}

void kv_changes::remove(std::uint64_t hash) {
  if (runs.empty() || runs.back().stored)
    runs.push_back({0, false, 0});
  ++runs.back().blocks;
  hashes.push_back(hash);
}

bool kv_changes::sound() const {
  std::uint64_t all = 0;
  std::uint64_t stored = 0;
  for (const auto& run : runs) {
    all += run.blocks;
    stored += run.stored ? run.blocks : 0;
  }
  return all == hashes.size() && (stored == 0 || block_tokens > 0) && stored <= tokens.size()
         && stored * block_tokens == tokens.size();
}

void kv_change_log::turn(bool on) {
  if (on_ != on)
    noted_ = {};
  on_ = on;
}

void kv_change_log::store(
  std::uint64_t parent, std::uint64_t hash, std::span<const token_id> block) {
  if (room())
    noted_.store(parent, hash, block);
}

void kv_change_log::remove(std::uint64_t hash) {
  if (room())
    noted_.remove(hash);
}

/// Once there were too many, none is kept until they are taken.
bool kv_change_log::room() {
  if (!on_ || noted_.cleared)
    return false;
  if (noted_.bytes() < bytes_max_)
    return true;
  noted_ = {};
  noted_.cleared = true;
  return false;
}

kv_changes kv_change_log::take() {
  noted_.block_tokens = block_tokens_;
  return std::exchange(noted_, {});
}

} // namespace llumnix
