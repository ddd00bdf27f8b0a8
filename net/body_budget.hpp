#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

namespace llumnix::net {

/// The bytes of request bodies that a server holds at a time, over all its loops. From any thread.
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

} // namespace llumnix::net
