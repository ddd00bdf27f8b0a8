#pragma once

#include "runtime/base/time.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/engine/batch_scheduler.hpp"

#include <deque>
#include <string>
#include <vector>

namespace llumnix {

/// Ids of requests lately seen waiting: a scheduler that looks seldom still learns that they
/// arrived.
class recent_waiting {
public:
  /// Notes a request seen waiting at the start of a step.
  void add(std::string id, time_point now) { seen_.push_back({now, std::move(id)}); }
  /// Drops what was first seen more than 10 s ago; true if there was any.
  bool prune(time_point now);
  std::vector<std::string> ids() const;

private:
  struct entry {
    time_point since;
    std::string id;
  };
  std::deque<entry> seen_; ///< oldest first
};

/// Fills the load fields of `status` as vLLM's collector would (spec/llumlet.md 6): those of a
/// connector and of migration stay 0.
void collect_load(
  const batch_scheduler& scheduler, const block_manager& blocks, std::uint32_t block_tokens,
  instance_status& status);

} // namespace llumnix
