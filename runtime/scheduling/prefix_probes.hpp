#pragma once

#include "runtime/base/metric_bounds.hpp"
#include "runtime/base/probes.hpp"
#include "runtime/base/time.hpp"
#include "runtime/scheduling/prefix_hits.hpp"

#include <array>
#include <cstdint>

namespace llumnix {

namespace metric_bounds {
inline constexpr std::array percent{0., 10., 20., 30., 40., 50., 60., 70., 80., 90., 100.};
}

/// What it takes to find out where prompts are cached, and what comes of it (spec/scheduling.md
/// 10): of the requests that one process asks for. Each of them is written by one thread at a time.
struct prefix_probes {
  loop_histogram query_ms{metric_bounds::stage_ms}; ///< of an index, answered or not
  loop_histogram match_ms{metric_bounds::stage_ms}; ///< from what is known to hits of instances
  /// Of prompts, whole percent: cached at the prefill or neutral instance that was chosen by a
  /// cache-aware policy, 0 where nobody was asked.
  loop_histogram hit_percent{metric_bounds::percent};
  /// The same at whichever instance has most of it; nothing where nobody was asked.
  loop_histogram best_percent{metric_bounds::percent};

  void saw_query(nanoseconds took) { query_ms.observe(to_ms(took)); }
  void saw_match(nanoseconds took) { match_ms.observe(to_ms(took)); }
  /// A request went where so many tokens of it are cached.
  void saw_choice(const prefix_hits& hits, std::uint32_t hit_tokens);

private:
  static double to_ms(nanoseconds t) {
    return std::chrono::duration<double, std::milli>(t).count();
  }
};

} // namespace llumnix
