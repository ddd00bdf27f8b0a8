#include "apps/admin_orders.hpp"

#include "apps/inspect_text.hpp"
#include "config/load_config.hpp"
#include "config/near_name.hpp"
#include "config/notation.hpp"
#include "net/http_message.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cctype>
#include <optional>
#include <set>
#include <span>
#include <utility>

namespace llumnix {

namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 7> migrate_fields{
  "request", "from", "to", "policy", "num_requests", "num_tokens", "kv_ratio"};
constexpr double count_max = 1e9;

error wrong(std::string_view path, const std::string& what) {
  return {errc::invalid_argument, std::string{path} + ": " + what};
}

error unknown(std::string_view path, std::span<const std::string_view> known) {
  auto near = nearest_name(path, known);
  return wrong(
    path,
    near.empty() ? "no such field" : "no such field; did you mean " + std::string{near} + "?");
}

/// A document that is one object without a name that stands twice.
result<json> read_object(std::string_view body) {
  std::set<std::string> names;
  std::string twice;
  auto watch = [&](int depth, json::parse_event_t event, const json& part) {
    if (event == json::parse_event_t::key && depth == 1)
      if (const auto& name = part.get_ref<const std::string&>(); !names.insert(name).second)
        twice = name;
    return true;
  };
  auto document = json::parse(body, watch, false);
  if (document.is_discarded())
    return {errc::invalid_argument, "the body is no JSON"};
  if (!document.is_object())
    return {errc::invalid_argument, "the body is one JSON object"};
  if (!twice.empty())
    return wrong(twice, "is given twice; keep one of them");
  return document;
}

/// Reads fields one after the other; keeps the first thing that is wrong.
class fields {
public:
  explicit fields(const json& object) : object_{object} {}

  bool has(const char* name) const { return object_.contains(name); }
  bool good() const { return !problem_; }
  error problem() const { return *problem_; }
  void complain(error what) {
    if (!problem_)
      problem_ = std::move(what);
  }

  std::string id(const char* name) {
    const auto& value = object_.at(name);
    if (!value.is_string())
      complain(wrong(name, "is no text"));
    else if (value.get_ref<const std::string&>().empty())
      complain(wrong(name, "is empty"));
    else if (value.get_ref<const std::string&>().size() > admin_id_length_max)
      complain(wrong(name, "is longer than " + std::to_string(admin_id_length_max) + " bytes"));
    else
      return value.get<std::string>();
    return {};
  }
  double count(const char* name, bool all_too) {
    const auto& value = object_.at(name);
    if (value.is_number_integer()) {
      auto number = value.get<double>(); // exact where it is allowed
      if ((number >= 1 && number <= count_max) || (all_too && number == -1))
        return number;
    }
    complain(wrong(
      name, std::string{"is no whole number from 1 to 1000000000"}
              + (all_too ? ", and not -1, which stands for all" : "")));
    return 0;
  }
  double ratio(const char* name) {
    const auto& value = object_.at(name);
    if (value.is_number())
      if (auto number = value.get<double>(); number > 0 && number <= 1)
        return number;
    complain(wrong(name, "is no number above 0, up to 1"));
    return 0;
  }
  selection_order order(const char* name) {
    const auto& value = object_.at(name);
    if (value.is_string())
      if (auto known = parse_selection_order(value.get_ref<const std::string&>()))
        return *known;
    complain(wrong(name, "is none of " + known_selection_orders()));
    return {};
  }

private:
  const json& object_;
  std::optional<error> problem_;
};

order_msg move_one(fields& read) {
  for (const char* other : {"policy", "num_requests", "num_tokens", "kv_ratio"})
    if (read.has(other))
      read.complain(
        wrong(other, "chooses among requests; it goes with `from`, not with `request`"));
  order_msg::move_request order;
  order.request = bare_request_id(read.id("request"));
  order.to = read.id("to");
  return {order};
}

order_msg move_some(fields& read) {
  order_msg::move_some order;
  order.from = read.id("from");
  order.to = read.id("to");
  auto& chosen = order.selection;
  chosen = {selection_rule::requests, selection_order::shortest_running, 1};
  if (read.has("policy"))
    chosen.order = read.order("policy");
  const char* rule = nullptr;
  for (const char* each : {"num_requests", "num_tokens", "kv_ratio"}) {
    if (!read.has(each))
      continue;
    if (rule)
      read.complain(wrong(each, std::string{"does not go with "} + rule));
    rule = each;
  }
  if (read.has("num_requests")) {
    chosen.value = read.count("num_requests", true);
  } else if (read.has("num_tokens")) {
    chosen.rule = selection_rule::tokens;
    chosen.value = read.count("num_tokens", false);
  } else if (read.has("kv_ratio")) {
    chosen.rule = selection_rule::kv_ratio;
    chosen.value = read.ratio("kv_ratio");
  }
  return {order};
}

std::string_view without_port(std::string_view text, std::string_view& port) {
  auto colon = text.rfind(':');
  if (colon == text.npos || text.ends_with(']')) {
    port = {};
    return text;
  }
  port = text.substr(colon + 1);
  return text.substr(0, colon);
}

bool names_loopback(std::string_view host) {
  bool v4 = host.starts_with("127.") && host.find_first_not_of("0123456789.") == host.npos;
  return v4 || host == "localhost" || host == "[::1]";
}

} // namespace

result<order_msg> read_migrate_body(std::string_view body) {
  auto object = read_object(body);
  if (!object)
    return std::move(object).error();
  for (const auto& [name, value] : object->items())
    if (std::ranges::find(migrate_fields, name) == migrate_fields.end())
      return unknown(name, migrate_fields);
  fields read{*object};
  if (!read.has("to"))
    return wrong("to", "is missing: the instance that takes them");
  if (read.has("request") == read.has("from"))
    return wrong(
      read.has("from") ? "from" : "request",
      read.has("from") ? "does not go with `request`; give one of them"
                       : "is missing: give the request to be moved, or `from`, an instance");
  auto order = read.has("request") ? move_one(read) : move_some(read);
  if (!read.good())
    return read.problem();
  return order;
}

result<std::chrono::milliseconds> read_drain_query(std::string_view query) {
  constexpr std::array<std::string_view, 1> known{"timeout"};
  auto timeout = drain_timeout_usual;
  bool given = false;
  for (std::size_t from = 0; from <= query.size() && !query.empty();) {
    auto end = std::min(query.find('&', from), query.size());
    auto part = query.substr(from, end - from);
    from = end + 1;
    if (part.empty())
      continue;
    auto name = net::percent_decode(part.substr(0, part.find('=')));
    if (!name || *name != known.front())
      return unknown(name ? *name : std::string{part}, known);
    if (std::exchange(given, true))
      return wrong("timeout", "is given twice; keep one of them");
    auto text = net::query_value(part, "timeout");
    if (!parse_duration(text, timeout) || timeout <= timeout.zero())
      return wrong("timeout", "is no duration above 0; write it like 250ms, 10s or 2m");
    if (timeout > drain_timeout_max)
      return wrong("timeout", "is longer than " + format_duration(drain_timeout_max));
  }
  return timeout;
}

result<void> read_no_body(std::string_view body) {
  if (body.empty())
    return {};
  auto object = read_object(body);
  if (!object)
    return std::move(object).error();
  if (!object->empty())
    return unknown(object->begin().key(), {});
  return {};
}

bool names_address(std::string_view host, std::string_view address) {
  std::string lower{host};
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
  std::string_view given_port, own_port;
  auto given = without_port(lower, given_port);
  auto own = without_port(address, own_port);
  if (!names_loopback(own))
    return true;
  return names_loopback(given) && (given_port.empty() ? own_port == "80" : given_port == own_port);
}

bool is_json(std::string_view content_type) {
  auto type = content_type.substr(0, content_type.find(';'));
  while (type.ends_with(' ') || type.ends_with('\t'))
    type.remove_suffix(1);
  return net::equal_ignoring_case(type, "application/json");
}

} // namespace llumnix
