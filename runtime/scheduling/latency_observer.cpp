#include "runtime/scheduling/latency_observer.hpp"

#include "runtime/scheduling/step_model.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>

namespace llumnix {

namespace {

using nlohmann::json;

/// The trend of samples: a parabola in the tokens of a prefill, a plane in the batch and tokens of
/// a decode step.
class trend {
public:
  trend(profile_kind kind, std::span<const profile_point> samples)
    : kind_{kind}, origin_{terms(samples.front())} {
    least_squares squares;
    for (auto& each : samples)
      squares.add(columns(each), each.ms);
    weights_ = squares.solve();
  }

  double ms(const profile_point& place) const {
    auto x = columns(place);
    return std::inner_product(x.begin(), x.end(), weights_.begin(), 0.0);
  }

private:
  std::pair<double, double> terms(const profile_point& x) const {
    return kind_ == profile_kind::ttft ? std::pair{x.row, 0.0} : std::pair{x.row * x.column, x.row};
  }
  least_squares::columns columns(const profile_point& place) const {
    auto [first, second] = terms(place);
    first -= origin_.first;
    return {1, first, kind_ == profile_kind::ttft ? first * first : second - origin_.second};
  }

  profile_kind kind_;
  std::pair<double, double> origin_;
  least_squares::columns weights_{};
};

/// From `low` to `high` by the powers of two between, and before them `reach` where that is lower.
std::vector<double> axis(double reach, double low, double high) {
  std::vector<double> places;
  if (reach < low)
    places.push_back(reach);
  places.push_back(low);
  for (auto power = std::exp2(std::floor(std::log2(std::max(low, 1.0))) + 1); power < high;
       power *= 2)
    places.push_back(power);
  if (high > low)
    places.push_back(high);
  return places;
}

/// The place on an ascending axis whose ratio to `value` is nearest to 1.
std::size_t nearest(const std::vector<double>& places, double value) {
  auto above = std::ranges::lower_bound(places, value);
  if (above == places.begin())
    return 0;
  if (above == places.end() || value * value < *above * above[-1])
    --above;
  return static_cast<std::size_t>(above - places.begin());
}

/// Between the two sorted values around that share of the way.
double quantile(const std::vector<double>& sorted, double share) {
  auto at = share * static_cast<double>(sorted.size() - 1);
  auto low = static_cast<std::size_t>(at);
  auto high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - std::floor(at)) * (sorted[high] - sorted[low]);
}

/// An entry of `results`; `ms` is not empty.
nlohmann::ordered_json
entry_of(profile_kind kind, const profile_point& place, std::vector<double> ms, std::size_t seen) {
  std::ranges::sort(ms);
  auto count = static_cast<double>(ms.size());
  auto mean = std::accumulate(ms.begin(), ms.end(), 0.0) / count;
  double squares = 0;
  for (auto each : ms)
    squares += (each - mean) * (each - mean);
  auto [row, column, p50] = fields_of(kind);
  nlohmann::ordered_json entry{{row, static_cast<std::uint64_t>(place.row)}};
  if (column != nullptr)
    entry[column] = place.column;
  entry["mean"] = mean;
  entry["std"] = std::sqrt(squares / count);
  entry["min"] = ms.front();
  entry["max"] = ms.back();
  entry[p50] = quantile(ms, 0.5);
  entry["p95"] = quantile(ms, 0.95);
  entry["p99"] = quantile(ms, 0.99);
  entry["samples"] = seen;
  return entry;
}

/// The fewest tokens of a request that a decode step is looked up by (spec/scheduling.md 9.2).
constexpr double fewest_tokens = 8;

/// The least that a placement may ask for: a look-up below the grid finds nothing.
profile_point least_asked(profile_kind kind) {
  return {1, kind == profile_kind::ttft ? 0 : fewest_tokens, 0};
}

/// Samples put to the points of a grid.
class sample_grid {
public:
  sample_grid(
    profile_kind kind, std::span<const profile_point> samples, const profile_point& least,
    const profile_point& most)
    : kind_{kind},
      least_{least},
      trend_{kind, samples},
      rows_{axis(least_asked(kind).row, least.row, most.row)},
      columns_{axis(least_asked(kind).column, least.column, most.column)},
      times_(rows_.size() * columns_.size()) {
    for (auto& each : samples) {
      auto row = nearest(rows_, each.row), column = nearest(columns_, each.column);
      auto moved = each.ms + trend_.ms(place(row, column)) - trend_.ms(each);
      times_[row * columns_.size() + column].push_back(std::max(moved, least_.ms));
    }
  }

  nlohmann::ordered_json results() const {
    auto entries = nlohmann::ordered_json::array();
    for (std::size_t row = 0; row < rows_.size(); ++row)
      for (std::size_t column = 0; column < columns_.size(); ++column) {
        auto where = place(row, column);
        auto times = times_[row * columns_.size() + column];
        auto seen = times.size();
        if (times.empty())
          times.push_back(supposed_ms(where));
        entries.push_back(entry_of(kind_, where, std::move(times), seen));
      }
    return entries;
  }

private:
  profile_point place(std::size_t row, std::size_t column) const {
    return {rows_[row], columns_[column], 0};
  }

  /// By the trend. Less work than any that was seen takes no longer: a parabola may turn there.
  double supposed_ms(const profile_point& place) const {
    profile_point seen{std::max(place.row, least_.row), std::max(place.column, least_.column), 0};
    return std::max(std::min(trend_.ms(place), trend_.ms(seen)), least_.ms);
  }

  profile_kind kind_;
  profile_point least_; // no step was faster than its time, so none is said to be
  trend trend_;
  std::vector<double> rows_, columns_;
  std::vector<std::vector<double>> times_; // by row, then column
};

bool possible(double ms) {
  constexpr double longest_ms = 1e12; // decades: keeps sums finite
  return ms > 0 && ms <= longest_ms;
}

constexpr std::array both_kinds{profile_kind::ttft, profile_kind::tpot};

/// Where a decode step stands, as it is looked up.
profile_point decode_point(std::uint32_t batch, std::uint64_t tokens, double ms) {
  auto each = std::max(fewest_tokens, static_cast<double>(tokens) / batch);
  return {static_cast<double>(batch), each, ms};
}

/// `samples` is not empty.
double mean_ms(const std::vector<profile_point>& samples) {
  double sum = 0;
  for (auto& each : samples)
    sum += each.ms;
  return sum / static_cast<double>(samples.size());
}

/// `[row, column, ms]`, as an observer may have seen it.
std::optional<profile_point> sample_of(profile_kind kind, const json& entry) {
  constexpr double most = 0x1p53;
  auto number = [&](std::size_t i) { return entry[i].is_number() ? entry[i].get<double>() : -1; };
  if (!entry.is_array() || entry.size() != 3)
    return std::nullopt;
  profile_point x{number(0), number(1), number(2)};
  bool column = kind == profile_kind::ttft ? x.column == 0
                                           : x.column >= fewest_tokens && x.column <= most;
  if (!(x.row >= 1 && x.row <= most) || !column || !possible(x.ms))
    return std::nullopt;
  return x;
}

} // namespace

void latency_observer::series::add(const profile_point& sample) {
  constexpr std::size_t most = 64;
  if (cells.empty())
    least = greatest = sample;
  auto [row, column, ms] = sample;
  least = {std::min(least.row, row), std::min(least.column, column), std::min(least.ms, ms)};
  greatest
    = {std::max(greatest.row, row), std::max(greatest.column, column), std::max(greatest.ms, ms)};
  auto& into = cells[place_of(sample)];
  if (into.seen++ % into.every != 0)
    return;
  if (into.kept.size() == most) {
    for (std::size_t i = 0; i < most / 2; ++i)
      into.kept[i] = into.kept[2 * i];
    into.kept.resize(most / 2);
    into.every *= 2;
  }
  into.kept.push_back(sample);
}

std::pair<int, int> latency_observer::series::place_of(const profile_point& sample) {
  return {std::ilogb(sample.row), sample.column > 0 ? std::ilogb(sample.column) : 0};
}

bool latency_observer::saw_prefill(std::uint32_t tokens, double ms) {
  if (tokens == 0 || !possible(ms))
    return false;
  of(profile_kind::ttft).add({static_cast<double>(tokens), 0, ms});
  return true;
}

bool latency_observer::saw_decode_step(std::uint32_t batch, std::uint64_t tokens, double ms) {
  if (batch == 0 || tokens == 0 || !possible(ms))
    return false;
  of(profile_kind::tpot).add(decode_point(batch, tokens, ms));
  return true;
}

bool latency_observer::saw_step(
  std::uint32_t prefill_tokens, std::uint32_t batch, std::uint64_t tokens, double ms) {
  if (prefill_tokens == 0)
    return saw_decode_step(batch, tokens, ms);
  if (batch == 0 || tokens == 0)
    return saw_prefill(prefill_tokens, ms);
  auto& alone = of(profile_kind::tpot);
  auto like = alone.cells.find(series::place_of(decode_point(batch, tokens, ms)));
  if (like == alone.cells.end())
    return false;
  auto left = ms - mean_ms(like->second.kept);
  return possible(left) && saw_prefill(prefill_tokens, std::max(left, alone.least.ms));
}

std::string latency_observer::samples() const {
  json all = json::object();
  for (auto kind : both_kinds) {
    auto& list = all[fields_of(kind).row] = json::array();
    for (auto& [place, cell] : of(kind).cells)
      for (auto& sample : cell.kept)
        list.push_back({sample.row, sample.column, sample.ms});
  }
  return all.dump();
}

result<void> latency_observer::add_samples(std::string_view text) {
  const error nonsense{errc::bad_message, "these are no samples of step times"};
  auto all = json::parse(text, nullptr, false);
  if (!all.is_object())
    return nonsense;
  std::array<std::vector<profile_point>, 2> found;
  for (auto kind : both_kinds) {
    auto list = all.find(fields_of(kind).row);
    if (list == all.end() || !list->is_array())
      return nonsense;
    for (auto& entry : *list) {
      auto sample = sample_of(kind, entry);
      if (!sample)
        return nonsense;
      found[static_cast<std::size_t>(kind)].push_back(*sample);
    }
  }
  for (auto kind : both_kinds)
    for (auto& sample : found[static_cast<std::size_t>(kind)])
      of(kind).add(sample);
  return {};
}

std::uint64_t latency_observer::seen(profile_kind kind) const {
  std::uint64_t count = 0;
  for (auto& [place, cell] : of(kind).cells)
    count += cell.seen;
  return count;
}

std::string latency_observer::text(profile_kind kind, const profile_metadata& about) const {
  auto& seen = of(kind);
  std::vector<profile_point> samples;
  for (auto& [place, cell] : seen.cells)
    samples.insert(samples.end(), cell.kept.begin(), cell.kept.end());
  if (samples.empty())
    return {};
  nlohmann::ordered_json file{
    {"metadata",
     {{"model", about.model}, {"timestamp", about.timestamp}, {"description", about.description}}},
    {"results", sample_grid{kind, samples, seen.least, seen.greatest}.results()}};
  return file.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

} // namespace llumnix
