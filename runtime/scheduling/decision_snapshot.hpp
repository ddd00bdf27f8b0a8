#pragma once

#include "config/cluster_config.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/scheduling/adaptive_pd.hpp"
#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/load_metrics.hpp"
#include "runtime/scheduling/prefix_hits.hpp"
#include "runtime/scheduling/step_model.hpp"

#include <array>
#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// A cluster as one decision saw it: all that it takes to make the decision again. As large as the
/// cluster.
struct decision_snapshot {
  struct instance {
    instance_metadata metadata;
    instance_status status;
    bool reported = false; ///< `status` is one
    instance_state state = instance_state::ready;
    bool reachable = true; ///< by whoever asks
    inflight_load account; ///< what was sent and no status shows
    /// As predicted for the request, by name, ms; none where the policy does not predict.
    given_metrics predicted;
  };
  scheduler_config config;
  unix_ms now = 0;
  placement_query query;
  std::optional<prefix_hits> hits;
  std::vector<instance> instances;   ///< by id
  std::array<instance_id, 3> last{}; ///< what selectors chose last, by infer_type
  /// Who took the last request of the query's session, by infer_type.
  std::array<instance_id, 3> session_last{};
  reservations reserved;
  std::optional<step_coefficients> step_model;
};

/// How a decision becomes a scene, which `llumnix decide` answers: JSON.
using scene_writer = std::function<std::string(const decision_snapshot&)>;

/// The last decisions, whole, for those who ask later.
class decision_archive {
public:
  /// Keeps at most so many; 0: none, and nothing is to be handed over.
  explicit decision_archive(std::size_t most = 0) : most_{most} {}

  bool keeps() const { return most_ > 0; }
  void keep(decision_snapshot decision);
  /// The latest of a request (of its first choice, where it has several); null if none is kept.
  const decision_snapshot* find(const std::string& request_id) const;

private:
  std::size_t most_;
  std::deque<decision_snapshot> kept_; ///< oldest first
};

} // namespace llumnix
