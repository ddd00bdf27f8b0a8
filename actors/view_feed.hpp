#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "runtime/scheduling/dispatcher.hpp"

namespace llumnix {

/// Applies what CMS told to a dispatcher's view and account.
void apply(dispatcher& to, const view_change_msg& change, unix_ms now);

} // namespace llumnix
