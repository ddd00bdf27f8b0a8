#pragma once

namespace llumnix::exit_code {

/// What the process tells its caller. `up` and `serve` are also done after an orderly stop by a
/// signal.
inline constexpr int done = 0;
inline constexpr int failed = 1;
inline constexpr int usage = 2;       ///< of the command line or the configuration
inline constexpr int unreachable = 3; ///< the cluster cannot be reached
inline constexpr int refused = 4;     ///< with the reason
inline constexpr int interrupted = 130;

} // namespace llumnix::exit_code
