#include "config/notation.hpp"

#include "config/load_config.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <span>

namespace llumnix {

namespace {

struct unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr unit duration_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}};

constexpr unit size_units[] = {
  {"", 1},
  {"B", 1},
  {"KiB", 1ull << 10},
  {"MiB", 1ull << 20},
  {"GiB", 1ull << 30},
  {"TiB", 1ull << 40},
  {"KB", 1'000},
  {"MB", 1'000'000},
  {"GB", 1'000'000'000},
  {"TB", 1'000'000'000'000},
};

/// Reads digits, perhaps with a fraction, and a unit; the product must be a whole number that fits.
bool parse_with_unit(std::string_view text, std::span<const unit> units, std::uint64_t& value) {
  auto end = text.find_first_not_of("0123456789.");
  auto digits = text.substr(0, end);
  auto name = end == text.npos ? std::string_view{} : text.substr(end);
  auto found = std::ranges::find(units, name, &unit::name);
  if (found == units.end())
    return false;
  std::uint64_t whole = 0;
  auto last = digits.data() + digits.size();
  auto [next, failure] = std::from_chars(digits.data(), last, whole);
  if (failure != std::errc{} || whole > std::numeric_limits<std::int64_t>::max() / found->factor)
    return false;
  std::uint64_t part = 0;
  if (next != last) { // a fraction: its digits over a power of ten, exactly
    std::string_view fraction{next + 1, static_cast<std::size_t>(last - next - 1)};
    std::uint64_t numerator = 0;
    auto read = std::from_chars(fraction.data(), last, numerator);
    if (
      *next != '.' || fraction.empty() || fraction.size() > 6 || read.ec != std::errc{}
      || read.ptr != last)
      return false;
    std::uint64_t scale = 1;
    for (std::size_t i = 0; i < fraction.size(); ++i)
      scale *= 10;
    if (
      found->factor > std::numeric_limits<std::uint64_t>::max() / scale
      || numerator * found->factor % scale != 0)
      return false;
    part = numerator * found->factor / scale;
  }
  value = whole * found->factor + part;
  return value <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
}

std::string format_with_unit(std::uint64_t value, std::span<const unit> units) {
  auto best = units.front();
  for (auto& each : units)
    if (value != 0 && value % each.factor == 0 && each.factor > best.factor)
      best = each;
  return std::to_string(value / best.factor) + std::string{best.name};
}

} // namespace

bool parse_duration(std::string_view text, milliseconds& value) {
  std::uint64_t count = 0;
  if (!parse_with_unit(text, duration_units, count))
    return false;
  value = milliseconds{static_cast<milliseconds::rep>(count)};
  return true;
}

bool parse_size(std::string_view text, std::size_t& value) {
  std::uint64_t count = 0;
  if (!parse_with_unit(text, size_units, count))
    return false;
  value = count;
  return true;
}

std::string format_duration(milliseconds value) {
  if (value.count() < 0)
    return std::to_string(value.count()) + "ms";
  return format_with_unit(static_cast<std::uint64_t>(value.count()), duration_units);
}

std::string format_size(std::size_t value) {
  constexpr auto binary_units = std::span{size_units}.first(6);
  return format_with_unit(value, binary_units);
}

std::string format_number(double value) {
  char text[32];
  auto end = std::to_chars(std::begin(text), std::end(text), value).ptr;
  return {text, end};
}

bool split_address(std::string_view address, std::string& host, std::uint16_t& port) {
  auto colon = address.rfind(':');
  if (colon == address.npos || colon == 0)
    return false;
  auto name = address.substr(0, colon);
  if (name.front() == '[') {
    if (name.size() < 3 || name.back() != ']')
      return false;
    name = name.substr(1, name.size() - 2);
  } else if (name.find(':') != name.npos) {
    return false; // an IPv6 address wants its brackets
  }
  if (name.find_first_of(" \t\r\n/@[]") != name.npos)
    return false;
  std::uint16_t number = 0;
  auto digits = address.substr(colon + 1);
  auto last = digits.data() + digits.size();
  auto read = std::from_chars(digits.data(), last, number);
  if (digits.empty() || read.ec != std::errc{} || read.ptr != last)
    return false;
  host = name;
  port = number;
  return true;
}

std::string read_engine_url(std::string_view url, std::string& address) {
  constexpr std::string_view scheme = "http://";
  constexpr std::string_view example = "; write http://HOST:PORT";
  auto lower = [](std::string_view text) {
    std::string made{text};
    for (auto& c : made)
      if (c >= 'A' && c <= 'Z')
        c = static_cast<char>(c - 'A' + 'a');
    return made;
  };
  if (lower(url.substr(0, scheme.size())) != scheme) {
    bool other = url.find("://") != url.npos;
    return (other ? " is not http" : " is no URL") + std::string{example};
  }
  auto rest = url.substr(scheme.size());
  auto end = std::min(rest.find_first_of("/?#"), rest.size());
  auto place = rest.substr(0, end);
  if (rest.size() > end + 1 || (rest.size() == end + 1 && rest.back() != '/'))
    return " has a path; the gateway adds the paths itself" + std::string{example};
  if (place.empty() || place.front() == ':')
    return " has no host" + std::string{example};
  std::string host;
  std::uint16_t port = 0;
  if (!split_address(place, host, port)) {
    bool lacks_port = place.find(':') == place.npos || place.back() == ']';
    return (lacks_port ? " has no port" : " has no address") + std::string{example};
  }
  constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyz0123456789.-_";
  constexpr std::string_view digits_of_ipv6 = "0123456789abcdef:.";
  bool bracketed = place.front() == '[';
  host = lower(host);
  if (host.find_first_not_of(bracketed ? digits_of_ipv6 : letters) != host.npos)
    return " has no host" + std::string{example};
  if (port == 0)
    return " has port 0, which nobody can dial";
  address = (bracketed ? "[" + host + "]" : host) + ":" + std::to_string(port);
  return {};
}

std::string engine_address(std::string_view url) {
  std::string address;
  read_engine_url(url, address);
  return address;
}

std::string place_of(std::string_view address) {
  constexpr std::string_view name = "localhost:";
  if (!address.starts_with(name))
    return std::string{address};
  return "127.0.0.1:" + std::string{address.substr(name.size())};
}

bool is_loopback(std::string_view address) {
  std::string host;
  std::uint16_t port = 0;
  if (!split_address(address, host, port))
    return false;
  if (host == "localhost" || host == "::1")
    return true;
  // 127.a.b.c, written out: anything shorter or longer would be a name someone else resolves.
  std::string_view rest = host;
  for (int part = 0; part < 4; ++part) {
    unsigned number = 0;
    auto read = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (read.ec != std::errc{} || number > 255 || (part == 0 && number != 127))
      return false;
    rest.remove_prefix(static_cast<std::size_t>(read.ptr - rest.data()));
    if (part < 3) {
      if (!rest.starts_with('.'))
        return false;
      rest.remove_prefix(1);
    }
  }
  return rest.empty();
}

} // namespace llumnix
