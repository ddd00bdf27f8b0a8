#include "runtime/scheduling/scheduler_probes.hpp"

namespace llumnix {

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
