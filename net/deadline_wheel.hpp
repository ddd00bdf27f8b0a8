#pragma once

#include <boost/intrusive/list.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace llumnix::net {

using deadline_hook
  = boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;

/// Deadlines of any length for many items, at the price of a few pointers each time one is set: a
/// ring of slots, one for each tenth of a second, of which a tick looks at those that have passed.
///
/// An `Item` has two members, a `deadline_hook timer` and a time_point `deadline`. Unlinking
/// `timer` or destroying the item takes the deadline back.
template <class Item>
class deadline_wheel {
public:
  using clock = std::chrono::steady_clock;
  using list = boost::intrusive::list<
    Item, boost::intrusive::member_hook<Item, deadline_hook, &Item::timer>,
    boost::intrusive::constant_time_size<false>>;

  explicit deadline_wheel(clock::time_point now) : swept_{number(now)} {}

  void set(Item& item, clock::time_point at) {
    item.timer.unlink();
    item.deadline = at;
    slot(std::max(number(at), swept_)).push_back(item);
  }

  /// Moves to `due` what is due by `now`, never before its time. Call it about ten times a second.
  void sweep(clock::time_point now, list& due) {
    auto last = std::max(number(now), swept_);
    // The slot swept last is looked at again: some of it may have been due a little later.
    for (auto i = std::max(swept_, last - std::min<std::int64_t>(last, slots - 1)); i <= last; ++i)
      take(slot(i), now, due);
    swept_ = last;
  }

private:
  static constexpr std::int64_t slots = 256; // longer deadlines are met again each 25.6 s
  static constexpr std::chrono::milliseconds resolution{100};

  static std::int64_t number(clock::time_point at) { return at.time_since_epoch() / resolution; }
  list& slot(std::int64_t number) { return slots_[static_cast<std::size_t>(number % slots)]; }

  static void take(list& from, clock::time_point now, list& due) {
    for (auto it = from.begin(); it != from.end();) {
      auto& item = *it++;
      if (item.deadline > now)
        continue;
      item.timer.unlink();
      due.push_back(item);
    }
  }

  std::array<list, static_cast<std::size_t>(slots)> slots_;
  std::int64_t swept_;
};

} // namespace llumnix::net
