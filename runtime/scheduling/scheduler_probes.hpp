#pragma once

#include "runtime/base/metric_bounds.hpp"
#include "runtime/base/probes.hpp"
#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/instance_gauges.hpp"
#include "runtime/scheduling/prefix_probes.hpp"

#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace llumnix {

/// Gauges of instances, each with its `instance`. From any thread.
template <class Gauges>
class gauge_board {
public:
  void show(std::vector<Gauges> changed) {
    std::lock_guard guard{mutex_};
    for (auto& each : changed) {
      auto id = each.instance;
      shown_.insert_or_assign(std::move(id), std::move(each));
    }
  }
  void forget(const instance_id& id) {
    std::lock_guard guard{mutex_};
    shown_.erase(id);
  }
  /// By id.
  std::vector<Gauges> all() const {
    std::lock_guard guard{mutex_};
    std::vector<Gauges> all;
    all.reserve(shown_.size());
    for (const auto& [id, each] : shown_)
      all.push_back(each);
    return all;
  }

private:
  mutable std::mutex mutex_;
  std::map<instance_id, Gauges> shown_;
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

/// What SCHEDULER tells `/metrics` (spec/scheduling.md 10). It writes all but `prefixes.query_ms`,
/// which is the loop's that serves gateways of other makes.
struct scheduler_probes {
  gauge_board<request_gauges> requests; ///< in lite mode, which knows no loads
  prefix_probes prefixes;               ///< of requests of gateways of other makes
  // In full mode:
  gauge_board<instance_gauges> instances;
  chosen_loads prefill; ///< a neutral choice counts in both
  chosen_loads decode;
};

} // namespace llumnix
