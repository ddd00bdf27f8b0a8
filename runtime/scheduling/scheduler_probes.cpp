#include "runtime/scheduling/scheduler_probes.hpp"

namespace llumnix {

void gauge_board::show(std::vector<instance_gauges> changed) {
  std::lock_guard guard{mutex_};
  for (auto& each : changed) {
    auto id = each.instance;
    shown_.insert_or_assign(std::move(id), std::move(each));
  }
}

void gauge_board::forget(const instance_id& id) {
  std::lock_guard guard{mutex_};
  shown_.erase(id);
}

std::vector<instance_gauges> gauge_board::all() const {
  std::lock_guard guard{mutex_};
  std::vector<instance_gauges> all;
  all.reserve(shown_.size());
  for (const auto& [id, each] : shown_)
    all.push_back(each);
  return all;
}

void chosen_loads::observe(const instance_load& load, const placement_reasons& reasons) {
  kv_usage.observe(load.kv_usage);
  decode_batch.observe(load.decode_batch);
  prefill_tokens.observe(load.prefill_tokens);
  decode_tokens.observe(load.decode_tokens);
  if (reasons.predicted_ttft_ms)
    predicted_ttft.observe(*reasons.predicted_ttft_ms);
  if (reasons.predicted_tpot_ms)
    predicted_tpot.observe(*reasons.predicted_tpot_ms);
}

} // namespace llumnix
