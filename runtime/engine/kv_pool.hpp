#pragma once

#include "runtime/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace llumnix {

/// A KV block of one engine, counted from 0.
using block_index = std::uint32_t;

/// The bytes of an engine's KV blocks: one stretch of memory that the system hands out page by page
/// on first use, so that a large pool costs nothing until it is filled.
///
///     pool[block][position in block][word], words of 64 bits
class kv_pool {
public:
  /// `out_of_blocks` when it is larger than the machine's memory or the system refuses it; the
  /// sentence begins with the knob at fault, names both sizes and says the way out.
  static result<kv_pool>
  make(std::uint32_t blocks, std::uint32_t block_tokens, std::uint32_t bytes_per_token);
  kv_pool(kv_pool&& other) noexcept;
  kv_pool& operator=(kv_pool&& other) noexcept;
  ~kv_pool();

  std::uint32_t blocks() const { return blocks_; }
  std::uint32_t block_tokens() const { return block_tokens_; }
  std::uint32_t words_per_token() const { return words_; }

  /// The words of one position.
  std::span<std::uint64_t> position(block_index block, std::uint32_t offset) {
    return {data_ + at(block, offset), words_};
  }
  /// One word, as it stands in memory.
  std::uint64_t read(block_index block, std::uint32_t offset, std::uint32_t word) const {
    return data_[at(block, offset) + word];
  }
  /// Whether every word of a position is that of this digest.
  bool holds(block_index block, std::uint32_t offset, std::uint64_t digest) const;
  /// All of it, block after block. Stays where it is when the pool is moved.
  std::span<std::byte> memory() { return std::as_writable_bytes(std::span{data_, at(blocks_, 0)}); }
  /// Writes the KV bytes of a position with that digest (spec/modeled_engine.md 2).
  void write(block_index block, std::uint32_t offset, std::uint64_t digest);
  /// Spoils every word of a position. Tests only (`engine.corrupt`).
  void spoil(block_index block, std::uint32_t offset);
  /// Overwrites a block with a pattern that is no KV of anything.
  void overwrite(block_index block);

private:
  kv_pool(
    std::uint64_t* data, std::uint32_t blocks, std::uint32_t block_tokens, std::uint32_t words)
    : data_{data}, blocks_{blocks}, block_tokens_{block_tokens}, words_{words} {}
  std::size_t at(block_index block, std::uint32_t offset) const {
    return (std::size_t{block} * block_tokens_ + offset) * words_;
  }
  std::size_t bytes() const { return at(blocks_, 0) * sizeof(std::uint64_t); }

  std::uint64_t* data_ = nullptr;
  std::uint32_t blocks_ = 0;
  std::uint32_t block_tokens_ = 0;
  std::uint32_t words_ = 0;
};

} // namespace llumnix
