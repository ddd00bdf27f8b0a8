#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace llumnix {

/// Base64 in the standard alphabet, padded.
std::string to_base64(std::string_view bytes);
/// Nothing for what `to_base64` does not write.
std::optional<std::string> from_base64(std::string_view text);

} // namespace llumnix
