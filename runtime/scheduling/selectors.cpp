#include "runtime/scheduling/selectors.hpp"

#include <algorithm>

namespace llumnix {

namespace {

using row = candidate_table::row;

/// Whether x goes before y: better in the first metric that tells them apart, else by row, which is
/// by id.
bool goes_before(const best_metric& which, const candidate_table& table, row x, row y) {
  for (auto slot : which.slots) {
    auto& values = table.values(slot);
    if (values[x] != values[y])
      return is_better(table.metrics()[slot]->direction, values[x], values[y]);
  }
  return x < y;
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

/// One sweep over the first metric's column, from a first survivor on; the other metrics are looked
/// at on a tie only, and not at all if there are none: then the lower id, met first, stays.
template <better Direction>
row sweep(const best_metric& which, const survivors& among, row at) {
  auto& table = among.table;
  auto* values = table.values(which.slots.front()).data();
  auto* rejected = among.rejected.data();
  auto taking_part = among.taking_part;
  bool ties_matter = which.slots.size() > 1;
  auto best = values[at];
  for (std::size_t next = at + 1, end = table.size(); next < end; ++next) {
    auto value = values[next];
    bool wins = is_better(Direction, value, best);
    if (!wins && !(ties_matter && value == best))
      continue;
    if ((rejected[next] & taking_part) != 0)
      continue;
    if (wins || goes_before(which, table, static_cast<row>(next), at)) {
      at = static_cast<row>(next);
      best = value;
    }
  }
  return at;
}

std::optional<row> the_best(const best_metric& which, const survivors& among) {
  auto first = first_of(among, 0, among.table.size());
  if (!first)
    return first;
  auto direction = among.table.metrics()[which.slots.front()]->direction;
  return direction == better::lower ? sweep<better::lower>(which, among, *first)
                                    : sweep<better::higher>(which, among, *first);
}

std::optional<row> choose_by(
  const best_metric& which, const survivors& among, std::string_view request_id,
  selector_memory& memory) {
  if (which.top_k == 1)
    return the_best(which, among);
  auto best = best_of(which, among, which.top_k, memory.ranking);
  if (best.empty())
    return std::nullopt;
  return best[draw(which.seed, request_id) % best.size()];
}

std::optional<row> choose_by(
  const fixed_preference&, const survivors& among, std::string_view, selector_memory& memory) {
  if (auto last = among.table.find(memory.last); last && among.has(*last))
    return last;
  auto chosen = first_of(among, 0, among.table.size());
  if (chosen)
    memory.last = among.table.ids()[*chosen];
  return chosen;
}

std::optional<row>
choose_by(const next_in_order&, const survivors& among, std::string_view, selector_memory& memory) {
  auto begin = among.table.first_above(memory.last);
  auto chosen = first_of(among, begin, among.table.size());
  if (!chosen)
    chosen = first_of(among, 0, begin);
  if (chosen)
    memory.last = among.table.ids()[*chosen];
  return chosen;
}

} // namespace

std::string_view name_of(const selector& which) {
  return std::visit([](auto& x) { return x.name; }, which);
}

std::optional<row> choose(
  const selector& which, const survivors& among, std::string_view request_id,
  selector_memory& memory) {
  return std::visit([&](auto& x) { return choose_by(x, among, request_id, memory); }, which);
}

std::span<const row> best_of(
  const best_metric& which, const survivors& among, std::size_t count, std::vector<row>& into) {
  into.clear();
  for (std::size_t at = 0; at < among.table.size(); ++at)
    if (among.has(at))
      into.push_back(static_cast<row>(at));
  auto end = into.begin() + static_cast<std::ptrdiff_t>(std::min(count, into.size()));
  std::partial_sort(into.begin(), end, into.end(), [&](row x, row y) {
    return goes_before(which, among.table, x, y);
  });
  return {into.begin(), end};
}

} // namespace llumnix
