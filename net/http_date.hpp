#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace llumnix::net {

/// The time that a header tells (`date`, `retry-after`), in Unix seconds, in any of the three forms
/// of RFC 9110 5.6.7: "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
/// "Sun Nov  6 08:49:37 1994". Nothing for what is none of them.
std::optional<std::int64_t> parse_http_date(std::string_view text);

} // namespace llumnix::net
