#pragma once

#include "actors/protocol/cluster_messages.hpp"

#include <caf/all.hpp>

namespace llumnix {

/// NODE CONNECTOR over TCP: dials with a deadline of its own, on a thread of its own (spawn it
/// detached), so that an address that swallows packets holds up nobody else.
connector_actor::behavior_type make_dialler(connector_actor::pointer self);

/// NODE CONNECTOR over whatever CAF I/O actor is given: the TLS manager in production, the test
/// multiplexer's middleman in the virtual cluster.
connector_actor::behavior_type
make_middleman_connector(connector_actor::pointer self, caf::actor middleman);

} // namespace llumnix
