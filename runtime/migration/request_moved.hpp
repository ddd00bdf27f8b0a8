#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/migration/request_selection.hpp"

#include <optional>

namespace llumnix {

/// A request on its way from one view to another.
struct moved_request {
  listed_request request;
  bool running = true; ///< false: it waits
};

/// The request that an instance would let go first. Where its requests are not known one by one, a
/// running one of the mean size there; none where there is none that may go.
std::optional<moved_request>
request_to_move(const instance_view& from, const request_selection& wanted);

/// The instance as it would report itself without that request, or with it: counts, tokens and KV
/// in whole blocks, and the lists where there are any.
instance_view without_request(const instance_view& from, const moved_request& moved);
instance_view with_request(const instance_view& to, const moved_request& moved);

} // namespace llumnix
