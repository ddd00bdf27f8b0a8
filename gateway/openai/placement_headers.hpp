#pragma once

#include "gateway/openai/api_error.hpp"
#include "net/http_message.hpp"
#include "runtime/serving/placement_wishes.hpp"

#include <variant>

namespace llumnix::openai {

/// What the headers of a request ask of its placement: `x-slo-ttft-ms` and `x-slo-tpot-ms`,
/// milliseconds above 0 up to 1e9, and `x-session-id`, 1 to 128 visible ASCII characters. Each of
/// them may be missing; a bad one, or one that is there twice, is the client's error.
std::variant<placement_wishes, api_error> read_placement_headers(const net::http_request& request);

} // namespace llumnix::openai
