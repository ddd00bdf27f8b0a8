#pragma once

#include "apps/load/verify_modeled.hpp"
#include "runtime/base/time.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace llumnix::load {

/// How long things took: counts by logarithmic bucket, so that a run of any length takes the same
/// memory. A quantile is at most 1% above the true one; `max` is exact.
class histogram {
public:
  histogram();
  void add(nanoseconds duration);
  std::uint64_t count() const { return count_; }
  /// The duration that a share of `q` (0 to 1) did not exceed; 0 when empty.
  nanoseconds quantile(double q) const;
  nanoseconds max() const { return max_; }

private:
  std::vector<std::uint64_t> buckets_;
  std::uint64_t count_ = 0;
  nanoseconds max_{0};
};

/// A request whose answer was not the one that a modeled engine gives.
struct wrong_answer {
  std::string request; ///< the reply's x-request-id
  std::uint64_t index = 0;
  std::uint32_t choice = 0;
  mismatch what;
};

/// How one request went.
struct request_outcome {
  std::string failure; ///< why it failed, one of few texts; empty: it did not
  std::uint64_t prompt_tokens = 0;
  std::uint64_t output_tokens = 0;
  std::uint64_t checked_tokens = 0;
  bool stream_broken = false; ///< began, and ended without [DONE]
  bool has_wrong = false;
  wrong_answer wrong;         ///< valid where `has_wrong`
  nanoseconds first_token{0}; ///< since the request was due; 0: none came
  nanoseconds end_to_end{0};
  nanoseconds per_token{0}; ///< between output tokens on average; 0 with fewer than two
};

/// Counts and times of a run, and the report of them.
class load_stats {
public:
  void started() { ++started_; }
  /// A pause between two pieces of output of one stream.
  void gap(nanoseconds pause) { gaps_.add(pause); }
  void ended(const request_outcome& outcome);
  /// Requests that were still running when the run was interrupted.
  void abandoned(std::uint64_t count) { abandoned_ += count; }

  std::uint64_t ok() const { return ok_; }
  std::uint64_t failed() const { return failed_; }
  std::uint64_t wrong() const { return wrong_count_; }
  std::uint64_t running() const { return started_ - ok_ - failed_; }
  std::uint64_t output_tokens() const { return output_tokens_; }

  /// What the report says besides the numbers counted here.
  struct frame {
    std::string url;
    std::string model;
    std::uint64_t seed = 0;
    nanoseconds lasted{0};
    bool verified = false;
    bool interrupted = false;
  };
  /// One JSON document, with a line end.
  std::string json(const frame& about) const;
  /// The same for people.
  std::string text(const frame& about) const;

private:
  static constexpr std::size_t reasons_max = 32; ///< kinds of failure told apart
  static constexpr std::size_t wrong_kept = 20;

  std::uint64_t started_ = 0;
  std::uint64_t ok_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t abandoned_ = 0;
  std::uint64_t broken_ = 0;
  std::uint64_t wrong_count_ = 0;
  std::uint64_t prompt_tokens_ = 0;
  std::uint64_t output_tokens_ = 0;
  std::uint64_t checked_tokens_ = 0;
  std::uint64_t checked_requests_ = 0;
  std::map<std::string, std::uint64_t> failures_;
  std::vector<wrong_answer> wrong_;
  histogram first_token_;
  histogram per_token_;
  histogram gaps_;
  histogram end_to_end_;
};

} // namespace llumnix::load
