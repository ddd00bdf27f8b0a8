#include "transport/span_list.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

TEST_CASE("blocks become spans, merged where both sides go on, cut at the limit") {
  using blocks = std::vector<std::uint32_t>;
  struct row {
    const char* name;
    blocks source, own;
    std::uint64_t block_bytes, bytes_max;
    std::vector<kv_span> spans;
  };
  for (const auto& [name, source, own, block_bytes, bytes_max, spans] : {
         row{"none", {}, {}, 16, 64, {}},
         row{"one", {3}, {5}, 16, 64, {{48, 80, 16}}},
         row{"neighbours on both sides", {3, 4}, {5, 6}, 16, 64, {{48, 80, 32}}},
         row{"neighbours here alone", {3, 9}, {5, 6}, 16, 64, {{48, 80, 16}, {144, 96, 16}}},
         row{"neighbours there alone", {3, 4}, {5, 1}, 16, 64, {{48, 80, 16}, {64, 16, 16}}},
         row{"backwards", {4, 3}, {6, 5}, 16, 64, {{64, 96, 16}, {48, 80, 16}}},
         row{"cut between blocks", {0, 1, 2}, {0, 1, 2}, 16, 32, {{0, 0, 32}, {32, 32, 16}}},
         row{"cut in a block", {0, 1}, {2, 3}, 16, 24, {{0, 32, 24}, {24, 56, 8}}},
         row{"a block above the limit", {1}, {0}, 16, 6, {{16, 0, 6}, {22, 6, 6}, {28, 12, 4}}},
       }) {
    CAPTURE(name);
    CHECK(spans_of(source, own, block_bytes, bytes_max) == spans);
  }
}

TEST_CASE("spans are within their regions, or not, without overflow") {
  struct row {
    kv_span span;
    bool inside;
  };
  for (auto [span, inside] : {
         row{{0, 0, 100}, true},
         row{{0, 0, 101}, false},
         row{{99, 49, 1}, true},
         row{{100, 0, 1}, false},
         row{{0, 50, 100}, true},
         row{{0, 51, 100}, false},
         row{{UINT64_MAX, 0, 2}, false},
         row{{0, UINT64_MAX, 2}, false},
         row{{1, 1, UINT64_MAX}, false},
       }) {
    CAPTURE(span.from);
    CAPTURE(span.to);
    CAPTURE(span.bytes);
    CHECK(within(std::span{&span, 1}, 100, 150) == inside);
  }
}

TEST_CASE("bytes have one checksum, whole or in pieces") {
  for (std::size_t size : {0, 1, 200, 241, 5000, 1 << 20}) {
    CAPTURE(size);
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i)
      bytes[i] = static_cast<std::byte>(i * 7);
    const std::vector<kv_piece> pieces{{0, size / 3}, {size / 3, size - size / 3}};
    CHECK(checksum_of(bytes) == checksum_of(bytes, pieces));
  }
}

TEST_CASE("each side's pieces are merged by themselves") {
  std::vector<kv_span> spans{{0, 40, 10}, {10, 20, 10}, {30, 30, 10}};
  CHECK(source_pieces(spans) == std::vector<kv_piece>{{0, 20}, {30, 10}});
  CHECK(own_pieces(spans) == std::vector<kv_piece>{{40, 10}, {20, 20}});
}

TEST_CASE("positions lie where their blocks are, whole ones and parts of them") {
  struct row {
    std::uint32_t from, to;
    std::vector<block_index> source, own;
    std::vector<kv_span> spans;
  };
  kv_geometry geometry;
  geometry.block_tokens = 4;
  geometry.bytes_per_token = 10; // a block is 40 bytes
  for (const auto& [from, to, source, own, spans] : std::vector<row>{
         {0, 0, {1}, {2}, {}},
         {0, 4, {1}, {2}, {{40, 80, 40}}},
         {1, 3, {1}, {2}, {{50, 90, 20}}},
         {0, 8, {1, 2}, {5, 6}, {{40, 200, 80}}},                // neighbours on both sides
         {0, 8, {1, 2}, {6, 5}, {{40, 240, 40}, {80, 200, 40}}}, // on one side alone
         {3, 9, {1, 2, 3}, {5, 6, 7}, {{70, 230, 60}}},
         {6, 9, {9, 0, 3}, {9, 4, 2}, {{20, 180, 20}, {120, 80, 10}}},
       })
    CHECK(spans_of_positions(from, to, source, own, geometry) == spans);
}
