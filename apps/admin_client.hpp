#pragma once

#include "runtime/base/result.hpp"

#include <nlohmann/json.hpp>

#include <chrono>
#include <string>

namespace llumnix {

/// Where a cluster answers its operators, and with which key.
struct admin_endpoint {
  std::string address = "127.0.0.1:8090"; ///< HOST:PORT, or a URL of it
  std::string key;                        ///< bearer key; empty: none
};

/// An admin document, its members in the order they were sent.
using admin_document = nlohmann::ordered_json;

/// What is wrong with the text of an operators' address; empty if nothing is.
std::string wrong_admin_address(const std::string& text);

/// The answer to `GET http://ADDRESS/PATH`. Blocks up to `timeout`. Fails with `unreachable` or
/// `timeout` when there is no answer, `not_found` for a 404, `invalid_argument` for another refusal
/// (with the server's sentence), `internal` when whoever answers there is no operators' address.
result<admin_document> admin_get(
  const admin_endpoint& endpoint, const std::string& path, std::chrono::milliseconds timeout);
/// The same for an answer that is plain text.
result<std::string> admin_text(
  const admin_endpoint& endpoint, const std::string& path, std::chrono::milliseconds timeout);

/// The answer to `POST http://ADDRESS/PATH` with a JSON body, which may be empty; fails as
/// `admin_get` does.
result<admin_document> admin_post(
  const admin_endpoint& endpoint, const std::string& path, const std::string& body,
  std::chrono::milliseconds timeout);

/// `text` as one segment of a URL's path.
std::string path_segment(const std::string& text);

} // namespace llumnix
