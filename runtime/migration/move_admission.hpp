#pragma once

#include "runtime/base/result.hpp"
#include "runtime/migration/handover.hpp"

#include <cstdint>
#include <optional>

namespace llumnix {

/// An instance that is offered a request, as far as it matters.
struct arrival_facts {
  stream_owner self;
  std::optional<kv_geometry> geometry; ///< of its engine; none: the engine is not its own
  bool draining = false;
  std::uint32_t arriving = 0; ///< requests in slots, now
  std::uint32_t in_slots = 0;
  bool copies_kv = false;     ///< it has a transport
  bool knows_gateway = false; ///< the stream's; nobody else could take its tokens
};

/// Whether the request may come, but for its blocks. The sentence is for the source, so it says
/// "there".
result<void> may_arrive(const handover::offer& offer, const arrival_facts& there);

} // namespace llumnix
