#include "runtime/scheduling/step_model.hpp"

#include "runtime/scheduling/latency_profile.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace llumnix {

void least_squares::add(const columns& x, double y) {
  std::array<double, 4> row{x[0], x[1], x[2], y};
  for (std::size_t i = 0; i < triangle_.size(); ++i) {
    if (row[i] == 0)
      continue;
    auto& kept = triangle_[i];
    auto length = std::hypot(kept[i], row[i]);
    auto cosine = kept[i] / length;
    auto sine = row[i] / length;
    for (auto j = i; j < row.size(); ++j) {
      auto turned = cosine * kept[j] + sine * row[j];
      row[j] = cosine * row[j] - sine * kept[j];
      kept[j] = turned;
    }
  }
}

least_squares::columns least_squares::solve() const {
  constexpr double nothing = 1e-10; // share of a column that may be rounding
  columns weights{};
  for (auto i = triangle_.size(); i-- > 0;) {
    double whole_column = 0;
    for (std::size_t j = 0; j <= i; ++j)
      whole_column = std::hypot(whole_column, triangle_[j][i]);
    if (std::abs(triangle_[i][i]) <= nothing * whole_column)
      continue;
    auto left = triangle_[i][3];
    for (auto j = i + 1; j < weights.size(); ++j)
      left -= triangle_[i][j] * weights[j];
    weights[i] = left / triangle_[i][i];
  }
  return weights;
}

std::optional<double> step_coefficients::step_ms(std::int64_t tokens) const {
  auto x = static_cast<double>(tokens);
  auto ms = a * x * x + b * x + c;
  return ms >= 0.001 && ms <= 1e6 ? std::optional{ms} : std::nullopt;
}

bool step_model::add(double tokens, double ms) {
  constexpr double most_tokens = 0x1p32; // more than any status can say
  constexpr double longest_ms = 1e12;    // decades: keeps sums finite
  if (!(tokens > 0 && tokens <= most_tokens && ms > 0 && ms <= longest_ms))
    return false;
  if (samples_++ == 0)
    origin_ = tokens;
  auto x = tokens - origin_;
  squares_.add({1, x, x * x}, ms);
  fitted_.reset();
  return true;
}

void step_model::fit() {
  if (fitted_ || samples_ == 0 || samples_ < warmup_samples_)
    return;
  auto [level, slope, bend] = squares_.solve();
  fitted_ = step_coefficients{
    bend, slope - 2 * bend * origin_, level - slope * origin_ + bend * origin_ * origin_};
}

std::int64_t predicted_progress(const step_coefficients& model, const prefill_backlog& backlog) {
  constexpr int most_steps = 65536;
  std::int64_t most = backlog.max_num_batched_tokens;
  if (most == 0 || backlog.elapsed_ms <= 0)
    return 0;
  auto elapsed = static_cast<double>(backlog.elapsed_ms);
  auto initial = whole(backlog.all_prefills_tokens);
  auto work = initial;
  std::int64_t running = backlog.running_prefills;
  std::int64_t done = 0;
  for (int steps = 0; elapsed > 0 && work > 0 && steps < most_steps; ++steps) {
    auto step = std::min(work, most);
    if (running > 0 && running < most)
      step = std::exchange(running, 0);
    auto ms = model.step_ms(step);
    if (!ms)
      return 0;
    if (elapsed < *ms) {
      done += std::llround(static_cast<double>(step) * elapsed / *ms);
      break;
    }
    done += step;
    work -= step;
    elapsed -= *ms;
  }
  return std::min(done, initial);
}

} // namespace llumnix
