#pragma once

#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// What one engine step computes, as far as its duration goes.
struct step_load {
  std::uint64_t prefill_tokens = 0; ///< prompt positions computed
  double prefill_pairs = 0;         ///< per prompt n * n + 2 * n * p: n new tokens, p before them
  std::uint32_t decodes = 0;        ///< sequences that compute one output position
  std::uint64_t decode_context = 0; ///< tokens these have in the KV cache

  /// Adds a prompt's share: `tokens` new ones after `before` in the KV cache.
  void add_prefill(std::uint32_t tokens, std::uint32_t before);
  /// Adds one decoding sequence with `context` tokens in the KV cache.
  void add_decode(std::uint32_t context);
};

/// How long an engine's steps take: coefficients and formulas of latency_models.json.
struct latency_model {
  std::string id;
  double prefill_floor_ms = 0;
  double a0_ms = 0;
  double a1_ms_per_token = 0;
  double a2_ms_per_token2 = 0;
  double c0_ms = 0;
  double c1_ms_per_seq = 0;
  double c2_ms_per_ctx_token = 0;
  std::optional<std::uint64_t> kv_bytes_per_token; ///< of the real model; for modeled transfers
  std::optional<std::uint64_t> kv_capacity_tokens; ///< that fit beside the weights

  /// Milliseconds of a step at the real engine's speed. Prompts and decodes in one step: the file's
  /// `mixed`.
  double step_ms(const step_load& load) const;
  /// The same divided by `speed`, in whole nanoseconds; zero at speed 0.
  nanoseconds step_time(const step_load& load, double speed) const;
};

/// The text of runtime/engine/latency_models.json, as built in.
std::string_view latency_models_json();

/// Ids of all entries, in the file's order.
std::vector<std::string> latency_model_ids();

/// The entry called `id`; `not_found` names the nearest.
result<latency_model> find_latency_model(std::string_view id);

} // namespace llumnix
