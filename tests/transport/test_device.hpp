#pragma once

#include "transport/kv_device.hpp"
#include "transport/kv_transport.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <vector>

namespace llumnix::testing {

/// A device of the kind that a test program is about: host_device_maker.cpp, cuda_device_maker.cpp.
std::shared_ptr<kv_device> make_device();
/// The program beside the test's that is a source with such a device (transport_peer.cpp).
const char* peer_program();

/// Memory of the host or of a device, all zeros, and how a test looks at it.
class test_memory {
public:
  /// Of the host without a device.
  test_memory(std::size_t bytes, std::shared_ptr<kv_device> device);
  kv_memory region() const { return {bytes_, device_}; }
  std::size_t size() const { return bytes_.size(); }

  void put(std::span<const std::byte> all);
  std::vector<std::byte> get() const;
  /// With the pattern of transport_fixture.hpp.
  void fill(std::uint64_t seed);

private:
  std::shared_ptr<kv_device> device_;
  std::vector<std::byte> host_;
  std::shared_ptr<std::byte> memory_;
  std::span<std::byte> bytes_;
};

/// Another device with a hand on its copies. They may be held before they begin, or fail; and each
/// is under way for a while, drawn from `seed`.
class held_device final : public kv_device, public std::enable_shared_from_this<held_device> {
public:
  explicit held_device(std::shared_ptr<kv_device> of, std::uint64_t seed = 0)
    : of_{std::move(of)}, random_{seed}, jitter_{seed != 0} {}

  void hold() { held_ = true; }
  void let_go() { held_ = false; }
  /// From now on copies fail, having done nothing.
  void fail() { fails_ = true; }
  /// Copies that have been ordered and have not begun, and their bytes.
  int waiting() const { return waiting_; }
  std::uint64_t bytes_waiting() const { return bytes_waiting_; }
  /// Copies that somebody let go of before they were over.
  int dropped() const { return dropped_; }
  std::uint64_t begun() const { return begun_; }
  /// How often staging was made.
  int stagings() const { return stagings_; }

  bool holds(std::span<const std::byte> memory) const override { return of_->holds(memory); }
  result<std::shared_ptr<std::byte>> make_memory(std::uint64_t bytes) override {
    return of_->make_memory(bytes);
  }
  result<std::shared_ptr<std::byte>> make_staging(std::uint64_t bytes) override {
    ++stagings_;
    return of_->make_staging(bytes);
  }
  std::unique_ptr<copy> gather(
    std::span<const std::byte> memory, std::span<const kv_piece> pieces,
    std::span<std::byte> staging) override;
  std::unique_ptr<copy> scatter(
    std::span<std::byte> memory, std::span<const kv_piece> pieces,
    std::span<const std::byte> staging) override;

private:
  class held_copy;
  std::unique_ptr<copy> order(std::uint64_t bytes, std::function<std::unique_ptr<copy>()> begin);

  std::shared_ptr<kv_device> of_;
  std::mutex mutex_;
  std::mt19937_64 random_;
  bool jitter_;
  std::atomic<bool> held_ = false, fails_ = false;
  std::atomic<int> waiting_ = 0, dropped_ = 0, stagings_ = 0;
  std::atomic<std::uint64_t> bytes_waiting_ = 0, begun_ = 0;
};

/// Pieces of [0, bytes) that do not overlap, of odd places and sizes; many begin where another one
/// ends. In an order of their own.
std::vector<kv_piece>
odd_pieces(std::uint64_t bytes, std::uint64_t longest, std::mt19937_64& random);

/// Spans that move what odd pieces hold to odd places in an own region of `own_bytes`, beside each
/// other or not.
std::vector<kv_span>
odd_spans(std::uint64_t bytes, std::uint64_t own_bytes, std::uint64_t longest, std::uint64_t seed);

/// What `own` becomes when the spans' bytes of `source` land in it.
std::vector<std::byte> landed(
  std::vector<std::byte> own, const std::vector<std::byte>& source,
  const std::vector<kv_span>& spans);

} // namespace llumnix::testing
