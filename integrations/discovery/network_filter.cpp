#include "integrations/discovery/network_filter.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

namespace llumnix {
namespace {

constexpr std::uint8_t bits_before_ipv4 = 96;

/// Whether two numbers begin with the same bits.
bool same_prefix(const ip_number& left, const ip_number& right, std::uint8_t bits) {
  std::size_t whole = bits / 8;
  if (!std::equal(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(whole), right.begin()))
    return false;
  if (bits % 8 == 0)
    return true;
  auto mask = static_cast<std::uint8_t>(0xff << (8 - bits % 8));
  return (left[whole] & mask) == (right[whole] & mask);
}

ip_number cut(ip_number number, std::uint8_t bits) {
  for (std::size_t i = 0; i < number.size(); ++i) {
    auto kept = std::clamp<int>(bits - static_cast<int>(8 * i), 0, 8);
    number[i] &= static_cast<std::uint8_t>(0xff << (8 - kept));
  }
  return number;
}

std::string without_last_dot(std::string name) {
  if (name.ends_with('.'))
    name.pop_back();
  return name;
}

std::optional<unsigned> read_number(std::string_view digits) {
  unsigned number = 0;
  auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (failed != std::errc{} || end != digits.data() + digits.size())
    return std::nullopt;
  return number;
}

/// What is wrong with the entry, in words to follow it; empty if it was taken.
std::string take_network(std::string_view entry, network_filter& filter) {
  auto slash = std::min(entry.find('/'), entry.size());
  auto base = parse_ip(entry.substr(0, slash));
  if (!base)
    return " is no network";
  bool is_ipv4 = entry.substr(0, slash).find(':') == entry.npos;
  unsigned most = is_ipv4 ? 32 : 128;
  auto bits = slash == entry.size() ? most : read_number(entry.substr(slash + 1));
  if (!bits || *bits > most)
    return " is no network: its prefix has 0 to " + std::to_string(most) + " bits";
  auto all = static_cast<std::uint8_t>(is_ipv4 ? *bits + bits_before_ipv4 : *bits);
  if (cut(*base, all) != *base)
    return " has bits beyond its prefix";
  filter.networks.push_back({*base, all});
  return {};
}

std::string take_name(std::string_view entry, network_filter& filter) {
  bool suffix = entry.starts_with('.');
  if (!is_host_name(suffix ? entry.substr(1) : entry))
    return " is neither a network nor a name";
  auto& list = suffix ? filter.suffixes : filter.names;
  list.push_back(without_last_dot(lower_case(entry)));
  return {};
}

} // namespace

bool network_filter::inside(std::string_view host) const {
  if (auto number = parse_ip(host))
    return std::any_of(networks.begin(), networks.end(), [&](const network& each) {
      return same_prefix(*number, each.base, each.bits);
    });
  if (!is_host_name(host))
    return false;
  auto name = without_last_dot(lower_case(host));
  return std::find(names.begin(), names.end(), name) != names.end()
         || std::any_of(suffixes.begin(), suffixes.end(), [&](const std::string& suffix) {
              return name.size() > suffix.size() && name.ends_with(suffix);
            });
}

parsed_networks parse_networks(const std::vector<std::string>& entries) {
  parsed_networks parsed;
  for (const auto& entry : entries) {
    bool as_network = entry.find('/') != entry.npos || parse_ip(entry);
    auto wrong = as_network ? take_network(entry, parsed.filter) : take_name(entry, parsed.filter);
    if (!wrong.empty())
      parsed.problems.push_back(
        "'" + printable(entry) + "'" + wrong
        + "; write 10.0.0.0/8, fd00::/8, an address, a name, or .SUFFIX for all names that end so");
  }
  return parsed;
}

} // namespace llumnix
