#pragma once

#include "runtime/base/time.hpp"

#include <chrono>
#include <string_view>

namespace llumnix::relay {

/// How long a reply asks to be left alone by its `retry-after`, in seconds or as a date: at most a
/// minute, and 0 where it does not. A date counts from the reply's own `date`, for clocks differ,
/// and from `now` where that is none.
std::chrono::milliseconds
asked_rest(std::string_view retry_after, std::string_view date, unix_ms now);

} // namespace llumnix::relay
