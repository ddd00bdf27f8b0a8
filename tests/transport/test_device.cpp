#include "tests/transport/test_device.hpp"

#include "tests/transport/transport_fixture.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

namespace llumnix::testing {

namespace {

constexpr std::uint64_t part_bytes = 4 << 20;

} // namespace

test_memory::test_memory(std::size_t bytes, std::shared_ptr<kv_device> device)
  : device_{std::move(device)} {
  if (!device_) {
    host_.resize(bytes);
    bytes_ = host_;
    return;
  }
  auto made = device_->make_memory(bytes);
  REQUIRE_MESSAGE(made.has_value(), (made ? "" : to_string(made.error())));
  memory_ = std::move(*made);
  bytes_ = {memory_.get(), bytes};
}

void test_memory::put(std::span<const std::byte> all) {
  if (!device_) {
    std::ranges::copy(all, host_.begin());
    return;
  }
  auto staging = *device_->make_staging(part_bytes);
  for (std::uint64_t at = 0; at < all.size(); at += part_bytes) {
    const kv_piece piece{at, std::min(part_bytes, all.size() - at)};
    std::ranges::copy(all.subspan(at, piece.bytes), staging.get());
    REQUIRE(finish(*device_->scatter(bytes_, {&piece, 1}, {staging.get(), piece.bytes})));
  }
}

std::vector<std::byte> test_memory::get() const {
  if (!device_)
    return host_;
  std::vector<std::byte> all(size());
  auto staging = *device_->make_staging(part_bytes);
  for (std::uint64_t at = 0; at < all.size(); at += part_bytes) {
    const kv_piece piece{at, std::min(part_bytes, all.size() - at)};
    REQUIRE(finish(*device_->gather(bytes_, {&piece, 1}, {staging.get(), piece.bytes})));
    std::copy_n(staging.get(), piece.bytes, all.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return all;
}

void test_memory::fill(std::uint64_t seed) {
  std::vector<std::byte> all(size());
  testing::fill(all, seed);
  put(all);
}

class held_device::held_copy final : public kv_device::copy {
public:
  held_copy(
    std::shared_ptr<held_device> of, std::uint64_t bytes, int looks,
    std::function<std::unique_ptr<copy>()> begin)
    : of_{std::move(of)}, bytes_{bytes}, looks_{looks}, begin_{std::move(begin)} {
    ++of_->waiting_;
    of_->bytes_waiting_ += bytes_;
  }
  ~held_copy() override {
    if (!over_)
      ++of_->dropped_;
    if (!begun_)
      leave();
  }
  state look() override {
    if (!begun_) {
      if (of_->held_ || looks_-- > 0)
        return state::under_way;
      begun_ = true;
      leave();
      ++of_->begun_;
      if (!of_->fails_)
        under_way_ = begin_();
    }
    auto found = under_way_ ? under_way_->look() : state::failed;
    over_ = found != state::under_way;
    return found;
  }

private:
  void leave() {
    --of_->waiting_;
    of_->bytes_waiting_ -= bytes_;
  }
  std::shared_ptr<held_device> of_;
  std::uint64_t bytes_;
  int looks_;
  std::function<std::unique_ptr<copy>()> begin_;
  std::unique_ptr<copy> under_way_;
  bool begun_ = false, over_ = false;
};

std::unique_ptr<kv_device::copy>
held_device::order(std::uint64_t bytes, std::function<std::unique_ptr<copy>()> begin) {
  int looks = 0;
  if (jitter_) {
    std::lock_guard lock{mutex_};
    looks = static_cast<int>(random_() % 8);
  }
  return std::make_unique<held_copy>(shared_from_this(), bytes, looks, std::move(begin));
}

std::unique_ptr<kv_device::copy> held_device::gather(
  std::span<const std::byte> memory, std::span<const kv_piece> pieces,
  std::span<std::byte> staging) {
  std::vector<kv_piece> kept{pieces.begin(), pieces.end()};
  return order(bytes_of(pieces), [=, this] { return of_->gather(memory, kept, staging); });
}

std::unique_ptr<kv_device::copy> held_device::scatter(
  std::span<std::byte> memory, std::span<const kv_piece> pieces,
  std::span<const std::byte> staging) {
  std::vector<kv_piece> kept{pieces.begin(), pieces.end()};
  return order(bytes_of(pieces), [=, this] { return of_->scatter(memory, kept, staging); });
}

std::vector<kv_piece>
odd_pieces(std::uint64_t bytes, std::uint64_t longest, std::mt19937_64& random) {
  std::vector<kv_piece> pieces;
  std::uint64_t at = 0;
  while (at < bytes) {
    auto size = std::min(1 + random() % longest, bytes - at);
    if (random() % 4 != 0)
      pieces.push_back({at, size});
    at += size;
  }
  std::ranges::shuffle(pieces, random);
  return pieces;
}

std::vector<kv_span>
odd_spans(std::uint64_t bytes, std::uint64_t own_bytes, std::uint64_t longest, std::uint64_t seed) {
  std::mt19937_64 random{seed};
  std::vector<kv_span> spans;
  std::uint64_t to = 0;
  for (const auto& piece : odd_pieces(bytes, longest, random)) {
    if (random() % 3 == 0)
      to += random() % 40;
    if (to + piece.bytes > own_bytes)
      break;
    spans.push_back({piece.at, to, piece.bytes});
    to += piece.bytes;
  }
  std::ranges::shuffle(spans, random);
  return spans;
}

std::vector<std::byte> landed(
  std::vector<std::byte> own, const std::vector<std::byte>& source,
  const std::vector<kv_span>& spans) {
  for (const auto& span : spans)
    std::memcpy(own.data() + span.to, source.data() + span.from, span.bytes);
  return own;
}

} // namespace llumnix::testing
