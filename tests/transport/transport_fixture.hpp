#pragma once

#include "transport/kv_transport.hpp"

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace llumnix::testing {

using namespace std::chrono_literals;

/// The byte at `offset` of a region filled with `seed`.
std::byte pattern(std::uint64_t seed, std::uint64_t offset);
void fill(std::span<std::byte> memory, std::uint64_t seed);
/// The first offset in [at, at + bytes) of `memory` that is not what `seed` gives for `from` and
/// on; nothing when all is right.
std::optional<std::uint64_t> first_difference(
  std::span<const std::byte> memory, std::uint64_t at, std::uint64_t bytes, std::uint64_t seed,
  std::uint64_t from);

/// How a pull ended, and how often.
class ending {
public:
  /// To give to `pull`.
  std::function<void(kv_transport::outcome)> callback();
  /// Waits until it came; fails the test after ten seconds.
  kv_transport::outcome wait() const;
  bool came() const;
  int times() const;

private:
  struct state {
    mutable std::mutex mutex;
    mutable std::condition_variable changed;
    int times = 0;
    kv_transport::outcome last;
  };
  std::shared_ptr<state> state_ = std::make_shared<state>();
};

/// Something that is called once, such as `closed`.
class signal {
public:
  std::function<void()> callback();
  /// False when it did not come within `patience`.
  bool wait(std::chrono::milliseconds patience = 10s) const;
  bool came() const { return wait(0ms); }

private:
  ending ended_;
};

/// Block numbers 0..count-1 in an order drawn from `seed`.
std::vector<std::uint32_t> shuffled(std::uint32_t count, std::uint64_t seed);

/// Waits until `holds`, ten seconds at most.
bool eventually(const std::function<bool()>& holds);

} // namespace llumnix::testing
