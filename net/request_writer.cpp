#include "net/request_writer.hpp"

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

namespace llumnix::net {

namespace {

// Where a byte may stand.
constexpr std::uint8_t in_token = 1; // methods and header names
constexpr std::uint8_t in_target = 2;
constexpr std::uint8_t in_value = 4;

constexpr std::array<std::uint8_t, 256> allowed = [] {
  std::array<std::uint8_t, 256> table{};
  for (int c = 0x20; c < 256; ++c)
    if (c != 0x7f)
      table[static_cast<std::size_t>(c)] = static_cast<std::uint8_t>(c > 0x20 ? 6 : 4);
  table['\t'] = in_value;
  for (int c = 'a'; c <= 'z'; ++c)
    table[static_cast<std::size_t>(c)] |= in_token;
  for (int c = 'A'; c <= 'Z'; ++c)
    table[static_cast<std::size_t>(c)] |= in_token;
  for (int c = '0'; c <= '9'; ++c)
    table[static_cast<std::size_t>(c)] |= in_token;
  for (char c : std::string_view{"!#$%&'*+-.^_`|~"})
    table[static_cast<std::size_t>(c)] |= in_token;
  return table;
}();

bool consists_of(std::uint8_t kind, std::string_view text) {
  std::uint8_t common = kind;
  for (char c : text)
    common &= allowed[static_cast<unsigned char>(c)];
  return common != 0;
}

// The headers whose truth only the writer knows.
bool written_here(std::string_view name) {
  switch (name.size()) {
    case 4: return equal_ignoring_case(name, "host");
    case 10: return equal_ignoring_case(name, "connection");
    case 14: return equal_ignoring_case(name, "content-length");
    case 17: return equal_ignoring_case(name, "transfer-encoding");
    default: return false;
  }
}

std::size_t size_of_head(const upstream_request& request) {
  std::size_t size = 128 + request.method.size() + request.target.size() + request.address.size();
  for (const auto& [name, value] : request.headers)
    size += name.size() + value.size() + 4;
  return size;
}

void append_content_length(std::string& out, const upstream_request& request) {
  const auto& method = request.method;
  auto size = request.body_begin.text.size() + request.body.size();
  if (size == 0 && method != "POST" && method != "PUT" && method != "PATCH")
    return;
  char digits[20];
  auto end = std::to_chars(digits, std::end(digits), size).ptr;
  out += "content-length: ";
  out.append(digits, end);
  out += "\r\n";
}

} // namespace

result<void> append_head(std::string& out, const upstream_request& request, bool keep_alive) {
  // CONNECT would turn the connection into something else than HTTP.
  if (
    request.method.empty() || request.method == "CONNECT" || !consists_of(in_token, request.method))
    return {errc::invalid_argument, "the method is malformed"};
  if (request.target.empty() || !consists_of(in_target, request.target))
    return {errc::invalid_argument, "the target is malformed"};
  out.reserve(out.size() + size_of_head(request));
  out += request.method;
  out += ' ';
  out += request.target;
  out += " HTTP/1.1\r\nhost: ";
  out += request.address;
  out += "\r\n";
  for (const auto& [name, value] : request.headers) {
    if (name.empty() || !consists_of(in_token, name))
      return {errc::invalid_argument, "the name of a header is malformed"};
    if (!consists_of(in_value, value))
      return {errc::invalid_argument, "header " + name + " has a control character in it"};
    if (written_here(name))
      continue;
    out += name;
    out += ": ";
    out += value;
    out += "\r\n";
  }
  if (!keep_alive)
    out += "connection: close\r\n";
  append_content_length(out, request);
  out += "\r\n";
  return {};
}

} // namespace llumnix::net
