#pragma once

#include "runtime/serving/stream_table.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace llumnix {

/// Set in the numbers of relays, the streams whose engine the loop itself speaks to over HTTP; the
/// streams of a `stream_table` have it clear. So both can share a loop, its hub and its GATEWAY.
constexpr std::uint64_t relay_bit = std::uint64_t{1} << 63;

constexpr bool is_relay(std::uint64_t stream) {
  return (stream & relay_bit) != 0;
}

/// A relay that is to go on at another instance, though its engine is well.
struct relay_move {
  std::uint64_t number = 0;
  instance_id from; ///< it must still be there
  instance_id to;
  std::string policy; ///< who wants it, for people
};

/// What became of it.
struct relay_moved {
  std::string request{}; ///< its text id; empty where there is none of that number
  std::string outcome{}; ///< moved, finished (meanwhile), refused (it stays where it is), failed
  std::string reason{};  ///< unless it moved to where it was to go
  bool lasting = false;  ///< refused, and asked again it would be, wherever it is to go
  instance_id at{};      ///< where it is now
  std::uint32_t epoch = 0;
  std::uint32_t tokens = 0; ///< that were computed once more
  nanoseconds gap{0};       ///< from the end at one engine to the first word of the other
};

/// The relays of one I/O loop, as those see them who answer for placements: what `stream_table` is
/// for streams whose tokens come from llumlets. A port: `gateway/relay` in production, a script in
/// tests. Called on the loop only. Numbers have the `relay_bit`; what is said of unknown ones, or
/// under an epoch that has been overtaken, is ignored.
///
/// A relay asks with `stream_port::place_relayed`, once for each epoch; before it asks under the
/// next one, or when it ends, it has closed its connection to the instance it had. Its end, however
/// it comes, is told once with `stream_port::closed`: until then its load counts at its instance.
class relay_desk {
public:
  virtual ~relay_desk() = default;
  /// The request may be sent to this instance now.
  virtual void
  on_placed(std::uint64_t number, std::uint32_t epoch, const stream_owner& owner, time_point now)
    = 0;
  /// No instance could be had in time, or too many requests wait.
  virtual void
  on_unplaceable(std::uint64_t number, std::uint32_t epoch, const error& why, time_point now)
    = 0;
  /// Whoever was asked for placements has forgotten: asks again, as a replay under the same epoch,
  /// for each relay that has no instance.
  virtual void place_again(time_point now) = 0;
  /// About every 100 ms.
  virtual void sweep(time_point now) = 0;
  /// Where the relays stand, in the order of their numbers.
  virtual std::vector<stream_info> list(time_point now) const = 0;
  /// Has a relay go on elsewhere, from what its client has. `done` is called once, on the loop,
  /// perhaps at once.
  virtual void move(const relay_move& wanted, std::function<void(relay_moved)> done) = 0;
  /// The instance gets nothing new from now on, or gets it again. What is placed there meanwhile is
  /// placed anew.
  virtual void drain(const instance_id& instance, bool on) = 0;
};

} // namespace llumnix
