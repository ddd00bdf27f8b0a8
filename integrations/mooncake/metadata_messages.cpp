#include "integrations/mooncake/metadata_messages.hpp"

#include <optional>
#include <simdjson.h>
#include <unordered_map>
#include <utility>

namespace llumnix::mooncake {
namespace {

using simdjson::dom::element;

constexpr std::string_view path = "/batch_query_keys?keys=";
constexpr std::size_t depth_max = 64; // of the JSON; replicas describe their buffers
constexpr std::size_t host_bytes_max = 253;

error bad(std::string what) {
  return {errc::bad_message, std::move(what)};
}

bool unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'
         || c == '_' || c == '.' || c == '~';
}

/// As forms have it.
std::string encode(std::string_view key) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string text;
  text.reserve(key.size());
  for (char c : key) {
    auto byte = static_cast<unsigned char>(c);
    if (unreserved(c))
      text += c;
    else if (c == ' ')
      text += '+';
    else
      text += {'%', digits[byte >> 4], digits[byte & 15]};
  }
  return text;
}

/// The member, if it is there and not null.
std::optional<element> member(element object, std::string_view name) {
  element found;
  if (object[name].get(found) != simdjson::SUCCESS || found.is_null())
    return std::nullopt;
  return found;
}

/// Adds the host of one replica; whether it is one.
bool read_replica(element replica, std::vector<std::string>& hosts) {
  if (!replica.is_object())
    return false;
  auto endpoint = member(replica, "transport_endpoint_");
  std::string_view text;
  if (endpoint && endpoint->get_string().get(text) != simdjson::SUCCESS)
    return false;
  auto host = text.substr(0, text.find(':'));
  if (!host.empty() && host.size() <= host_bytes_max)
    hosts.emplace_back(host);
  return true;
}

/// What is told of one key; whether it can be read.
bool read_entry(element entry, std::vector<std::string>& hosts) {
  hosts.clear();
  if (entry.is_null())
    return true;
  if (!entry.is_object())
    return false;
  auto values = member(entry, "values");
  if (!values)
    return true;
  if (!values->is_array())
    return false;
  for (auto replica : simdjson::dom::array{*values})
    if (!read_replica(replica, hosts))
      return false;
  return true;
}

} // namespace

batch_query ask_holders(std::span<const std::string> keys, std::size_t bytes_max) {
  batch_query made{std::string{path}, 0};
  for (const auto& key : keys) {
    auto text = encode(key);
    if (made.keys > 0 && made.target.size() + 1 + text.size() > bytes_max)
      break;
    if (made.keys++ > 0)
      made.target += ',';
    made.target += text;
  }
  return made;
}

result<std::vector<std::vector<std::string>>>
read_holders(std::string_view body, std::span<const std::string> keys) {
  simdjson::dom::parser parser;
  if (parser.allocate(body.size(), depth_max) != simdjson::SUCCESS)
    return bad("the answer is too large to be read");
  element root;
  if (auto failed = parser.parse(body.data(), body.size()).get(root); failed)
    return bad(std::string{"the answer is not JSON: "} + simdjson::error_message(failed));
  if (!root.is_object())
    return bad("the answer is not an object");
  auto success = member(root, "success");
  if (success && !success->is_bool())
    return bad("'success' is neither true nor false");
  if (!success || !bool{*success})
    return error{errc::internal, "the service says that it failed"};

  std::vector<std::vector<std::string>> holders(keys.size());
  auto data = member(root, "data");
  if (!data)
    return holders;
  if (!data->is_object())
    return bad("'data' is not an object");
  std::unordered_map<std::string_view, std::size_t> wanted;
  for (std::size_t i = 0; i < keys.size(); ++i)
    wanted.emplace(keys[i], i);
  for (auto [key, entry] : simdjson::dom::object{*data})
    if (auto found = wanted.find(key); found != wanted.end())
      if (!read_entry(entry, holders[found->second]))
        return bad("the holders of a key cannot be read");
  return holders;
}

} // namespace llumnix::mooncake
