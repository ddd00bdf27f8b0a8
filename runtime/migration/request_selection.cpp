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

using queue = std::vector<const listed_request*>;

queue pointers(const std::optional<std::vector<listed_request>>& list) {
  queue all;
  if (list)
    for (auto& request : *list)
      all.push_back(&request);
  return all;
}

/// The running requests as an order walks them.
queue running_in(selection_order order, const request_lists& lists) {
  auto all = pointers(lists.running);
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

/// Takes requests off queues, one walk after the other, for as long as the budget lasts.
class taker {
public:
  taker(selection_rule rule, std::int64_t budget) : by_count_{rule == requests}, budget_{budget} {}

  void walk(const queue& from, std::int32_t output_tokens_min) {
    std::int64_t spent = 0;
    for (auto* request : from) {
      if (spent >= budget_)
        break;
      if (request->migrating || request->output_tokens < output_tokens_min)
        continue;
      auto cost = by_count_ ? std::int64_t{1} : std::max<std::int64_t>(request->tokens, 0);
      if (cost > budget_)
        continue;
      taken.push_back(request->id);
      spent += cost;
    }
    budget_ = std::max<std::int64_t>(0, budget_ - spent); // the last one taken may overshoot
  }

  std::vector<std::string> taken;

private:
  bool by_count_;
  std::int64_t budget_;
};

/// Everything that is not on its way: the instance is about to stop.
std::vector<std::string> all_of(const request_lists& lists) {
  taker all{requests, std::numeric_limits<std::int64_t>::max()};
  all.walk(pointers(lists.waiting), 0);
  all.walk(pointers(lists.running), 0);
  return std::move(all.taken);
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
  if (!std::isfinite(wanted.value))
    return {errc::invalid_argument, "the value of a selection is a finite number"};
  auto value = whole_number(wanted.value);
  auto slots = wanted.rule == requests ? value : 1;
  if (free_slots && slots > *free_slots)
    return {
      errc::queue_full, std::to_string(slots) + " may have to leave, slots for "
                          + std::to_string(*free_slots) + " are free"};
  if (wanted.rule == requests && value == -1)
    return all_of(lists);
  auto budget = wanted.rule == kv_ratio
                  ? whole_number(static_cast<double>(kv_capacity_tokens) * wanted.value)
                  : value;
  taker some{wanted.rule, budget};
  if (wanted.order == earliest_waiting || wanted.order == waiting_then_shortest)
    some.walk(pointers(lists.waiting), 0);
  if (wanted.order != earliest_waiting)
    some.walk(running_in(wanted.order, lists), 1);
  return std::move(some.taken);
}

} // namespace llumnix
