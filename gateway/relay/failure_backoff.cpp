#include "gateway/relay/failure_backoff.hpp"

#include <algorithm>

namespace llumnix::relay {

void failure_backoff::on_failure(time_point asked_at, time_point now) {
  if (failures_ > 0 && asked_at < failed_at_)
    return;
  ++failures_;
  failed_at_ = now;
  until_ = now + rest();
  offered_ = false;
}

void failure_backoff::on_rest(time_point now) {
  if (failures_ > 0)
    return;
  failures_ = 1;
  failed_at_ = now;
}

void failure_backoff::on_success(time_point asked_at) {
  if (failures_ > 0 && asked_at >= failed_at_)
    *this = {};
}

void failure_backoff::on_offered(time_point now) {
  if (!on_trial(now))
    return;
  until_ = now + shortest;
  offered_ = true;
}

void failure_backoff::on_asked(time_point now) {
  if (offered_ || on_trial(now))
    until_ = now + rest();
  offered_ = false;
}

std::chrono::milliseconds failure_backoff::rest() const {
  constexpr std::uint32_t doublings_max = 7; // beyond `longest`
  return std::min(shortest * (1 << std::min(failures_ - 1, doublings_max)), longest);
}

} // namespace llumnix::relay
