#include "integrations/discovery/etcd_messages.hpp"

#include "integrations/discovery/base64.hpp"
#include "integrations/discovery/host_text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <optional>
#include <simdjson.h>

namespace llumnix::etcd {
namespace {

using simdjson::dom::element;

constexpr std::size_t token_bytes_max = 4096;

/// What follows all keys that begin so.
std::string end_of(std::string_view prefix) {
  std::string end{prefix};
  ++end.back(); // '/', so it has a successor
  return end;
}

nlohmann::json records_from(std::string_view from) {
  return {
    {"key", to_base64(from.empty() ? etcd_record_prefix : from)},
    {"range_end", to_base64(end_of(etcd_record_prefix))}};
}

error bad(std::string what) {
  return {errc::bad_message, std::move(what)};
}

/// The member, if it is there and not null.
std::optional<element> member(element object, std::string_view name) {
  element found;
  if (object[name].get(found) != simdjson::SUCCESS || found.is_null())
    return std::nullopt;
  return found;
}

/// A 64-bit number, which etcd writes as text; absent is zero.
bool read_number(element object, std::string_view name, std::int64_t& number) {
  auto found = member(object, name);
  if (!found)
    return true;
  std::string_view digits;
  if (found->get_int64().get(number) == simdjson::SUCCESS)
    return true;
  if (found->get_string().get(digits) != simdjson::SUCCESS)
    return false;
  auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return failed == std::errc{} && end == digits.data() + digits.size();
}

bool read_flag(element object, std::string_view name, bool& flag) {
  auto found = member(object, name);
  return !found || found->get_bool().get(flag) == simdjson::SUCCESS;
}

bool read_bytes(element object, std::string_view name, std::string& bytes) {
  auto found = member(object, name);
  if (!found)
    return true;
  std::string_view text;
  if (found->get_string().get(text) != simdjson::SUCCESS)
    return false;
  auto decoded = from_base64(text);
  if (decoded)
    bytes = std::move(*decoded);
  return decoded.has_value();
}

std::string text_of(element object, std::string_view name) {
  auto found = member(object, name);
  std::string_view text;
  return found && found->get_string().get(text) == simdjson::SUCCESS ? printable(text) : "";
}

bool read_record(element object, record& made) {
  return read_bytes(object, "key", made.key) && read_bytes(object, "value", made.value)
         && read_number(object, "mod_revision", made.revision);
}

bool read_revision(element object, std::int64_t& revision) {
  auto header = member(object, "header");
  return header && read_number(*header, "revision", revision) && revision > 0;
}

bool read_change(element event, change& made) {
  auto type = member(event, "type");
  std::string_view name = "PUT"; // the zero of its kind, which may be left out
  if (type && type->get_string().get(name) != simdjson::SUCCESS)
    return false;
  auto kv = member(event, "kv");
  made.removed = name == "DELETE";
  return kv && (made.removed || name == "PUT") && read_record(*kv, made.what);
}

/// The entries of an array, each read by `read`; true if there is no such array.
template <class T>
bool read_array(
  element object, std::string_view name, std::vector<T>& made, bool (*read)(element, T&)) {
  auto found = member(object, name);
  if (!found)
    return true;
  simdjson::dom::array entries;
  if (found->get_array().get(entries) != simdjson::SUCCESS)
    return false;
  for (auto entry : entries)
    if (!entry.is_object() || !read(entry, made.emplace_back()))
      return false;
  return true;
}

} // namespace

std::string authenticate_request(std::string_view name, std::string_view password) {
  return nlohmann::json{{"name", name}, {"password", password}}.dump(
    -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string range_request(std::string_view from, std::size_t limit, std::int64_t revision) {
  auto request = records_from(from);
  request["limit"] = std::to_string(limit);
  if (revision > 0)
    request["revision"] = std::to_string(revision);
  return request.dump();
}

std::string probe_request() {
  auto request = records_from({});
  request["limit"] = "1";
  request["keys_only"] = true;
  request["sort_order"] = "DESCEND";
  request["sort_target"] = "MOD";
  return request.dump();
}

std::string watch_request(std::int64_t revision) {
  auto request = records_from({});
  request["start_revision"] = std::to_string(revision);
  request["progress_notify"] = true;
  request["fragment"] = true;
  return nlohmann::json{{"create_request", std::move(request)}}.dump();
}

result<std::string> read_token(std::string_view body) {
  simdjson::dom::parser parser;
  element document;
  std::string_view token;
  if (
    parser.parse(simdjson::padded_string{body}).get(document) != simdjson::SUCCESS
    || document["token"].get_string().get(token) != simdjson::SUCCESS)
    return bad("no token in the answer");
  bool shows = std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if (token.empty() || token.size() > token_bytes_max || !shows)
    return bad("the token is no short word");
  return std::string{token};
}

result<range_reply> read_range(std::string_view body) {
  simdjson::padded_string padded{body};
  simdjson::dom::parser parser;
  element document;
  if (parser.parse(padded).get(document) != simdjson::SUCCESS)
    return bad("the answer is not JSON");
  range_reply reply;
  if (
    !read_revision(document, reply.revision) || !read_flag(document, "more", reply.more)
    || !read_number(document, "count", reply.count)
    || !read_array(document, "kvs", reply.records, read_record))
    return bad("not a range of records");
  return reply;
}

result<watch_reply> read_watch(std::string_view line) {
  simdjson::padded_string padded{line};
  simdjson::dom::parser parser;
  element document;
  if (parser.parse(padded).get(document) != simdjson::SUCCESS)
    return bad("the line is not JSON");
  if (auto refusal = member(document, "error"))
    return error{errc::internal, "etcd says: " + text_of(*refusal, "message")};
  auto found = member(document, "result");
  watch_reply reply;
  if (
    !found || !found->is_object() || !read_flag(*found, "created", reply.created)
    || !read_flag(*found, "canceled", reply.canceled)
    || !read_number(*found, "compact_revision", reply.compact_revision)
    || !read_array(*found, "events", reply.changes, read_change))
    return bad("not a line of a watch");
  reply.reason = text_of(*found, "cancel_reason");
  return reply;
}

std::string read_refusal(int status, std::string_view body) {
  auto text = "status " + std::to_string(status);
  simdjson::dom::parser parser;
  element document;
  if (
    parser.parse(simdjson::padded_string{body}).get(document) != simdjson::SUCCESS
    || !document.is_object())
    return text;
  for (auto name : {"message", "error"})
    if (auto words = text_of(document, name); !words.empty())
      return text + ": " + words;
  return text;
}

} // namespace llumnix::etcd
