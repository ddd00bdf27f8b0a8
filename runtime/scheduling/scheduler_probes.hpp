#pragma once

#include "runtime/base/metric_bounds.hpp"
#include "runtime/base/probes.hpp"
#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/instance_gauges.hpp"

#include <map>
#include <mutex>
#include <vector>

namespace llumnix {

/// The gauges of all instances. From any thread.
class gauge_board {
public:
  void show(std::vector<instance_gauges> changed);
  void forget(const instance_id& id);
  /// By id.
  std::vector<instance_gauges> all() const;

private:
  mutable std::mutex mutex_;
  std::map<instance_id, instance_gauges> shown_;
};

/// How loaded the instances were that a role's requests went to, the request included. One thread
/// at a time writes.
struct chosen_loads {
  loop_histogram kv_usage{metric_bounds::ratio};
  loop_histogram decode_batch{metric_bounds::batch};
  loop_histogram prefill_tokens{metric_bounds::tokens};
  loop_histogram decode_tokens{metric_bounds::tokens};
  loop_histogram predicted_ttft{metric_bounds::ttft_ms};
  loop_histogram predicted_tpot{metric_bounds::token_ms};

  void observe(const instance_load& load, const placement_reasons& reasons);
};

/// What SCHEDULER tells `/metrics` (spec/scheduling.md 10): in full mode, as lite mode knows no
/// loads. SCHEDULER writes.
struct scheduler_probes {
  gauge_board instances;
  chosen_loads prefill; ///< a neutral choice counts in both
  chosen_loads decode;
};

} // namespace llumnix
