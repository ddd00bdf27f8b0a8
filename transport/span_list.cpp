#include "transport/span_list.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <memory>
#include <xxhash.h>

namespace llumnix {

namespace {

/// Whether `next` begins where `last` ends, on each side there is.
bool joins(const kv_piece& last, const kv_piece& next) {
  return last.at + last.bytes == next.at;
}
bool joins(const kv_span& last, const kv_span& next) {
  return last.from + last.bytes == next.from && last.to + last.bytes == next.to;
}

template <class Stretch>
void append(std::vector<Stretch>& all, const Stretch& next) {
  if (!all.empty() && joins(all.back(), next))
    all.back().bytes += next.bytes;
  else
    all.push_back(next);
}

} // namespace

bool inside(std::uint64_t at, std::uint64_t bytes, std::uint64_t size) {
  return bytes <= size && at <= size - bytes;
}

std::vector<kv_span> spans_of_positions(
  std::uint32_t from, std::uint32_t to, std::span<const block_index> source_blocks,
  std::span<const block_index> own_blocks, const kv_geometry& geometry) {
  auto byte_of = [&](std::span<const block_index> blocks, std::uint32_t position) {
    auto slot = std::uint64_t{blocks[position / geometry.block_tokens]} * geometry.block_tokens
                + position % geometry.block_tokens;
    return slot * geometry.bytes_per_token;
  };
  std::vector<kv_span> spans;
  while (from < to) {
    auto end = std::min(to, (from / geometry.block_tokens + 1) * geometry.block_tokens);
    append(
      spans, kv_span{
               byte_of(source_blocks, from), byte_of(own_blocks, from),
               std::uint64_t{end - from} * geometry.bytes_per_token});
    from = end;
  }
  return spans;
}

std::vector<kv_span> spans_of(
  std::span<const std::uint32_t> source_blocks, std::span<const std::uint32_t> own_blocks,
  std::uint64_t block_bytes, std::uint64_t bytes_max) {
  LLUMNIX_ASSERT(source_blocks.size() == own_blocks.size() && bytes_max > 0);
  std::vector<kv_span> spans;
  for (std::size_t i = 0; i < source_blocks.size(); ++i) {
    kv_span block{source_blocks[i] * block_bytes, own_blocks[i] * block_bytes, block_bytes};
    while (block.bytes > 0) {
      auto goes_on = !spans.empty() && joins(spans.back(), block) && spans.back().bytes < bytes_max;
      auto bytes = std::min(block.bytes, bytes_max - (goes_on ? spans.back().bytes : 0));
      if (goes_on)
        spans.back().bytes += bytes;
      else
        spans.push_back({block.from, block.to, bytes});
      block = {block.from + bytes, block.to + bytes, block.bytes - bytes};
    }
  }
  return spans;
}

std::uint64_t bytes_of(std::span<const kv_span> spans) {
  std::uint64_t sum = 0;
  for (const auto& span : spans)
    sum += span.bytes;
  return sum;
}

bool within(std::span<const kv_span> spans, std::uint64_t source_bytes, std::uint64_t own_bytes) {
  return std::ranges::all_of(spans, [&](const kv_span& x) {
    return inside(x.from, x.bytes, source_bytes) && inside(x.to, x.bytes, own_bytes);
  });
}

std::uint64_t bytes_of(std::span<const kv_piece> pieces) {
  std::uint64_t sum = 0;
  for (const auto& piece : pieces)
    sum += piece.bytes;
  return sum;
}

bool within(
  std::span<const kv_piece> pieces, std::uint64_t memory_bytes, std::uint64_t staging_bytes) {
  for (const auto& piece : pieces) {
    if (!inside(piece.at, piece.bytes, memory_bytes) || piece.bytes > staging_bytes)
      return false;
    staging_bytes -= piece.bytes;
  }
  return true;
}

void gather(
  std::span<const std::byte> memory, std::span<const kv_piece> pieces,
  std::span<std::byte> staging) {
  for (const auto& piece : pieces) {
    std::ranges::copy(memory.subspan(piece.at, piece.bytes), staging.begin());
    staging = staging.subspan(piece.bytes);
  }
}

void scatter(
  std::span<std::byte> memory, std::span<const kv_piece> pieces,
  std::span<const std::byte> staging) {
  for (const auto& piece : pieces) {
    std::ranges::copy(staging.first(piece.bytes), memory.subspan(piece.at).begin());
    staging = staging.subspan(piece.bytes);
  }
}

struct running_checksum::state {
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> of{XXH3_createState(), &XXH3_freeState};
};

running_checksum::running_checksum() : state_{std::make_unique<state>()} {
  LLUMNIX_ASSERT(state_->of != nullptr);
  XXH3_64bits_reset(state_->of.get());
}

running_checksum::~running_checksum() = default;

void running_checksum::add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_->of.get(), bytes.data(), bytes.size());
}

std::uint64_t running_checksum::value() const {
  return XXH3_64bits_digest(state_->of.get());
}

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t checksum_of(std::span<const std::byte> memory, std::span<const kv_piece> pieces) {
  running_checksum sum;
  for (const auto& piece : pieces)
    sum.add(memory.subspan(piece.at, piece.bytes));
  return sum.value();
}

std::vector<kv_piece> source_pieces(std::span<const kv_span> spans) {
  std::vector<kv_piece> pieces;
  for (const auto& span : spans)
    append(pieces, kv_piece{span.from, span.bytes});
  return pieces;
}

std::vector<kv_piece> own_pieces(std::span<const kv_span> spans) {
  std::vector<kv_piece> pieces;
  for (const auto& span : spans)
    append(pieces, kv_piece{span.to, span.bytes});
  return pieces;
}

} // namespace llumnix
