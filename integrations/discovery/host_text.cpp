#include "integrations/discovery/host_text.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <cstring>

namespace llumnix {
namespace {

constexpr std::size_t name_bytes_max = 253;
constexpr std::size_t label_bytes_max = 63;
constexpr std::int64_t kv_port_above = 20000;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_label(std::string_view label) {
  auto fits = [](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
  };
  return !label.empty() && label.size() <= label_bytes_max
         && std::all_of(label.begin(), label.end(), fits);
}

bool is_number(std::string_view label) {
  return std::all_of(label.begin(), label.end(), is_digit)
         || (label.size() >= 2 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X'));
}

} // namespace

std::optional<ip_number> parse_ip(std::string_view text) {
  if (text.size() > 2 && text.front() == '[' && text.back() == ']')
    text = text.substr(1, text.size() - 2);
  if (text.size() >= INET6_ADDRSTRLEN || text.find('\0') != text.npos)
    return std::nullopt;
  const std::string whole{text}; // with its end marked
  ip_number number{};
  if (::inet_pton(AF_INET6, whole.c_str(), number.data()) == 1)
    return number;
  in_addr four{};
  if (::inet_pton(AF_INET, whole.c_str(), &four) != 1)
    return std::nullopt;
  number[10] = number[11] = 0xff;
  std::memcpy(number.data() + 12, &four, 4);
  return number;
}

bool is_host_name(std::string_view text) {
  if (text.ends_with('.'))
    text.remove_suffix(1); // complete, says DNS
  if (text.empty() || text.size() > name_bytes_max)
    return false;
  for (;;) {
    auto dot = std::min(text.find('.'), text.size());
    if (!is_label(text.substr(0, dot)))
      return false;
    if (dot == text.size())
      return !is_number(text);
    text.remove_prefix(dot + 1);
  }
}

std::string join_host_port(std::string_view host, std::int64_t port) {
  if (port < 1 || port > 65535)
    return {};
  auto number = parse_ip(host);
  if (!number && !is_host_name(host))
    return {};
  auto text = lower_case(host);
  if (number && text.find(':') != text.npos && text.front() != '[')
    text = "[" + text + "]";
  return text + ":" + std::to_string(port);
}

std::string_view host_of(std::string_view host_port) {
  auto host = host_port.substr(0, host_port.rfind(':'));
  return host.starts_with('[') ? host.substr(1, host.size() - 2) : host;
}

std::string usual_kv_address(std::string_view host_port) {
  auto digits = host_port.substr(host_port.rfind(':') + 1);
  std::int64_t port = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), port);
  return join_host_port(host_of(host_port), kv_port_above + port);
}

std::string lower_case(std::string_view text) {
  std::string lower{text};
  for (auto& c : lower)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::string printable(std::string_view text, std::size_t bytes_max) {
  std::string shown;
  for (char c : text.substr(0, bytes_max)) {
    auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f)
      shown += c;
    else
      shown += fmt::format("\\x{:02x}", byte);
  }
  if (text.size() > bytes_max)
    shown += "...";
  return shown;
}

} // namespace llumnix
