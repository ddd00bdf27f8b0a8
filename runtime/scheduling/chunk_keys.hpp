#pragma once

#include "config/cluster_config.hpp"
#include "runtime/base/ids.hpp"
#include "runtime/base/result.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace llumnix {

/// How the engines' KV connectors name the chunks of a prompt in their store.
enum class chunk_hash : std::uint8_t { sha256_cbor, sha256_hex, xxhash };

/// What names chunks; the engines must have the same. Source: spec/scheduling.md 8.1.
struct chunk_key_options {
  chunk_hash hash = chunk_hash::sha256_cbor;
  std::uint32_t chunk_tokens = 256;             ///< tokens per key; 1 to `chunk_tokens_max`
  bool save_unfull_chunk = false;               ///< what follows the last full chunk has a key too
  std::string iris_prefix = "iris.";            ///< of xxhash keys
  std::string block_prefix = "block.hash.key."; ///< of xxhash keys, after `iris_prefix`
  std::string hash_seed;                        ///< of sha256_cbor; empty: "0"
};

/// The largest chunk: xxhash fills a tail up to its size.
inline constexpr std::uint32_t chunk_tokens_max = 1u << 20;

/// As the configuration says. GO_HASH_SEED is the business of whoever filled it. `invalid_argument`
/// for a hash nobody knows or a chunk out of range.
result<chunk_key_options> make_chunk_key_options(const scheduler_config& config);

/// The keys of a prompt's chunks in order, to the byte as the reference makes them; none for a
/// prompt below one chunk whose tail is not saved. Each key stands for all tokens up to the end of
/// its chunk. `invalid_argument` without tokens or with a chunk size out of range; `internal`
/// without SHA-256.
result<std::vector<std::string>>
chunk_keys(std::span<const token_id> tokens, const chunk_key_options& options);

} // namespace llumnix
