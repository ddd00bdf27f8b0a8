#pragma once

#include "net/http_message.hpp"
#include "runtime/base/result.hpp"

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace llumnix::net {

/// Where a URL of the form http://HOST:PORT/PATH points. `invalid_argument` for anything else.
struct http_url {
  std::string host;
  std::string port = "80";
  std::string path = "/"; ///< with the query
};
result<http_url> parse_url(std::string_view url);

/// One request and its whole reply, blocking: for commands a person types. Fails with `unreachable`
/// or `timeout`.
result<http_reply> fetch(
  const http_url& url, std::string_view method, const header_list& headers, std::string_view body,
  std::chrono::milliseconds timeout);

/// One request whose reply is read piece by piece, blocking; `on_data` returns false to stop.
/// The timeout bounds each silence. Returns the reply's head with an empty body.
result<http_reply> fetch_stream(
  const http_url& url, std::string_view method, const header_list& headers, std::string_view body,
  std::chrono::milliseconds timeout, const std::function<bool(std::string_view)>& on_data);

} // namespace llumnix::net
