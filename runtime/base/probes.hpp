#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace llumnix {

/// A number one thread at a time writes and any thread reads, without a lock.
template <class T>
class single_writer {
public:
  void add(T amount) {
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  T get() const { return value_.load(std::memory_order_relaxed); }

private:
  std::atomic<T> value_{};
};

/// A histogram one thread at a time observes into and any thread reads.
class loop_histogram {
public:
  /// `bounds`: upper bounds of the buckets, ascending; static data.
  explicit loop_histogram(std::span<const double> bounds);
  void observe(double value);

  std::span<const double> bounds() const { return bounds_; }
  /// Observations in bucket i, not cumulative; the last is above every bound.
  std::uint64_t count(std::size_t i) const { return counts_[i].get(); }
  double sum() const { return sum_.get(); }

private:
  std::span<const double> bounds_;
  std::vector<single_writer<std::uint64_t>> counts_;
  single_writer<double> sum_;
};

} // namespace llumnix
