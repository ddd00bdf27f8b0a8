#include "net/upstream_host.hpp"

#include <boost/asio/ip/address.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace llumnix::net {

namespace {

constexpr std::size_t max_name = 255; // of a name in the DNS

bool all_of_kind(std::string_view text, std::string_view others) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
           || others.find(c) != std::string_view::npos;
  });
}

// 0 if it is none.
std::uint16_t parse_port(std::string_view text) {
  std::uint16_t port = 0;
  auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), port);
  return problem == std::errc{} && end == text.data() + text.size() ? port : 0;
}

} // namespace

std::shared_ptr<upstream_host> upstream_host::parse(std::string_view address) {
  auto colon = address.rfind(':');
  if (colon == std::string_view::npos)
    return nullptr;
  auto name = address.substr(0, colon);
  auto port = parse_port(address.substr(colon + 1));
  auto bracketed = name.starts_with('[') && name.ends_with(']');
  if (bracketed)
    name = name.substr(1, name.size() - 2);
  if (port == 0 || name.size() > max_name || !all_of_kind(name, bracketed ? ".:%-_" : ".-_"))
    return nullptr;
  boost::system::error_code ec;
  auto number = boost::asio::ip::make_address(std::string{name}, ec);
  if (bracketed && (ec || !number.is_v6()))
    return nullptr;
  auto host = std::make_shared<upstream_host>();
  host->address = address;
  host->name = name;
  host->port = address.substr(colon + 1);
  if (!ec) {
    host->endpoints.emplace_back(number, port);
    host->known_until = clock::time_point::max();
  }
  return host;
}

} // namespace llumnix::net
