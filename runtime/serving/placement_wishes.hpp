#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace llumnix {

/// What a request asks of its placement itself (docs/policies.md, "Per request").
struct placement_wishes {
  std::optional<float> ttft_slo_ms; ///< to the first token, in place of `scheduler.ttft_slo_ms`
  std::optional<float> tpot_slo_ms; ///< per output token, in place of `scheduler.tpot_slo_ms`
  std::string session;   ///< requests of the same one like the same instance; empty: none
  std::string adapter{}; ///< model it names, where instances that have it as a LoRA are preferred
  std::int32_t priority = 0; ///< lower goes first, as in vLLM
  friend bool operator==(const placement_wishes&, const placement_wishes&) = default;
};

} // namespace llumnix
