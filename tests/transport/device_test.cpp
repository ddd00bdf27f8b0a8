// The memory of a device, and copies out of it and into it.
#include "tests/transport/test_device.hpp"
#include "tests/transport/transport_fixture.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

std::vector<std::byte> pattern_of(std::size_t bytes, std::uint64_t seed) {
  std::vector<std::byte> all(bytes);
  fill(all, seed);
  return all;
}

/// Byte by byte, in words of its own.
std::vector<std::byte>
picked(const std::vector<std::byte>& memory, const std::vector<kv_piece>& pieces) {
  std::vector<std::byte> out;
  for (const auto& piece : pieces)
    for (auto at = piece.at; at < piece.at + piece.bytes; ++at)
      out.push_back(memory[at]);
  return out;
}

struct device_fixture {
  std::shared_ptr<kv_device> device = make_device();
  static constexpr std::size_t bytes = (3 << 20) + 77;
  static constexpr std::size_t margin = 64; ///< beyond the staging that is used
  test_memory memory{bytes, device};
  std::shared_ptr<std::byte> staging = *device->make_staging(bytes + margin);

  /// Both directions, with staging that begins `shift` bytes into it.
  void there_and_back(const std::vector<kv_piece>& pieces, std::size_t shift) {
    auto before = pattern_of(bytes, 1);
    memory.put(before);
    auto wanted = picked(before, pieces);
    std::fill_n(staging.get(), bytes + margin, std::byte{0xEE});
    std::span staged{staging.get() + shift, wanted.size()};
    REQUIRE(finish(*device->gather(memory.region().bytes, pieces, staged)));
    REQUIRE(std::ranges::equal(staged, wanted));
    auto is_margin = [](std::byte x) { return x == std::byte{0xEE}; };
    REQUIRE(std::all_of(staging.get(), staged.data(), is_margin));
    REQUIRE(std::all_of(staged.data() + staged.size(), staging.get() + bytes + margin, is_margin));

    auto fresh = pattern_of(wanted.size(), 2);
    std::ranges::copy(fresh, staged.begin());
    REQUIRE(finish(*device->scatter(memory.region().bytes, pieces, staged)));
    auto after = before;
    std::size_t next = 0;
    for (const auto& piece : pieces)
      for (auto at = piece.at; at < piece.at + piece.bytes; ++at)
        after[at] = fresh[next++];
    REQUIRE(memory.get() == after);
  }
};

} // namespace

TEST_CASE_FIXTURE(device_fixture, "memory of a device begins with zeros") {
  CHECK(memory.get() == std::vector<std::byte>(bytes));
}

TEST_CASE_FIXTURE(
  device_fixture, "pieces of any place and size go there and back, and neighbours stay") {
  std::mt19937_64 random{7};
  for (std::uint64_t longest : {1ul, 7ul, 40ul, 700ul, 5000ul, 300000ul, 3000000ul}) {
    CAPTURE(longest);
    // Short ones are many: as much memory as makes a few thousand of them.
    auto pieces = odd_pieces(std::min<std::uint64_t>(bytes, longest * 2000), longest, random);
    for (std::size_t shift : {0, 1, 4, 8, 13})
      there_and_back(pieces, shift);
  }
}

TEST_CASE_FIXTURE(device_fixture, "pieces whose two sides differ by every number of bytes") {
  for (std::uint64_t differ = 0; differ < 17; ++differ) {
    CAPTURE(differ);
    there_and_back({{256 + differ, 70001}, {100000 + differ, 15}, {200000, 16}, {200016, 33}}, 0);
  }
}

TEST_CASE_FIXTURE(device_fixture, "whole blocks, as an engine has them") {
  for (std::uint64_t block : {512ul, 4096ul, 32768ul, 262144ul, 1048576ul}) {
    CAPTURE(block);
    std::vector<kv_piece> pieces;
    auto count = static_cast<std::uint32_t>(bytes / block);
    for (auto at : shuffled(count, block))
      if (at % 3 != 1)
        pieces.push_back({at * block, block});
    there_and_back(pieces, 0);
  }
}

TEST_CASE_FIXTURE(device_fixture, "no piece at all is a copy too") {
  there_and_back({}, 0);
}

TEST_CASE_FIXTURE(device_fixture, "copies of one direction happen in their order") {
  const kv_piece all{0, bytes};
  auto first = pattern_of(bytes, 3), second = pattern_of(bytes, 4);
  auto other = *device->make_staging(bytes);
  std::ranges::copy(first, staging.get());
  std::ranges::copy(second, other.get());
  auto region = memory.region().bytes;
  auto one = device->scatter(region, {&all, 1}, {staging.get(), bytes});
  auto two = device->scatter(region, {&all, 1}, {other.get(), bytes});
  REQUIRE(finish(*two));
  CHECK(one->look() == kv_device::copy::state::done);
  CHECK(memory.get() == second);
}

TEST_CASE_FIXTURE(device_fixture, "a device knows its memory") {
  auto region = memory.region().bytes;
  std::vector<std::byte> ours(1000);
  CHECK(device->holds(region));
  CHECK(device->holds(region.subspan(1000, 1)));
  CHECK(!device->holds(ours));
  CHECK(!device->holds({staging.get(), 10}));
  CHECK(!device->make_memory(0));
}

TEST_CASE("what lies where is checked without overflow") {
  struct row {
    std::vector<kv_piece> pieces;
    bool fits;
  };
  for (const auto& [pieces, fits] : {
         row{{}, true},
         row{{{90, 10}}, true},
         row{{{91, 10}}, false},
         row{{{UINT64_MAX - 5, 10}}, false},
         row{{{0, UINT64_MAX}}, false},
         row{{{0, 25}, {0, 25}}, true},
         row{{{0, 25}, {0, 26}}, false},
       }) {
    CAPTURE(bytes_of(pieces));
    CHECK(within(std::span{pieces}, 100, 50) == fits);
  }
}
