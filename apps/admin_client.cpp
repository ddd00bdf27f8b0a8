#include "apps/admin_client.hpp"

#include "net/http_client.hpp"

#include <algorithm>
#include <cctype>

namespace llumnix {

namespace {

std::string sentence_of(const net::http_reply& reply) {
  auto body = nlohmann::json::parse(reply.body, nullptr, false);
  if (body.is_object() && body.contains("error") && body["error"].is_object())
    return body["error"].value("message", std::string{net::reason_phrase(reply.status)});
  return std::to_string(reply.status) + " " + std::string{net::reason_phrase(reply.status)};
}

} // namespace

result<admin_document> admin_get(
  const admin_endpoint& endpoint, const std::string& path, std::chrono::milliseconds timeout) {
  auto base = endpoint.address.find("://") == std::string::npos ? "http://" + endpoint.address
                                                                : endpoint.address;
  while (base.ends_with('/'))
    base.pop_back();
  auto url = net::parse_url(base + path);
  if (!url)
    return std::move(url).error();
  net::header_list headers{{"accept", "application/json"}};
  if (!endpoint.key.empty())
    headers.emplace_back("authorization", "Bearer " + endpoint.key);
  auto reply = net::fetch(*url, "GET", headers, "", timeout);
  if (!reply)
    return std::move(reply).error();
  if (reply->status == 404)
    return {errc::not_found, sentence_of(*reply)};
  if (reply->status != 200)
    return {errc::invalid_argument, sentence_of(*reply)};
  auto document = admin_document::parse(reply->body, nullptr, false);
  if (document.is_discarded() || !document.is_object())
    return {errc::internal, "the answer of " + base + path + " is no JSON object"};
  return document;
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
