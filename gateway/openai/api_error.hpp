#pragma once

#include "net/http_message.hpp"
#include "runtime/base/error.hpp"

#include <string>
#include <string_view>

namespace llumnix::openai {

/// A failure as an OpenAI client sees it (spec/gateway.md 15.2).
struct api_error {
  int status = 500;
  std::string code;    ///< for programs, e.g. "context_length_exceeded"
  std::string message; ///< for people
  std::string param;   ///< the offending field, e.g. "messages[0].role"; empty: null
  friend bool operator==(const api_error&, const api_error&) = default;
};

/// The `type` that goes with a status, e.g. "rate_limit_error" with 429.
std::string_view error_type(int status);

/// How a failure of the cluster is shown to the client whose request it ended.
api_error to_api_error(const error& failure);

/// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string render_error(const api_error& failure);

/// The whole reply, with `x-request-id`, and `retry-after` where trying again makes sense (429,
/// 503).
net::http_reply error_reply(const api_error& failure, std::string_view request_id);

} // namespace llumnix::openai
