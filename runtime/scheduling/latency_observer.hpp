#pragma once

#include "runtime/scheduling/profile_file.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix {

/// What a profiling file says about itself.
struct profile_metadata {
  std::string model;
  std::string timestamp; ///< when it was measured, as text
  std::string description;
};

/// Profiles a running engine: collects what its prefills and decode steps took, and gives the text
/// of profiling files that predict it.
///
/// Memory is bounded: samples fall into cells between powers of two, and a cell keeps at most 64,
/// spread evenly over all it saw. No chance is involved: the same samples give the same text.
class latency_observer {
public:
  /// A prefill of that many tokens in one step. False if it is no sample: no tokens or no time.
  bool saw_prefill(std::uint32_t tokens, double ms);
  /// A step of `batch` decoding requests that held `tokens` together. False if it is no sample.
  bool saw_decode_step(std::uint32_t batch, std::uint64_t tokens, double ms);

  /// A step that computed that many tokens of prompts beside `batch` decoding requests that held
  /// `tokens` together; either may be 0. The share of the decoding requests in a mixed one is what
  /// a step like theirs took by itself as far as that was seen, and is left out: without, it is no
  /// sample. What is left is only what the prompts added; by themselves they take no less than the
  /// shortest step that was seen, for every step reads the model's weights.
  bool saw_step(std::uint32_t prefill_tokens, std::uint32_t batch, std::uint64_t tokens, double ms);

  /// All samples it keeps, as text for another observer.
  std::string samples() const;
  /// Takes in what another one kept. Fails with `bad_message` for a text that is none, having taken
  /// in nothing.
  result<void> add_samples(std::string_view text);
  /// Samples seen of a kind.
  std::uint64_t seen(profile_kind kind) const;

  /// The text of a profiling file; empty if nothing of that kind was seen.
  ///
  /// Its grid runs from the smallest to the largest seen, by the powers of two between; and down to
  /// the least that a placement may ask for, which are 1 token, a batch of 1 and 8 tokens of each
  /// request. A sample counts at the point nearest to it, moved there along the trend of all
  /// samples. Where a point has none it gets what the trend says and `"samples": 0`, so the grid is
  /// always complete; it says no time below the shortest that was seen.
  std::string text(profile_kind kind, const profile_metadata& about) const;

private:
  struct cell {
    std::vector<profile_point> kept; ///< every n-th that came, n doubled whenever it was full
    std::uint64_t seen = 0;
    std::uint64_t every = 1;
  };
  struct series {
    void add(const profile_point& sample);
    static std::pair<int, int> place_of(const profile_point& sample);

    std::map<std::pair<int, int>, cell> cells; ///< by the powers of two at or below
    profile_point least, greatest;             ///< the smallest and largest of each number seen
  };
  series& of(profile_kind kind) { return series_[static_cast<std::size_t>(kind)]; }
  const series& of(profile_kind kind) const { return series_[static_cast<std::size_t>(kind)]; }

  std::array<series, 2> series_; ///< by kind
};

} // namespace llumnix
