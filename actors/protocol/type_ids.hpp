#pragma once

namespace caf {
class actor_system_config;
}

namespace llumnix {

/// Grows with every change of a message or interface: nodes of different versions refuse each
/// other's links.
inline constexpr int protocol_version = 13;

/// Registers every message type. A type that is missing here would arrive as an empty message.
void register_types(caf::actor_system_config& config);

} // namespace llumnix
