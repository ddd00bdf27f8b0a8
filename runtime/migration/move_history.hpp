#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace llumnix {

/// How often the requests of one instance were moved by load, here and before they came, and when
/// last (spec/migration.md 10: one hand-over in 2 s, and 5 in all). Moves by hand, drains and
/// failovers are let through whatever it says, but begin a cool-down too: what has just come stays
/// for a while.
///
/// Bounded: of very many requests the one at rest the longest is forgotten, and may move once more.
class move_history {
public:
  move_history() = default;
  move_history(nanoseconds cool_down, std::uint32_t moves_max);

  /// Whether it may be moved by load now.
  bool may_move(const stream_ref& request, time_point now) const;
  /// A hand-over of it begins. The moves by load so far, this one included, for its destination.
  std::uint32_t begin(const stream_ref& request, bool by_load, time_point now);
  /// It came here, with as many behind it.
  void arrived(const stream_ref& request, std::uint32_t moves, time_point now);
  /// It is here no more.
  void forget(const stream_ref& request) { known_.erase(request); }
  /// All that are here now; the others are forgotten.
  void keep_only(std::vector<stream_ref> here);
  std::size_t size() const { return known_.size(); }

  static constexpr std::size_t known_max = 16384;

private:
  struct past {
    std::uint32_t moves = 0; ///< by load
    time_point last{};       ///< hand-over: it came, or was to leave by load
  };
  void make_room();

  nanoseconds cool_down_{0};
  std::uint32_t moves_max_ = 0;
  std::map<stream_ref, past> known_;
};

} // namespace llumnix
