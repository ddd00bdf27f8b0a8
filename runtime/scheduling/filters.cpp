#include "runtime/scheduling/filters.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

namespace llumnix {

namespace {

/// Rejects the rows whose value in the column fails the test. Local pointers, because a byte
/// written could else be any of the others.
template <class T, class Test>
void reject(
  const std::vector<T>& column, rejections bit, std::vector<rejections>& rejected, Test fails) {
  auto* __restrict value = column.data();
  auto* __restrict into = rejected.data();
  for (std::size_t row = 0, end = column.size(); row < end; ++row)
    into[row] |= static_cast<rejections>(fails(value[row]) ? bit : 0);
}

/// Whether a row fails the test. Mostly none does, and then reading the column is all it costs.
template <class T, class Test>
bool any_fails(const std::vector<T>& column, Test fails) {
  return std::find_if(column.begin(), column.end(), fails) != column.end();
}

/// The rows that fail the test need failover.
template <class T, class Test>
void mark_failing(const std::vector<T>& column, screening& into, Test fails) {
  for (std::size_t row = 0; row < column.size(); ++row)
    if (fails(column[row])) {
      into.failing[row] = 1;
      into.any_failing = true;
    }
}

constexpr std::array domains{
  std::pair<std::string_view, failover_domain>{"instance", failover_domain::instance},
  std::pair<std::string_view, failover_domain>{"node", failover_domain::node},
  std::pair<std::string_view, failover_domain>{"instance-unit", failover_domain::instance_unit},
  std::pair<std::string_view, failover_domain>{"node-unit", failover_domain::node_unit},
};

using location = candidate_table::location;

void number(
  screening::numbering& into, const std::vector<location>& locations, std::string location::*id) {
  std::vector<std::string_view> distinct;
  for (auto& place : locations)
    distinct.push_back(place.*id);
  std::ranges::sort(distinct);
  distinct.erase(std::ranges::unique(distinct).begin(), distinct.end());
  into.count = static_cast<std::uint32_t>(distinct.size());
  into.empty.reset();
  if (!distinct.empty() && distinct.front().empty())
    into.empty = 0;
  into.of.clear();
  for (auto& place : locations)
    into.of.push_back(static_cast<std::uint32_t>(
      std::ranges::lower_bound(distinct, std::string_view{place.*id}) - distinct.begin()));
}

void number_locations(const candidate_table& table, screening& into) {
  if (into.layout == table.layout())
    return;
  into.layout = table.layout();
  number(into.nodes, table.locations(), &location::node);
  number(into.units, table.locations(), &location::unit);
  into.data_parallel = std::ranges::any_of(table.locations(), &location::data_parallel);
}

/// Turns a set of rows into all rows that share a number with one of it.
void widen(
  std::vector<std::uint8_t>& rows, const screening::numbering& numbers, bool empty_counts,
  std::vector<std::uint8_t>& marks) {
  marks.assign(numbers.count, 0);
  for (std::size_t row = 0; row < rows.size(); ++row)
    marks[numbers.of[row]] |= rows[row];
  if (numbers.empty && !empty_counts)
    marks[*numbers.empty] = 0;
  for (std::size_t row = 0; row < rows.size(); ++row)
    rows[row] = marks[numbers.of[row]];
}

// Values, not functions: a sweep inlines them.
constexpr auto unfit = [](std::uint8_t schedulable) { return schedulable == 0; };
constexpr auto lost = [](instance_state state) { return state == instance_state::lost; };

/// Those that declare themselves unfit need failover, unless it is because somebody drains them:
/// that is no sign that their neighbours are ill.
void mark_unfit(const candidate_table& table, screening& into) {
  auto& schedulable = table.schedulable();
  for (std::size_t row = 0; row < schedulable.size(); ++row)
    if (unfit(schedulable[row]) && table.states()[row] != instance_state::draining) {
      into.failing[row] = 1;
      into.any_failing = true;
    }
}

/// More than the limit in whole seconds: from limit + 1 seconds on.
struct stale_at {
  stale_at(unix_ms now, std::uint32_t limit_s)
    : newest_stale{now - (std::int64_t{limit_s} + 1) * 1000} {}
  bool operator()(unix_ms written) const { return written <= newest_stale; }

  unix_ms newest_stale;
};

/// The rows that the failures reach, as `screening::reached`.
const std::vector<std::uint8_t>&
spread(failover_domain domain, const candidate_table& table, screening& into) {
  bool by_node = domain == failover_domain::node || domain == failover_domain::node_unit;
  bool by_unit = domain == failover_domain::instance_unit || domain == failover_domain::node_unit;
  number_locations(table, into);
  into.reached = into.failing;
  if (by_node)
    widen(into.reached, into.nodes, false, into.marks);
  if (by_unit && into.data_parallel)
    widen(into.reached, into.units, true, into.marks);
  return into.reached;
}

} // namespace

void state_filter::operator()(const screened& what, screening& into) const {
  auto out_of_reach
    = [bit = candidate_table::bit_of(what.by)](std::uint8_t x) { return (x & bit) == 0; };
  if (any_fails(what.table.reachable(), out_of_reach))
    reject(what.table.reachable(), what.bit, into.rejected, out_of_reach);
  auto& states = what.table.states();
  auto unready = [](instance_state x) { return x != instance_state::ready; };
  if (!any_fails(states, unready))
    return;
  reject(states, what.bit, into.rejected, unready);
  mark_failing(states, into, lost);
}

void excluded_filter::operator()(const screened& what, screening& into) const {
  for (auto& id : what.exclude)
    if (auto row = what.table.find(id))
      into.rejected[*row] |= what.bit;
}

void schedulability_filter::operator()(const screened& what, screening& into) const {
  auto& schedulable = what.table.schedulable();
  if (!any_fails(schedulable, unfit))
    return;
  reject(schedulable, what.bit, into.rejected, unfit);
  mark_unfit(what.table, into);
}

void staleness_filter::operator()(const screened& what, screening& into) const {
  auto& written = what.table.written();
  stale_at stale{what.now, limit_s};
  if (!any_fails(written, stale))
    return;
  reject(written, what.bit, into.rejected, stale);
  mark_failing(written, into, stale);
}

void metric_filter::operator()(const screened& what, screening& into) const {
  auto& values = what.table.values(slot);
  auto& rejected = into.rejected;
  auto limit = threshold;
  if (what.table.metrics()[slot].metric->direction == better::lower) {
    if (inverted)
      reject(values, what.bit, rejected, [limit](float x) { return x < limit; });
    else
      reject(values, what.bit, rejected, [limit](float x) { return !(x < limit); });
  } else {
    if (inverted)
      reject(values, what.bit, rejected, [limit](float x) { return x > limit; });
    else
      reject(values, what.bit, rejected, [limit](float x) { return !(x > limit); });
  }
}

void attribute_filter::operator()(const screened& what, screening& into) const {
  reject(what.table.reserved(), what.bit, into.rejected, [this](std::optional<infer_type> x) {
    return x == reserved;
  });
}

void role_filter::operator()(const screened& what, screening& into) const {
  reject(what.table.roles(), what.bit, into.rejected, [this](infer_type x) { return x != role; });
}

result<failover_domain> parse_failover_domain(std::string_view name) {
  std::string known;
  for (auto& [text, domain] : domains) {
    if (text == name)
      return domain;
    known.append(known.empty() ? "" : ", ").append(text);
  }
  return {
    errc::invalid_argument,
    "unknown failover domain \"" + std::string{name} + "\"; known: " + known};
}

void failover_filter::operator()(const screened& what, screening& into) const {
  if (!into.any_failing)
    return;
  reject(spread(domain, what.table, into), what.bit, into.rejected, [](std::uint8_t x) {
    return x != 0;
  });
}

void failover_source_filter::operator()(const screened& what, screening& into) const {
  mark_failing(what.table.states(), into, lost);
  mark_unfit(what.table, into);
  mark_failing(what.table.written(), into, stale_at{what.now, staleness_limit_s});
  reject(spread(domain, what.table, into), what.bit, into.rejected, [](std::uint8_t x) {
    return x == 0;
  });
}

filter_kind kind_of(const filter& which) {
  if (auto* metric = std::get_if<metric_filter>(&which))
    return metric->inverted ? filter_kind::not_metric : filter_kind::metric;
  return std::visit(
    [](auto& x) {
      if constexpr (requires { x.kind; })
        return x.kind;
      else
        return filter_kind::metric;
    },
    which);
}

void screen(
  std::span<const filter> filters, const candidate_table& table, const placement_query& query,
  unix_ms now, screening& into, failure_marks marks) {
  into.rejected.assign(table.size(), 0);
  if (marks == failure_marks::fresh) {
    into.failing.assign(table.size(), 0);
    into.any_failing = false;
  }
  into.failing.resize(table.size(), 0);
  rejections bit = 1;
  for (auto& which : filters) {
    screened what{table, query.exclude, query.by, now, bit};
    std::visit([&](auto& run) { run(what, into); }, which);
    bit = static_cast<rejections>(bit << 1);
  }
}

namespace {

/// The last pass a filter takes part in.
std::uint32_t passes_of(const filter& which) {
  if (auto* metric = std::get_if<metric_filter>(&which))
    return metric->strict ? last_pass : 1;
  return std::visit(
    [](auto& x) {
      if constexpr (requires { x.passes; })
        return x.passes;
      else
        return last_pass;
    },
    which);
}

} // namespace

rejections filters_of_pass(std::span<const filter> filters, std::uint32_t pass) {
  unsigned taking_part = 0;
  for (std::size_t i = 0; i < filters.size(); ++i)
    if (passes_of(filters[i]) >= pass)
      taking_part |= 1u << i;
  return static_cast<rejections>(taking_part);
}

} // namespace llumnix
