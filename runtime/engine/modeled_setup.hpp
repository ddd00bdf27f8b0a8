#pragma once

#include "config/cluster_config.hpp"
#include "runtime/base/result.hpp"
#include "runtime/engine/batch_scheduler.hpp"
#include "runtime/engine/latency_model.hpp"

#include <optional>
#include <string>

namespace llumnix {

/// `engine.corrupt`, taken apart.
struct corrupt_block {
  std::string text_id;
  std::uint32_t block = 0; ///< counted from 0 in the request's table
};

/// An `engine_config` with its defaults filled in and found sound.
struct modeled_setup {
  latency_model latency;
  double speed = 1;
  std::uint32_t blocks = 0;
  std::uint32_t block_tokens = 0;
  std::uint32_t kv_bytes_per_token = 0;
  std::uint32_t max_model_len = 0;
  std::size_t max_waiting = 0;
  batch_limits limits;
  bool prefix_cache = true;
  bool poison_freed = false;
  std::optional<corrupt_block> corrupt;
};

/// Checks a configuration; errors begin with the knob at fault and say the way out.
result<modeled_setup> make_modeled_setup(const engine_config& config);

} // namespace llumnix
