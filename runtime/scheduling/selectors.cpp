#include "runtime/scheduling/selectors.hpp"

#include <algorithm>
#include <cmath>

namespace llumnix {

namespace {

using row = candidate_table::row;

/// Whether x goes before y: better in the first metric that tells them apart, else by row, which is
/// by id, counted from `first` around the circle.
bool goes_before(const best_metric& which, const candidate_table& table, row first, row x, row y) {
  for (auto slot : which.slots) {
    auto& values = table.values(slot);
    if (values[x] != values[y])
      return is_better(table.metrics()[slot].metric->direction, values[x], values[y]);
  }
  return (x >= first) == (y >= first) ? x < y : x >= first;
}

/// A number that looks random and depends on nothing but its arguments: FNV-1a over the text, then
/// the finalizer of splitmix64. The same on every machine, as std::hash is not.
std::uint64_t draw(std::uint64_t seed, std::string_view text) {
  std::uint64_t x = 0xCBF29CE484222325ull;
  for (unsigned char c : text)
    x = (x ^ c) * 0x100000001B3ull;
  x += seed * 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

/// The first survivor at or after `begin` and before `end`.
std::optional<row> first_of(const survivors& among, std::size_t begin, std::size_t end) {
  for (auto at = begin; at < end; ++at)
    if (among.has(at))
      return static_cast<row>(at);
  return std::nullopt;
}

/// The first row from `from` on that is not worse than `bound`, going by one column; `end` if all
/// are. Most are: they are looked at several at once.
template <better Direction>
std::size_t next_as_good(const float* values, std::size_t from, std::size_t end, float bound) {
  constexpr std::size_t several = 16;
  auto worse = [&](std::size_t at) { return is_better(Direction, bound, values[at]); };
  if (from < end && !worse(from))
    return from;
  for (; from + several <= end; from += several) {
    unsigned as_good = 0;
    for (std::size_t at = from; at < from + several; ++at)
      as_good += worse(at) ? 0u : 1u;
    if (as_good > 0)
      break;
  }
  while (from < end && worse(from))
    ++from;
  return from;
}

/// Where a decision began, and whom it holds for the best so far.
struct contest {
  row first;
  row best;
};

/// One sweep over rows `from` to `end` of the first metric's column; the other metrics are looked
/// at on a tie only, and not at all if there are none: then whoever was met first stays.
template <better Direction>
void sweep(
  const best_metric& which, const survivors& among, std::size_t from, std::size_t end,
  contest& so_far) {
  auto& table = among.table;
  auto* values = table.values(which.slots.front()).data();
  auto* rejected = among.rejected.data();
  auto taking_part = among.taking_part;
  bool ties_matter = which.slots.size() > 1;
  auto at = so_far.best;
  auto best = values[at];
  for (auto next = next_as_good<Direction>(values, from, end, best); next < end;
       next = next_as_good<Direction>(values, next + 1, end, best)) {
    bool wins = is_better(Direction, values[next], best);
    if ((!wins && !ties_matter) || (rejected[next] & taking_part) != 0)
      continue;
    if (wins || goes_before(which, table, so_far.first, static_cast<row>(next), at)) {
      at = static_cast<row>(next);
      best = values[next];
    }
  }
  so_far.best = at;
}

template <better Direction>
std::optional<row> sweep_around(const best_metric& which, const survivors& among, row first) {
  auto size = among.table.size();
  if (auto met = first_of(among, first, size)) {
    contest between{first, *met};
    sweep<Direction>(which, among, *met + std::size_t{1}, size, between);
    sweep<Direction>(which, among, 0, first, between);
    return between.best;
  }
  auto met = first_of(among, 0, first);
  if (!met)
    return met;
  contest between{first, *met};
  sweep<Direction>(which, among, *met + std::size_t{1}, first, between);
  return between.best;
}

std::optional<row> the_best(const best_metric& which, const survivors& among, row first) {
  auto direction = among.table.metrics()[which.slots.front()].metric->direction;
  return direction == better::lower ? sweep_around<better::lower>(which, among, first)
                                    : sweep_around<better::higher>(which, among, first);
}

std::optional<row> one_of_the_best(
  const best_metric& which, const survivors& among, std::string_view request_id,
  selector_memory& memory) {
  auto best = best_of(which, among, which.top_k, memory.ranking, memory.first);
  if (best.empty())
    return std::nullopt;
  memory.drawn = best.size() > 1 ? static_cast<std::uint32_t>(best.size()) : 0;
  return best[draw(which.seed, request_id) % best.size()];
}

/// The `number`-th survivor, from 0; there are more.
row survivor_at(const survivors& among, std::size_t number) {
  row at = 0;
  while (!among.has(at) || number-- > 0)
    ++at;
  return at;
}

std::optional<row> better_of_two(
  const best_metric& which, const survivors& among, std::string_view request_id,
  selector_memory& memory) {
  auto first = memory.first;
  std::uint32_t count = 0;
  for (row at = 0; at < among.table.size(); ++at)
    count += among.has(at);
  if (count <= 2)
    return the_best(which, among, first);
  auto drawn = draw(which.seed, request_id);
  auto one = drawn % count;
  auto other = (one + 1 + (drawn >> 32) % (count - 1)) % count;
  auto x = survivor_at(among, one), y = survivor_at(among, other);
  bool before = goes_before(which, among.table, first, x, y);
  memory.drawn = count;
  memory.beaten = before ? y : x;
  return before ? x : y;
}

/// Whether the last choice stays although `best` is better.
bool stays(const best_metric& which, const candidate_table& table, row last, row best) {
  auto slot = which.slots.front();
  auto is = table.values(slot)[last], could_be = table.values(slot)[best];
  if (!std::isfinite(is))
    return could_be == is;
  return !is_better(table.metrics()[slot].metric->direction, could_be, is)
         || std::abs(could_be - is) <= which.hysteresis * std::abs(is);
}

std::optional<row>
the_best_or_last(const best_metric& which, const survivors& among, selector_memory& memory) {
  auto best = the_best(which, among, memory.first);
  if (!best || which.hysteresis == 0)
    return best;
  auto last = among.table.find(memory.last);
  memory.kept
    = last && *last != *best && among.has(*last) && stays(which, among.table, *last, *best);
  return memory.kept ? last : best;
}

std::optional<row> choose_by(
  const best_metric& which, const survivors& among, std::string_view request_id, bool,
  selector_memory& memory) {
  bool in_turn = which.ties == tie_rule::in_turn;
  memory.first = in_turn ? among.table.first_above(memory.last) : 0;
  auto chosen = which.power_of_two ? better_of_two(which, among, request_id, memory)
                : which.top_k > 1  ? one_of_the_best(which, among, request_id, memory)
                                   : the_best_or_last(which, among, memory);
  if (chosen && (in_turn || which.hysteresis > 0))
    memory.last = among.table.ids()[*chosen];
  return chosen;
}

std::optional<row> choose_by(
  const fixed_preference&, const survivors& among, std::string_view, bool,
  selector_memory& memory) {
  if (auto last = among.table.find(memory.last); last && among.has(*last))
    return last;
  auto chosen = first_of(among, 0, among.table.size());
  if (chosen)
    memory.last = among.table.ids()[*chosen];
  return chosen;
}

std::optional<row> choose_by(
  const next_in_order&, const survivors& among, std::string_view, bool, selector_memory& memory) {
  auto begin = among.table.first_above(memory.last);
  auto chosen = first_of(among, begin, among.table.size());
  if (!chosen)
    chosen = first_of(among, 0, begin);
  if (chosen)
    memory.last = among.table.ids()[*chosen];
  return chosen;
}

/// The first survivor that no other goes before.
template <class Before>
std::optional<row> first_by(const survivors& among, Before before) {
  std::optional<row> best;
  for (row at = 0; at < among.table.size(); ++at)
    if (among.has(at) && (!best || before(at, *best)))
      best = at;
  return best;
}

/// Whether a survivor goes before another.
bool goes_before(
  const slo_prefill& which, const candidate_table& table, bool, row x, row y) {
  auto& ttft = table.values(which.ttft);
  auto& reserved = table.reserved();
  if (ttft[x] != ttft[y])
    return ttft[x] < ttft[y];
  return reserved[x] == infer_type::prefill && reserved[y] != infer_type::prefill;
}

bool goes_before(
  const slo_decode& which, const candidate_table& table, bool fallback, row x, row y) {
  auto& tpot = table.values(which.tpot);
  auto& backlog = table.values(which.backlog);
  auto& reserved = table.reserved();
  auto comes_first = [&](row at) {
    return fallback ? tpot[at] < which.limit : reserved[at] == infer_type::decode;
  };
  bool first = comes_first(x), second = comes_first(y);
  if (first != second)
    return first;
  if (fallback && !first)
    return tpot[x] < tpot[y];
  if (tpot[x] != tpot[y])
    return tpot[x] > tpot[y];
  return fallback && backlog[x] < backlog[y];
}

template <class Slo>
std::optional<row> choose_by(
  const Slo& which, const survivors& among, std::string_view, bool fallback, selector_memory&)
  requires std::is_same_v<Slo, slo_prefill> || std::is_same_v<Slo, slo_decode>
{
  return first_by(
    among, [&](row x, row y) { return goes_before(which, among.table, fallback, x, y); });
}

/// A metric that tells two rows apart, as the cause; nothing where it does not.
std::optional<decisive_fact>
apart_by(const candidate_table& table, std::size_t slot, row chosen, row next) {
  auto& values = table.values(slot);
  if (values[chosen] == values[next])
    return std::nullopt;
  decisive_fact told;
  told.cause = choice_cause::metric;
  told.metric = metric_number(table.metrics()[slot].metric->name);
  told.value = values[chosen];
  told.against = values[next];
  return told;
}

/// What makes `chosen` go before `next`, rule by rule as `goes_before` looks at them.
decisive_fact
apart(const best_metric& which, const candidate_table& table, bool, row chosen, row next) {
  for (auto slot : which.slots)
    if (auto told = apart_by(table, slot, chosen, next))
      return *told;
  return {which.ties == tie_rule::in_turn ? choice_cause::turn : choice_cause::lowest_id};
}

decisive_fact
apart(const slo_prefill& which, const candidate_table& table, bool, row chosen, row next) {
  if (auto told = apart_by(table, which.ttft, chosen, next))
    return *told;
  auto& reserved = table.reserved();
  bool kept_for_it
    = reserved[chosen] == infer_type::prefill && reserved[next] != infer_type::prefill;
  return {kept_for_it ? choice_cause::reserved : choice_cause::lowest_id};
}

decisive_fact
apart(const slo_decode& which, const candidate_table& table, bool fallback, row chosen, row next) {
  auto kept_for_it = [&](row at) { return table.reserved()[at] == infer_type::decode; };
  if (!fallback && kept_for_it(chosen) && !kept_for_it(next))
    return {choice_cause::reserved};
  if (auto told = apart_by(table, which.tpot, chosen, next))
    return *told;
  if (fallback && table.values(which.tpot)[chosen] < which.limit)
    if (auto told = apart_by(table, which.backlog, chosen, next))
      return *told;
  return {choice_cause::lowest_id};
}

template <class Slo>
std::span<const row> first_few(
  const Slo& which, const survivors& among, std::size_t count, std::vector<row>& into,
  bool fallback) {
  into.clear();
  for (row at = 0; at < among.table.size(); ++at)
    if (among.has(at))
      into.push_back(at);
  auto end = into.begin() + static_cast<std::ptrdiff_t>(std::min(count, into.size()));
  std::partial_sort(into.begin(), end, into.end(), [&](row x, row y) {
    bool before = goes_before(which, among.table, fallback, x, y);
    return before || (x < y && !goes_before(which, among.table, fallback, y, x));
  });
  return {into.begin(), end};
}

} // namespace

std::string_view name_of(const selector& which) {
  return std::visit([](auto& x) { return x.name; }, which);
}

std::optional<row> choose(
  const selector& which, const survivors& among, std::string_view request_id, bool fallback,
  selector_memory& memory) {
  memory.kept = false;
  memory.drawn = 0;
  return std::visit(
    [&](auto& x) { return choose_by(x, among, request_id, fallback, memory); }, which);
}

std::vector<std::size_t> compared_by(const selector& which) {
  if (auto* best = std::get_if<best_metric>(&which))
    return best->slots;
  if (auto* prefill = std::get_if<slo_prefill>(&which))
    return {prefill->ttft};
  if (auto* decode = std::get_if<slo_decode>(&which))
    return {decode->tpot};
  return {};
}

std::span<const row> ranking_of(
  const selector& which, const survivors& among, std::size_t count, bool fallback,
  selector_memory& memory) {
  if (auto* best = std::get_if<best_metric>(&which))
    return best_of(*best, among, count, memory.ranking, memory.first);
  if (auto* prefill = std::get_if<slo_prefill>(&which))
    return first_few(*prefill, among, count, memory.ranking, fallback);
  if (auto* decode = std::get_if<slo_decode>(&which))
    return first_few(*decode, among, count, memory.ranking, fallback);
  return {};
}

decisive_fact what_decided(
  const selector& which, const survivors& among, row chosen, std::optional<row> next, bool fallback,
  const selector_memory& memory) {
  decisive_fact told;
  auto* best = std::get_if<best_metric>(&which);
  bool of_two = best && best->power_of_two && memory.drawn > 0;
  if (of_two)
    next = memory.beaten;
  if (memory.kept)
    told.cause = choice_cause::kept;
  else if (memory.drawn > 0 && !of_two)
    told.cause = choice_cause::drawn;
  else if (!compared_by(which).empty())
    told = std::visit(
      [&](auto& x) -> decisive_fact {
        if constexpr (requires { apart(x, among.table, fallback, chosen, chosen); })
          if (next)
            return apart(x, among.table, fallback, chosen, *next);
        return {choice_cause::alone};
      },
      which);
  told.drawn = memory.drawn;
  if (next && told.cause != choice_cause::policy)
    told.next = among.table.ids()[*next];
  return told;
}

std::span<const row> best_of(
  const best_metric& which, const survivors& among, std::size_t count, std::vector<row>& into,
  row first) {
  constexpr std::size_t few = 16; // that many are kept in order while sweeping
  into.clear();
  auto before = [&](row x, row y) { return goes_before(which, among.table, first, x, y); };
  auto* values = among.table.values(which.slots.front()).data();
  auto direction = among.table.metrics()[which.slots.front()].metric->direction;
  auto next = direction == better::lower ? next_as_good<better::lower> : next_as_good<better::higher>;
  auto size = among.table.size();
  for (row at = 0; at < size; ++at) {
    if (count <= few && count > 0 && into.size() == count) // most are worse, by the first metric alone
      at = static_cast<row>(next(values, at, size, values[into.back()]));
    if (at == size)
      break;
    if (!among.has(at))
      continue;
    if (count > few) {
      into.push_back(at);
    } else if (into.size() < count || (count > 0 && before(at, into.back()))) {
      into.insert(std::ranges::upper_bound(into, at, before), at);
      into.resize(std::min(into.size(), count));
    }
  }
  auto end = into.begin() + static_cast<std::ptrdiff_t>(std::min(count, into.size()));
  if (count > few)
    std::partial_sort(into.begin(), end, into.end(), before);
  return {into.begin(), end};
}

} // namespace llumnix
