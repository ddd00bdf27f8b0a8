#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace llumnix {

class prefix_index;

/// A change of an engine's KV cache, as its prefix index wants it.
struct kv_event {
  enum class what : std::uint8_t { stored, removed, cleared };
  what happened = what::cleared;
  /// Whether it is about prefixes in the engine's own memory: not in a store behind it, nor of
  /// layers that see a window only.
  bool counts = true;
  std::vector<std::uint64_t> hashes;   ///< the engine's names for the blocks, made 64 bits wide
  std::optional<std::uint64_t> parent; ///< of the block before the first; none: a prompt's start
  std::vector<token_id> tokens;
  std::uint32_t block_tokens = 0; ///< tokens per block; 1 to 65536 for what is stored
  std::uint64_t adapter = 0;      ///< `adapter_digest` of the LoRA's name; 0: none
  /// What else each block depends on (images, a salt), 0 for nothing; empty: none does.
  std::vector<std::uint64_t> extras;
};

/// What a message on the KV event socket says.
struct kv_event_batch {
  std::vector<kv_event> events;      ///< in order
  std::optional<std::uint32_t> rank; ///< data-parallel rank, if told
  std::size_t unknown = 0;           ///< events of other kinds, left out
};

/// A payload longer than this many bytes is refused.
inline constexpr std::size_t kv_payload_max = 8 * 1024 * 1024;

/// Reads the msgpack of vLLM's KV events: batches and events both as arrays and as maps, as its
/// releases have them. Keys and elements it does not know are skipped. A known event without sense
/// spoils the batch, as the index would go wrong silently: `bad_message`. Takes time linear in the
/// payload, and memory of at most some 40 times its size.
result<kv_event_batch> read_kv_events(std::string_view payload);

/// Names a LoRA for `prefix_index::match`; never 0.
std::uint64_t adapter_digest(std::string_view name);

/// Tells `index` of what happened at `instance`.
void apply(const kv_event& event, const instance_id& instance, prefix_index& index);

} // namespace llumnix
