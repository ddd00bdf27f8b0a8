#pragma once

#include "runtime/cluster/instance.hpp"
#include "runtime/engine/batch_scheduler.hpp"

namespace llumnix {

/// Fills the load fields of `status` as vLLM's collector would (spec/llumlet.md 6): those of a
/// connector and of migration stay 0.
void collect_load(
  const batch_scheduler& scheduler, const block_manager& blocks, std::uint32_t block_tokens,
  instance_status& status);

} // namespace llumnix
