#pragma once

#include "runtime/serving/stream_table.hpp"

#include <cstdint>
#include <vector>

namespace llumnix {

/// Set in the numbers of relays, the streams whose engine the loop itself speaks to over HTTP; the
/// streams of a `stream_table` have it clear. So both can share a loop, its hub and its GATEWAY.
constexpr std::uint64_t relay_bit = std::uint64_t{1} << 63;

constexpr bool is_relay(std::uint64_t stream) {
  return (stream & relay_bit) != 0;
}

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
};

} // namespace llumnix
