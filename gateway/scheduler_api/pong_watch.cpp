#include "gateway/scheduler_api/pong_watch.hpp"

namespace llumnix::scheduler_api {

pong_watch::action pong_watch::on_tick(time_point now) {
  if (now < due_)
    return action::wait;
  due_ = now + every;
  if (misses_ == misses_max)
    return action::close;
  ++misses_;
  return action::ping;
}

} // namespace llumnix::scheduler_api
