#include "gateway/relay/engine_trouble.hpp"

#include <algorithm>

namespace llumnix::relay {

time_point engine_trouble::rest_end() const {
  if (!any_.load(std::memory_order_acquire))
    return {};
  std::lock_guard guard{mutex_};
  return std::max(resting_until_, backoff_.resting_until());
}

bool engine_trouble::offer(time_point now) {
  if (!any_.load(std::memory_order_acquire))
    return true;
  std::lock_guard guard{mutex_};
  if (resting_until_ > now || backoff_.resting(now))
    return false;
  backoff_.on_offered(now);
  return true;
}

void engine_trouble::rest(time_point until, time_point now) {
  std::lock_guard guard{mutex_};
  begin(now);
  resting_until_ = std::max(resting_until_, until);
  backoff_.on_rest(now);
  any_.store(true, std::memory_order_release);
}

void engine_trouble::on_failure(time_point asked_at, time_point now) {
  std::lock_guard guard{mutex_};
  begin(now);
  backoff_.on_failure(asked_at, now);
  any_.store(true, std::memory_order_release);
}

void engine_trouble::on_success(time_point asked_at) {
  if (!any_.load(std::memory_order_acquire))
    return;
  std::lock_guard guard{mutex_};
  backoff_.on_success(asked_at);
  if (backoff_.failures() == 0 && asked_at >= resting_until_)
    any_.store(false, std::memory_order_release);
}

void engine_trouble::on_asked(time_point now) {
  if (!any_.load(std::memory_order_acquire))
    return;
  std::lock_guard guard{mutex_};
  backoff_.on_asked(now);
}

bool engine_trouble::surprised(time_point placed_at) const {
  std::lock_guard guard{mutex_};
  return outage_at_ && placed_at <= *outage_at_;
}

/// An outage, if there is none yet.
void engine_trouble::begin(time_point now) {
  bool known = backoff_.failures() > 0 || resting_until_ > now;
  if (!known && (!outage_at_ || now - *outage_at_ >= outages_apart))
    outage_at_ = now;
}

} // namespace llumnix::relay
