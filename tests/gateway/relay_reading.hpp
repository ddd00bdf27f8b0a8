#pragma once

#include "gateway/relay/relay_request.hpp"

#include <doctest/doctest.h>

#include <string_view>
#include <variant>

namespace llumnix::relay {

/// A body as it is read; the test fails where it is refused.
inline relay_request accepted(openai::endpoint kind, std::string_view body) {
  auto outcome = request_reader{}.read(kind, body);
  if (auto* failure = std::get_if<openai::api_error>(&outcome))
    FAIL(failure->message << " in " << body);
  return std::get<relay_request>(outcome);
}

inline relay_request chat(std::string_view body) {
  return accepted(openai::endpoint::chat, body);
}
inline relay_request completion(std::string_view body) {
  return accepted(openai::endpoint::completions, body);
}

} // namespace llumnix::relay
