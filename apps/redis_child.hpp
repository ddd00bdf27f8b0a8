#pragma once

#include "apps/child_process.hpp"

#include <cstdint>
#include <string>

/// A Redis server of our own on loopback: no files, gone with us.
namespace llumnix {

/// A loopback port that was free a moment ago; 0 if there is none.
std::uint16_t free_loopback_port();

/// How to run `program` as a Redis server that listens on that port and keeps nothing on disk.
child_command redis_command(const std::string& program, std::uint16_t port);

/// Whether a Redis server on that loopback port says PONG; waits up to a fifth of a second for its
/// answer.
bool redis_answers(std::uint16_t port);

} // namespace llumnix
