#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "runtime/scheduling/dispatcher.hpp"

namespace llumnix {

/// Applies what CMS told to a dispatcher's view and account. Foreign instances are left out unless
/// asked for: no llumlet of ours takes a request for them.
void apply(dispatcher& to, const view_change_msg& change, unix_ms now, bool foreign_too = false);

} // namespace llumnix
