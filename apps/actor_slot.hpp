#pragma once

#include <mutex>
#include <utility>

namespace llumnix {

/// An actor that others are to find, null until it is started; replaced when it is started again.
/// Safe from any thread.
template <class Actor>
class actor_slot {
public:
  void set(Actor actor) {
    std::lock_guard guard{mutex_};
    actor_ = std::move(actor);
  }
  Actor get() const {
    std::lock_guard guard{mutex_};
    return actor_;
  }

private:
  mutable std::mutex mutex_;
  Actor actor_;
};

} // namespace llumnix
