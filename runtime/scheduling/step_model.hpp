#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace llumnix {

/// Least squares of y over three columns, one row at a time.
///
/// Keeps the triangle of a QR factorization, updated by rotations: as exact as having all rows, in
/// constant memory, and without the squared condition number that sums of powers bring.
class least_squares {
public:
  using columns = std::array<double, 3>;

  void add(const columns& x, double y);
  /// The best weights. A column that the ones before it already determine gets 0, so the answer is
  /// finite whatever was seen.
  columns solve() const;

private:
  std::array<std::array<double, 4>, 3> triangle_{}; ///< the last column is y
};

/// y = a x^2 + b x + c: milliseconds of a prefill step of x tokens.
struct step_coefficients {
  double a = 0;
  double b = 0;
  double c = 0;

  /// Of a step of that many tokens; none where the curve gives what no step takes (below 0.001 or
  /// above 1e6 ms, or no number at all).
  std::optional<double> step_ms(std::int64_t tokens) const;
  friend bool operator==(const step_coefficients&, const step_coefficients&) = default;
};

/// Learns how long prefill steps take from steps seen, all alike and for good (spec/scheduling.md
/// 9.1): a parabola through at least three different sizes, a line through two, else the mean.
/// One model serves the whole cluster. Its memory does not grow with the samples.
class step_model {
public:
  /// `warmup_samples`: as many must have been seen before there is a model.
  explicit step_model(std::size_t warmup_samples = 20) : warmup_samples_{warmup_samples} {}

  /// Takes a sample and leaves the model unfitted. False if it is none: no tokens, no time, or not
  /// a number; then nothing changes.
  bool add(double tokens, double ms);
  /// Fits again if a sample came since and there are enough of them. Called after each sample, or
  /// after many.
  void fit();
  /// The fit over all samples; none between a sample and the next `fit`.
  const std::optional<step_coefficients>& fitted() const { return fitted_; }
  std::size_t samples() const { return samples_; }

private:
  std::size_t warmup_samples_;
  std::size_t samples_ = 0;
  double origin_ = 0; ///< x of the first sample; the fit is made around it
  least_squares squares_;
  std::optional<step_coefficients> fitted_;
};

/// The prefill work an instance had when it reported.
struct prefill_backlog {
  std::int64_t elapsed_ms = 0;              ///< since the status was written
  float all_prefills_tokens = 0;            ///< all_prefills_tokens_num without any progress
  std::int32_t running_prefills = 0;        ///< tokens: status field 21
  std::uint32_t max_num_batched_tokens = 0; ///< of one step; 0: no progress is predicted
};

/// Tokens of the backlog computed since the report, from 0 to all of it. A
/// backlog below 0 is its own progress, which makes nothing of it.
///
/// Looks at most 65536 steps ahead, what those compute being all that is counted. Source: spec/
/// scheduling.md 9.1.
std::int64_t predicted_progress(const step_coefficients& model, const prefill_backlog& backlog);

} // namespace llumnix
