#pragma once

namespace llumnix {

/// Prints the broken invariant and ends the process.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

} // namespace llumnix

/// A broken invariant is a bug: checked in release builds too, and the process stops.
#define LLUMNIX_ASSERT(expression)                                                                 \
  (static_cast<bool>(expression) ? void(0)                                                         \
                                 : ::llumnix::assertion_failed(#expression, __FILE__, __LINE__))
