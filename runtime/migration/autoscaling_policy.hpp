#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/result.hpp"
#include "runtime/cluster/instance.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// The band that the average freeness is kept in, and how many instances there may be. Defaults:
/// the evaluation of the paper.
struct scaling_band {
  double low = 10;        ///< steps; below it one instance more
  double high = 60;       ///< steps; above it one less
  std::int64_t least = 1; ///< instances
  std::int64_t most = 16; ///< instances
};

/// An instance as far as scaling goes.
struct scalable_instance {
  instance_id id;
  float freeness = 0; ///< metric `freeness`
  std::int32_t running_requests = 0;
  instance_state state = instance_state::ready;
  bool reported = true; ///< a status has come
};

enum class scaling_action : std::uint8_t { none, scale_out, scale_in };
/// "none", "scale_out", "scale_in".
std::string_view to_string(scaling_action action);

/// One look at the size of the cluster.
struct scaling_decision {
  double average = 0; ///< freeness, steps
  scaling_action action = scaling_action::none;
  instance_id leaves; ///< of `scale_in`: the one with the fewest running requests
  std::string reason; ///< a sentence
};

/// Whether the cluster should grow or shrink by one instance (spec/rescheduling.md 7.3). Fails with
/// `invalid_argument` and every problem of the band.
///
/// Only `ready` instances count: others are gone or about to go. The average is plain arithmetic:
/// one idle instance makes it infinite, which is above any band, so an instance is given back
/// while another does nothing; one at minus infinity makes it that, whatever the others are. The
/// average of nothing is infinite. The numbers of instances only limit what the average asks for,
/// but that a cluster without any grows; and nothing is decided while an instance has yet to
/// report.
///
/// It has no memory. Whoever asks waits until an action was wanted for a while, until a new
/// instance has had time to fill, and does one thing at a time.
result<scaling_decision>
scale(std::span<const scalable_instance> instances, const scaling_band& band);

} // namespace llumnix
