#include "runtime/migration/request_selection.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

namespace llumnix {

namespace {

using enum selection_rule;
using enum selection_order;

constexpr std::array rules{
  std::pair<std::string_view, selection_rule>{"NUM_REQ", requests},
  std::pair<std::string_view, selection_rule>{"TOKEN", tokens},
  std::pair<std::string_view, selection_rule>{"RATIO", kv_ratio},
};

constexpr std::array orders{
  std::pair<std::string_view, selection_order>{"LCR", latest_running},
  std::pair<std::string_view, selection_order>{"FCR", earliest_running},
  std::pair<std::string_view, selection_order>{"LR", longest_running},
  std::pair<std::string_view, selection_order>{"SR", shortest_running},
  std::pair<std::string_view, selection_order>{"FCW", earliest_waiting},
  std::pair<std::string_view, selection_order>{"FCWSR", waiting_then_shortest},
  std::pair<std::string_view, selection_order>{"LPSR", low_priority_shortest},
};

template <class Names>
auto parse(const Names& names, std::string_view name) {
  auto found = std::ranges::find(names, name, &Names::value_type::first);
  return found == names.end() ? std::nullopt : std::optional{found->second};
}

template <class Names>
std::string listed(const Names& names) {
  std::string text;
  for (auto& [name, value] : names)
    text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

/// Towards zero, and what no 64-bit integer holds to the nearest that one does.
std::int64_t whole_number(double value) {
  constexpr double beyond = 9223372036854775808.0; // 2^63
  if (value >= beyond)
    return std::numeric_limits<std::int64_t>::max();
  if (value < -beyond)
    return std::numeric_limits<std::int64_t>::min();
  return static_cast<std::int64_t>(value);
}

constexpr auto unlimited = std::numeric_limits<std::int64_t>::max();

using queue = std::vector<const listed_request*>;

/// Those of a list that are not on their way, and have so many output tokens at least.
queue movable(const std::optional<std::vector<listed_request>>& list, std::int32_t output_tokens) {
  queue all;
  if (list)
    for (auto& request : *list)
      if (!request.migrating && request.output_tokens >= output_tokens)
        all.push_back(&request);
  return all;
}

/// The running requests as an order walks them.
queue running_in(selection_order order, const request_lists& lists) {
  auto all = movable(lists.running, 1);
  if (order == latest_running)
    std::ranges::reverse(all);
  else if (order == longest_running)
    std::ranges::stable_sort(all, std::greater{}, &listed_request::tokens);
  else if (order == shortest_running || order == waiting_then_shortest)
    std::ranges::stable_sort(all, std::less{}, &listed_request::tokens);
  else if (order == low_priority_shortest)
    std::ranges::stable_sort(all, std::less{}, [](const listed_request* x) {
      return std::pair{x->high_priority, x->tokens};
    });
  return all;
}

/// A selection among the requests that there are.
struct choice {
  std::vector<queue> walks;  ///< one after the other
  std::int64_t budget = 0;   ///< requests or tokens
  bool counts_tokens = true; ///< false: `budget` is of requests
};

std::int64_t tokens_of(const listed_request& request) {
  return std::max<std::int64_t>(request.tokens, 0);
}

result<choice> choice_of(
  const request_selection& wanted, const request_lists& lists, std::int64_t kv_capacity_tokens,
  std::optional<std::int64_t> free_slots) {
  if (!std::isfinite(wanted.value) || !std::isfinite(wanted.balance))
    return {errc::invalid_argument, "the value of a selection is a finite number"};
  auto value = whole_number(wanted.value);
  auto slots = wanted.rule == requests ? value : 1;
  if (free_slots && slots > *free_slots)
    return {
      errc::queue_full, std::to_string(slots) + " may have to leave, slots for "
                          + std::to_string(*free_slots) + " are free"};
  if (wanted.rule == requests && value == -1) // the instance is about to stop
    return choice{{movable(lists.waiting, 0), movable(lists.running, 0)}, unlimited, false};
  choice made;
  made.counts_tokens = wanted.rule != requests;
  made.budget = wanted.rule == kv_ratio
                  ? whole_number(static_cast<double>(kv_capacity_tokens) * wanted.value)
                  : value;
  if (wanted.order == earliest_waiting || wanted.order == waiting_then_shortest)
    made.walks.push_back(movable(lists.waiting, 0));
  if (wanted.order != earliest_waiting)
    made.walks.push_back(running_in(wanted.order, lists));
  return made;
}

/// The one with the fewest tokens, the first of equals; null if it has more than `tokens_max`.
const listed_request* smallest(const std::vector<queue>& walks, std::int64_t tokens_max) {
  const listed_request* found = nullptr;
  for (const auto& walk : walks)
    for (auto* request : walk)
      if (
        tokens_of(*request) <= tokens_max && (!found || tokens_of(*request) < tokens_of(*found)))
        found = request;
  return found;
}

} // namespace

std::string_view to_string(selection_rule rule) {
  return std::ranges::find(rules, rule, &decltype(rules)::value_type::second)->first;
}

std::string_view to_string(selection_order order) {
  return std::ranges::find(orders, order, &decltype(orders)::value_type::second)->first;
}

std::optional<selection_rule> parse_selection_rule(std::string_view name) {
  return parse(rules, name);
}

std::optional<selection_order> parse_selection_order(std::string_view name) {
  return parse(orders, name);
}

std::string known_selection_rules() {
  return listed(rules);
}

std::string known_selection_orders() {
  return listed(orders);
}

result<std::vector<std::string>> select_requests(
  const request_selection& wanted, const request_lists& lists, std::int64_t kv_capacity_tokens,
  std::optional<std::int64_t> free_slots) {
  auto from = choice_of(wanted, lists, kv_capacity_tokens, free_slots);
  if (!from)
    return std::move(from).error();
  std::vector<std::string> taken;
  auto budget = from->budget;
  for (const auto& walk : from->walks) {
    std::int64_t spent = 0;
    for (auto* request : walk) {
      if (spent >= budget)
        break;
      auto cost = from->counts_tokens ? tokens_of(*request) : 1;
      if (cost > budget)
        continue;
      taken.push_back(request->id);
      spent += cost;
    }
    budget = std::max<std::int64_t>(0, budget - spent); // the last one taken may overshoot
  }
  return taken;
}

result<std::vector<std::string>> select_within(
  const request_selection& wanted, const request_lists& lists, std::int64_t kv_capacity_tokens,
  std::optional<std::int64_t> free_slots) {
  auto from = choice_of(wanted, lists, kv_capacity_tokens, free_slots);
  if (!from)
    return std::move(from).error();
  auto balance = wanted.balance > 0 ? whole_number(wanted.balance) : unlimited;
  auto tokens_left = from->counts_tokens ? std::min(from->budget, balance) : balance;
  auto requests_left = from->counts_tokens ? unlimited : from->budget;
  std::vector<std::string> taken;
  for (const auto& walk : from->walks)
    for (auto* request : walk) {
      if (requests_left <= 0 || tokens_left <= 0)
        return taken;
      if (tokens_of(*request) > tokens_left)
        continue;
      taken.push_back(request->id);
      tokens_left -= tokens_of(*request);
      --requests_left;
    }
  bool may_exceed = from->counts_tokens && from->budget > 0 && wanted.balance > 0;
  if (taken.empty() && may_exceed)
    if (auto* alone = smallest(from->walks, balance))
      taken.push_back(alone->id);
  return taken;
}

} // namespace llumnix
