#pragma once

#include "actors/protocol/interfaces.hpp"
#include "runtime/base/time.hpp"

#include <optional>

namespace llumnix {

/// Has an actor sent a `tick_atom` when a machine wants it, and not one for each event: an earlier
/// tick under way will do, for ticks that come early do no harm.
class alarm {
public:
  template <class Self>
  void set(Self* self, std::optional<time_point> due) {
    if (!due || (set_for_ && *set_for_ <= *due))
      return;
    set_for_ = due;
    auto now = self->clock().now();
    self->delayed_send(self, *due > now ? *due - now : nanoseconds{0}, tick_atom::value);
  }
  /// A tick has come; one that an earlier one was set in front of leaves that one's place alone.
  void rang(time_point now) {
    if (set_for_ && *set_for_ <= now)
      set_for_.reset();
  }

private:
  std::optional<time_point> set_for_;
};

} // namespace llumnix
