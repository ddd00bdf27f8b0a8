#pragma once

#include "transport/kv_transport.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace llumnix {

/// Whether [at, at + bytes) lies within [0, size); a sum that overflows does not.
bool inside(std::uint64_t at, std::uint64_t bytes, std::uint64_t size);

/// Sum of the spans' bytes.
std::uint64_t bytes_of(std::span<const kv_span> spans);

/// Whether every span is inside a source region and an own region of these sizes.
bool within(std::span<const kv_span> spans, std::uint64_t source_bytes, std::uint64_t own_bytes);

/// A stretch of one region.
struct kv_piece {
  std::uint64_t at = 0;
  std::uint64_t bytes = 0;
  friend bool operator==(const kv_piece&, const kv_piece&) = default;
};

std::uint64_t bytes_of(std::span<const kv_piece> pieces);

/// Whether the pieces are inside `memory_bytes`, and all of them fit into `staging_bytes`.
bool within(
  std::span<const kv_piece> pieces, std::uint64_t memory_bytes, std::uint64_t staging_bytes);

/// The pieces of `memory`, one after the other, into `staging`, which has room for them.
void gather(
  std::span<const std::byte> memory, std::span<const kv_piece> pieces,
  std::span<std::byte> staging);
/// And back, where they belong in `memory`.
void scatter(
  std::span<std::byte> memory, std::span<const kv_piece> pieces,
  std::span<const std::byte> staging);

/// XXH3 over bytes as they come.
class running_checksum {
public:
  running_checksum();
  ~running_checksum();
  running_checksum(const running_checksum&) = delete;
  running_checksum& operator=(const running_checksum&) = delete;
  void add(std::span<const std::byte> bytes);
  std::uint64_t value() const;

private:
  struct state;
  std::unique_ptr<state> state_;
};

std::uint64_t checksum_of(std::span<const std::byte> bytes);
/// XXH3 over the pieces of `memory` in their order: that of the same bytes one after the other.
std::uint64_t checksum_of(std::span<const std::byte> memory, std::span<const kv_piece> pieces);

/// One side of the spans, neighbours merged.
std::vector<kv_piece> source_pieces(std::span<const kv_span> spans);
std::vector<kv_piece> own_pieces(std::span<const kv_span> spans);

} // namespace llumnix
