#include "runtime/scheduling/latency_profile.hpp"

#include "runtime/base/assert.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

namespace llumnix {

namespace {

/// Two known coordinates around a value and how far it is from the first to the second.
struct bracket {
  std::size_t low = 0;
  std::size_t high = 0;
  double weight = 0; ///< 0 where the two are as good as one
};

std::optional<bracket> around(const std::vector<double>& known, double value) {
  constexpr double as_good_as_one = 1e-10;
  auto above = std::ranges::lower_bound(known, value);
  if (above == known.end() || (*above != value && above == known.begin()))
    return std::nullopt;
  auto high = static_cast<std::size_t>(above - known.begin());
  auto low = *above == value ? high : high - 1;
  auto width = known[high] - known[low];
  return bracket{low, high, width < as_good_as_one ? 0 : (value - known[low]) / width};
}

double between(double low, double high, double weight) {
  return low + weight * (high - low);
}

int exponent(double x) {
  int power = 0;
  std::frexp(x, &power);
  return power;
}

/// 0 plus `term` (at least 0) plus `term` ..., rounded after each addition as a loop would.
///
/// Between two powers of two all sums are multiples of one unit, so each addition rounds the same
/// way and adds the same amount: ties go to even, and from an even sum they do so again. Once one
/// addition has been made there, the next shows that amount, and the rest of the way is one exact
/// multiplication. That makes a handful of additions for each power of two.
double sum_of_equal(double term, std::int64_t times) {
  double sum = 0;
  while (times > 0) {
    auto first = sum + term;
    if (--times == 0 || first == sum || std::isinf(first))
      return first;
    auto second = first + term;
    --times;
    auto growth = second - first;
    if (growth == 0 || std::isinf(second))
      return second;
    if (exponent(sum) == exponent(second)) {
      auto power
        = std::ldexp(1.0, exponent(second) - 1);       // the one at or below; the next may be inf
      auto room = (power - (second - power)) / growth; // at most 2^53
      auto skipped = std::min(times, static_cast<std::int64_t>(room) - 1);
      if (skipped > 0) {
        second += static_cast<double>(skipped) * growth;
        times -= skipped;
      }
    }
    sum = second;
  }
  return sum;
}

/// Q with L given.
std::optional<double> prefill_beside(
  std::optional<double> decode_step_ms, const latency_profile& profile, std::int64_t tokens,
  std::int64_t chunk) {
  if (!decode_step_ms)
    return std::nullopt;
  if (tokens <= 0)
    return 0;
  if (chunk <= 0)
    return std::nullopt;
  auto term = [&](std::int64_t piece) -> std::optional<double> {
    auto prefill = profile.piece_ms(static_cast<double>(piece));
    return prefill ? std::optional{*prefill + *decode_step_ms} : std::nullopt;
  };
  double sum = 0;
  if (tokens >= chunk) {
    auto full = term(chunk);
    if (!full)
      return std::nullopt;
    sum = sum_of_equal(*full, tokens / chunk);
  }
  if (auto rest = tokens % chunk; rest > 0) {
    auto last = term(rest);
    if (!last)
      return std::nullopt;
    sum += *last;
  }
  return sum;
}

float as_metric(std::optional<double> ms) {
  constexpr auto infinite = std::numeric_limits<float>::infinity();
  return ms && *ms <= std::numeric_limits<float>::max() ? static_cast<float>(*ms) : infinite;
}

} // namespace

interpolation_table::interpolation_table(std::vector<profile_point> points) {
  LLUMNIX_ASSERT(points.size() < std::numeric_limits<std::uint32_t>::max());
  for (auto& point : points) {
    LLUMNIX_ASSERT(std::isfinite(point.row) && std::isfinite(point.column));
    LLUMNIX_ASSERT(std::isfinite(point.ms));
    columns_.push_back(point.column);
  }
  std::ranges::sort(columns_);
  columns_.erase(std::unique(columns_.begin(), columns_.end()), columns_.end());
  columns_.shrink_to_fit();
  auto place = [](const profile_point& x) { return std::tie(x.row, x.column); };
  std::ranges::stable_sort(points, {}, place);
  for (std::size_t i = 0; i < points.size(); ++i) {
    auto& point = points[i];
    if (i + 1 < points.size() && place(points[i + 1]) == place(point))
      continue;
    if (rows_.empty() || rows_.back() != point.row) {
      rows_.push_back(point.row);
      begins_.push_back(static_cast<std::uint32_t>(ms_.size()));
    }
    auto column = std::ranges::lower_bound(columns_, point.column) - columns_.begin();
    column_of_.push_back(static_cast<std::uint32_t>(column));
    ms_.push_back(point.ms);
  }
  begins_.push_back(static_cast<std::uint32_t>(ms_.size()));
}

const double* interpolation_table::find(std::size_t row, std::size_t column) const {
  auto begin = column_of_.begin() + begins_[row];
  auto end = column_of_.begin() + begins_[row + 1];
  auto at = static_cast<std::size_t>(end - begin) == columns_.size()
              ? begin + static_cast<std::ptrdiff_t>(column) // a row without holes
              : std::lower_bound(begin, end, column);
  return at == end || *at != column ? nullptr : &ms_[at - column_of_.begin()];
}

std::optional<double> interpolation_table::at(double row, double column) const {
  if (row == 0 && column == 0)
    return 0;
  auto r = around(rows_, row);
  auto c = around(columns_, column);
  if (!r || !c)
    return std::nullopt;
  auto low_low = find(r->low, c->low), low_high = find(r->low, c->high);
  auto high_low = find(r->high, c->low), high_high = find(r->high, c->high);
  if (!low_low || !low_high || !high_low || !high_high)
    return std::nullopt;
  return between(
    between(*low_low, *low_high, c->weight), between(*high_low, *high_high, c->weight), r->weight);
}

std::vector<profile_point> interpolation_table::missing(std::size_t limit) const {
  std::vector<profile_point> holes;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    auto next = begins_[row];
    for (std::size_t column = 0; column < columns_.size(); ++column) {
      if (next < begins_[row + 1] && column_of_[next] == column)
        ++next;
      else if (holes.size() == limit)
        return holes;
      else
        holes.push_back({rows_[row], columns_[column], 0});
    }
  }
  return holes;
}

std::optional<double>
latency_profile::decode_step_ms(std::int64_t batch, std::int64_t tokens) const {
  constexpr double fewest_tokens = 8; // of a request, as far as the measurements go
  if (batch <= 0 || tokens <= 0)
    return 0;
  auto requests = static_cast<double>(batch);
  return tpot.at(requests, std::max(fewest_tokens, static_cast<double>(tokens) / requests));
}

std::optional<double> latency_profile::prefill_ms(
  std::int64_t tokens, std::int64_t batch, std::int64_t decode_tokens, std::int64_t chunk) const {
  return prefill_beside(decode_step_ms(batch, decode_tokens), *this, tokens, chunk);
}

std::int64_t whole(float metric) {
  constexpr float largest = 0x1p62f;
  if (std::isnan(metric))
    return 0;
  return static_cast<std::int64_t>(std::clamp(metric, -largest, largest));
}

float predicted_ttft(const latency_profile& profile, const predicted_work& work) {
  auto beside = profile.decode_step_ms(whole(work.decode_batch), whole(work.all_decodes_tokens));
  auto prefill
    = [&](std::int64_t tokens) { return prefill_beside(beside, profile, tokens, work.chunk); };
  auto reported = prefill(work.reported_prefills);
  if (!reported)
    return as_metric(std::nullopt);
  auto elapsed = static_cast<double>(work.elapsed_ms);
  std::int64_t prompt = work.prompt_tokens;
  if (elapsed > std::trunc(*reported))
    return as_metric(prefill(work.inflight_prefills + prompt));
  auto all = prefill(whole(work.all_prefills_tokens) + prompt);
  return as_metric(all ? std::optional{*all - elapsed} : std::nullopt);
}

float predicted_tpot(const latency_profile& profile, const predicted_work& work) {
  return as_metric(profile.decode_step_ms(
    whole(work.decode_batch + 1), whole(work.all_decodes_tokens) + work.prompt_tokens));
}

} // namespace llumnix
