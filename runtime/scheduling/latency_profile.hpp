#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace llumnix {

/// One measured time at a place of a grid. Finite, nothing negative.
struct profile_point {
  double row = 0;    ///< of a prefill: tokens; of a decode step: batch size
  double column = 0; ///< of a prefill: 0; of a decode step: tokens per request
  double ms = 0;

  friend bool operator==(const profile_point&, const profile_point&) = default;
};

/// Times at the points of a grid, and between them (spec/scheduling.md 9.2). Nothing is predicted
/// outside the grid, nor beside a point that was not measured.
class interpolation_table {
public:
  interpolation_table() = default;
  /// Of two points at one place the later one counts.
  explicit interpolation_table(std::vector<profile_point> points);

  /// Linear in either direction between the four points around (row, column); 0 at (0, 0). None if
  /// one of the four is missing. Two binary searches, no allocation.
  std::optional<double> at(double row, double column) const;

  /// The known coordinates, ascending.
  const std::vector<double>& rows() const { return rows_; }
  const std::vector<double>& columns() const { return columns_; }
  /// Number of points known; rows times columns when the grid is complete.
  std::size_t size() const { return ms_.size(); }
  /// The points of the grid that were not measured, in order, at most `limit` of them.
  std::vector<profile_point> missing(std::size_t limit) const;

private:
  const double* find(std::size_t row, std::size_t column) const;

  std::vector<double> rows_;
  std::vector<double> columns_;
  // Point i stands at columns_[column_of_[i]] of the row r with begins_[r] <= i < begins_[r + 1].
  // Holes take no room, so a hostile file cannot ask for rows times columns.
  std::vector<std::uint32_t> begins_;
  std::vector<std::uint32_t> column_of_;
  std::vector<double> ms_;
};

/// How long prefills and decode steps of a model take on its hardware, as profiled: medians in
/// milliseconds. Fed by `read_ttft_profile` and `read_tpot_profile`. Source: Llumnix v1, spec/
/// scheduling.md 9.2, whose letters stand beside the functions.
struct latency_profile {
  interpolation_table ttft; ///< T: tokens (rows) x 0
  interpolation_table tpot; ///< P: batch size (rows) x tokens per request

  /// T: one prefill of that many tokens.
  std::optional<double> piece_ms(double tokens) const { return ttft.at(tokens, 0); }
  /// L: one decode step of `batch` requests that hold `tokens` together; 0 without any.
  std::optional<double> decode_step_ms(std::int64_t batch, std::int64_t tokens) const;
  /// Q: prefilling `tokens` in pieces of at most `chunk`, each beside a decode step of `batch`
  /// requests with `decode_tokens`. 0 for no tokens; none where a term is unknown (that of the
  /// decode step even if there is no piece) or work is left and `chunk` is not positive.
  ///
  /// The sum of the terms one by one, to the last bit, at a cost that does not grow with their
  /// number.
  std::optional<double> prefill_ms(
    std::int64_t tokens, std::int64_t batch, std::int64_t decode_tokens, std::int64_t chunk) const;
};

/// What an instance has to do as far as predictions go. The floats are metrics (9.3), truncated to
/// integers where they are used.
struct predicted_work {
  float all_prefills_tokens = 0;      ///< all_prefills_tokens_num
  float decode_batch = 0;             ///< decode_batch_size
  float all_decodes_tokens = 0;       ///< all_decodes_tokens_num
  std::int32_t reported_prefills = 0; ///< tokens: status fields 25 + 21
  std::int32_t inflight_prefills = 0; ///< tokens sent there that no status shows yet
  std::int32_t chunk = 0;             ///< max_num_batched_tokens of its metadata
  std::int64_t elapsed_ms = 0;        ///< since its status was written
  std::uint32_t prompt_tokens = 0;    ///< of the request to place; 0 without one
};

/// Milliseconds until the request's first token would come; infinite where nothing is known.
///
/// What the engine reported is done by now if the time since then allows it: then only what was
/// sent later remains. Below 0: it should have come already. Source: spec/scheduling.md 9.3.
float predicted_ttft(const latency_profile& profile, const predicted_work& work);

/// Milliseconds of a decode step with one request more; infinite where nothing is known.
float predicted_tpot(const latency_profile& profile, const predicted_work& work);

/// A metric as an integer: truncated, 0 for NaN, and beyond 2^62 either way kept there.
std::int64_t whole(float metric);

} // namespace llumnix
