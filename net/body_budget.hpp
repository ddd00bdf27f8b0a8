#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

namespace llumnix::net {

/// The bytes of bodies that are held at a time, over all loops: of a server's requests, or of the
/// replies to those it passes on. From any thread.
class body_budget : public std::enable_shared_from_this<body_budget> {
public:
  explicit body_budget(std::size_t limit) : limit_{limit} {}

  /// All of `bytes`, or nothing and false if they would exceed the limit.
  bool take(std::size_t bytes) {
    if (taken_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= limit_)
      return true;
    give_back(bytes);
    return false;
  }
  void give_back(std::size_t bytes) { taken_.fetch_sub(bytes, std::memory_order_relaxed); }
  std::size_t taken() const { return taken_.load(std::memory_order_relaxed); }

  /// What gives back `bytes` that were taken, once it and all its copies are gone. May outlive
  /// everything else.
  std::shared_ptr<const void> hold(std::size_t bytes) {
    return {this, [budget = shared_from_this(), bytes](const void*) { budget->give_back(bytes); }};
  }

private:
  const std::size_t limit_;
  std::atomic<std::size_t> taken_{0};
};

/// What one holder has of a budget that outlives it; given back at its end. Of one thread.
class body_share {
public:
  explicit body_share(body_budget& budget) : budget_{budget} {}
  ~body_share() { clear(); }
  body_share(const body_share&) = delete;
  body_share& operator=(const body_share&) = delete;

  /// To hold `bytes` in all. False if there is no room for more; then it has what it had.
  bool grow_to(std::size_t bytes) {
    if (bytes > bytes_) {
      if (!budget_.take(bytes - bytes_))
        return false;
      bytes_ = bytes;
    }
    return true;
  }
  void clear() {
    if (bytes_ > 0)
      budget_.give_back(std::exchange(bytes_, 0));
  }

private:
  body_budget& budget_;
  std::size_t bytes_ = 0;
};

} // namespace llumnix::net
