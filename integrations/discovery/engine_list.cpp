#include "integrations/discovery/engine_list.hpp"

#include "integrations/discovery/host_text.hpp"
#include "integrations/discovery/pod_record.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>

namespace llumnix {
namespace {

constexpr std::size_t problems_max = 16;
constexpr std::int64_t default_port = 80;

std::string_view trim(std::string_view text) {
  constexpr std::string_view blanks = " \t\r";
  auto begin = text.find_first_not_of(blanks);
  if (begin == text.npos)
    return {};
  return text.substr(begin, text.find_last_not_of(blanks) - begin + 1);
}

/// What stands before the next `end`; that and the end are taken away.
std::string_view take_until(std::string_view& text, char end) {
  auto at = std::min(text.find(end), text.size());
  auto part = text.substr(0, at);
  text.remove_prefix(std::min(at + 1, text.size()));
  return part;
}

std::optional<std::int64_t> read_number(std::string_view digits) {
  std::int64_t number = 0;
  auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (failed != std::errc{} || end != digits.data() + digits.size() || digits.front() == '-')
    return std::nullopt;
  return number;
}

std::string quoted(std::string_view text) {
  return "'" + printable(text) + "'";
}

/// HOST[:PORT] in its usual form; empty if it is none.
std::string read_address(std::string_view text, std::optional<std::int64_t> port) {
  auto bracket = text.find(']');
  auto colon = text.find(':', text.starts_with('[') && bracket != text.npos ? bracket : 0);
  auto host = text.substr(0, colon);
  if (colon != text.npos)
    port = read_number(text.substr(colon + 1));
  return port ? join_host_port(host, *port) : std::string{};
}

/// What is wrong with the value; empty if it was taken.
std::string take_dp(std::string_view value, discovered_engine& engine) {
  auto slash = std::min(value.find('/'), value.size());
  auto rank = read_number(value.substr(0, slash));
  auto size = slash < value.size() ? read_number(value.substr(slash + 1)) : std::nullopt;
  if (!rank || !size || *rank >= *size || *size > static_cast<std::int64_t>(pod_instances_max))
    return "dp=" + quoted(value) + " is not RANK/SIZE, like 0/2";
  engine.dp_rank = static_cast<std::uint32_t>(*rank);
  engine.dp_size = static_cast<std::uint32_t>(*size);
  return {};
}

std::string take_option(std::string_view option, discovered_engine& engine) {
  auto equals = option.find('=');
  if (equals == option.npos)
    return quoted(option) + " is no option; write OPTION=VALUE";
  auto name = trim(option.substr(0, equals));
  auto value = trim(option.substr(equals + 1));
  if (name == "type") {
    engine.role = value;
    return is_role(value) ? "" : "type=" + quoted(value) + " is none of neutral, prefill, decode";
  }
  if (name == "model") {
    engine.model = value;
    return !value.empty() && is_model_name(value) ? "" : "model=" + quoted(value) + " is no name";
  }
  if (name == "aux") {
    engine.kv_address = read_address(value, std::nullopt);
    return engine.kv_address.empty() ? "aux=" + quoted(value) + " is not HOST:PORT" : "";
  }
  if (name == "dp")
    return take_dp(value, engine);
  return quoted(name) + " is no option; there are type, model, aux and dp";
}

/// What is wrong with the item; empty if it is an engine.
std::string read_item(std::string_view item, discovered_engine& engine) {
  if (auto at = item.rfind('@'); at != item.npos) {
    auto options = item.substr(0, at);
    item = trim(item.substr(at + 1));
    while (!options.empty())
      if (auto option = trim(take_until(options, ';')); !option.empty())
        if (auto wrong = take_option(option, engine); !wrong.empty())
          return wrong;
  }
  constexpr std::string_view scheme = "http://";
  auto place = item;
  if (lower_case(place.substr(0, scheme.size())) == scheme) {
    place.remove_prefix(scheme.size());
    if (place.ends_with('/'))
      place.remove_suffix(1);
  }
  engine.address = read_address(place, default_port);
  engine.id = engine.address;
  if (engine.address.empty())
    return quoted(item) + " is no address; write HOST:PORT";
  if (engine.kv_address.empty())
    engine.kv_address = usual_kv_address(engine.address);
  return {};
}

} // namespace

engine_list read_engine_list(std::string_view text) {
  engine_list list;
  std::map<std::string, std::size_t> line_of;
  auto object = [&](std::size_t line, std::string sentence) {
    if (list.problems.size() < problems_max)
      list.problems.push_back({line, std::move(sentence)});
  };
  for (std::size_t line = 1; !text.empty(); ++line) {
    auto rest = take_until(text, '\n');
    rest = rest.substr(0, rest.find('#'));
    while (!rest.empty()) {
      auto item = trim(take_until(rest, ','));
      if (item.empty())
        continue;
      discovered_engine engine;
      if (auto wrong = read_item(item, engine); !wrong.empty())
        object(line, std::move(wrong));
      else if (auto [seen, fresh] = line_of.emplace(engine.address, line); !fresh)
        object(line, engine.address + " is in line " + std::to_string(seen->second) + " already");
      else
        list.engines.push_back(std::move(engine));
    }
  }
  std::sort(list.engines.begin(), list.engines.end(), [](const auto& left, const auto& right) {
    return left.id < right.id;
  });
  return list;
}

} // namespace llumnix
