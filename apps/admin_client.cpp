#include "apps/admin_client.hpp"

#include "apps/cli_options.hpp"
#include "net/http_client.hpp"

#include <algorithm>
#include <cctype>
#include <optional>

namespace llumnix {

namespace {

/// What a refusal says; nothing if it is none of an operators' address. A gateway's have a `type`
/// (spec/surface.md 3).
std::optional<std::string> sentence_of(const net::http_reply& reply) {
  auto body = nlohmann::json::parse(reply.body, nullptr, false);
  if (!body.is_object() || !body.contains("error") || !body["error"].is_object())
    return std::nullopt;
  auto text = [&, &refusal = body["error"]](const char* name) {
    return refusal.contains(name) && refusal[name].is_string() ? refusal[name].get<std::string>()
                                                               : std::string{};
  };
  if (text("code").empty() || text("message").empty() || body["error"].contains("type"))
    return std::nullopt;
  return text("message");
}

/// ADDRESS as the beginning of a URL.
std::string base_of(const std::string& address) {
  auto base = address.find("://") == std::string::npos ? "http://" + address : address;
  while (base.ends_with('/'))
    base.pop_back();
  return base;
}

/// The text of an answer with status 200.
result<std::string> ask(
  const admin_endpoint& endpoint, std::string_view method, const std::string& path,
  const std::string& body, std::chrono::milliseconds timeout) {
  auto url = net::parse_url(base_of(endpoint.address) + path);
  if (!url)
    return std::move(url).error();
  net::header_list headers{{"accept", "application/json"}};
  if (method == "POST")
    headers.emplace_back("content-type", "application/json");
  if (!endpoint.key.empty())
    headers.emplace_back("authorization", "Bearer " + endpoint.key);
  auto reply = net::fetch(*url, method, headers, body, timeout);
  if (!reply)
    return std::move(reply).error();
  if (reply->status == 200)
    return std::move(reply->body);
  auto sentence = sentence_of(*reply);
  if (!sentence)
    return {
      errc::internal, "it answers " + path + " with " + std::to_string(reply->status) + " "
                        + std::string{net::reason_phrase(reply->status)}};
  return error{
    reply->status == 404 ? errc::not_found : errc::invalid_argument, std::move(*sentence)};
}

result<admin_document> as_document(result<std::string> text, const std::string& path) {
  if (!text)
    return std::move(text).error();
  auto document = admin_document::parse(*text, nullptr, false);
  if (document.is_discarded() || !document.is_object())
    return {errc::internal, "the answer to " + path + " is no JSON object"};
  return document;
}

} // namespace

std::string wrong_admin_address(const std::string& text) {
  bool url = text.find("://") != std::string::npos;
  if (auto wrong = wrong_address(text); !url && !wrong.empty())
    return wrong;
  if (net::parse_url(base_of(text)))
    return {};
  return text + (url ? " is no address; write HOST:PORT" : " has port 0, which nobody can dial");
}

result<admin_document> admin_get(
  const admin_endpoint& endpoint, const std::string& path, std::chrono::milliseconds timeout) {
  return as_document(ask(endpoint, "GET", path, {}, timeout), path);
}

result<std::string> admin_text(
  const admin_endpoint& endpoint, const std::string& path, std::chrono::milliseconds timeout) {
  return ask(endpoint, "GET", path, {}, timeout);
}

result<admin_document> admin_post(
  const admin_endpoint& endpoint, const std::string& path, const std::string& body,
  std::chrono::milliseconds timeout) {
  return as_document(ask(endpoint, "POST", path, body, timeout), path);
}

std::string path_segment(const std::string& text) {
  constexpr auto digits = "0123456789ABCDEF";
  std::string segment;
  for (unsigned char letter : text) {
    if (
      std::isalnum(letter) != 0
      || std::string_view{"-_.:~"}.find(static_cast<char>(letter)) != std::string_view::npos) {
      segment += static_cast<char>(letter);
    } else {
      segment += '%';
      segment += digits[letter >> 4];
      segment += digits[letter & 15];
    }
  }
  return segment;
}

} // namespace llumnix
