#pragma once

#include "runtime/base/metric_bounds.hpp"
#include "runtime/base/probes.hpp"

#include <atomic>
#include <cstdint>

namespace llumnix {

/// How far predictions were off, ms, by which side the truth lay on.
struct prediction_errors {
  explicit prediction_errors(std::span<const double> bounds) : late{bounds}, early{bounds} {}
  /// `error_ms`: measured less predicted.
  void observe(double error_ms) {
    if (error_ms >= 0)
      late.observe(error_ms);
    else
      early.observe(-error_ms);
  }
  loop_histogram late;  ///< it took as long as predicted, or longer
  loop_histogram early; ///< it took less; how much less
};

/// Numbers of a process that recur: written by its actors, read by `/metrics`. Counters only grow;
/// gauges say so.
struct node_counters {
  std::atomic<std::uint64_t> placements{0}; ///< requests sent to an instance
  std::atomic<std::uint64_t> placements_by_view{
    0}; ///< of those: placed by a gateway's own view, without SCHEDULER
  std::atomic<std::uint64_t> placements_by_remote{
    0}; ///< of those: placed by a scheduler outside of the cluster
  std::atomic<std::uint64_t> placements_with_hits{
    0};                                     ///< requests sent where some of the prompt was cached
  std::atomic<std::uint64_t> hit_tokens{0}; ///< prompt tokens cached where they were sent
  std::atomic<std::uint64_t> prefix_blocks{0};  ///< gauge: KV blocks that the prefix index knows
  std::atomic<std::uint64_t> prefix_evicted{0}; ///< blocks it forgot to make room
  std::atomic<std::uint64_t> prefix_gaps{
    0}; ///< times that something was missing of what an engine said
  std::atomic<std::uint64_t> handovers{0}; ///< requests prefilled at one instance, then at another
  std::atomic<std::uint64_t> handovers_failed{0};   ///< times that one of them did not get there
  std::atomic<std::uint64_t> decodes_at_prefill{0}; ///< that decode where they were prefilled
  std::atomic<std::uint64_t> replays{0};            ///< placements after a loss
  std::atomic<std::uint64_t> unplaceable{
    0}; ///< requests answered with an error for want of an instance
  std::atomic<std::uint64_t> rejected_full{0}; ///< requests answered with 429
  std::atomic<std::uint64_t> waiting{0};       ///< gauge: requests without an instance now
  std::atomic<std::uint64_t> inflight{0};      ///< gauge: streams open now
  std::atomic<std::uint64_t> peers_lost{0};    ///< node lives that ended while linked
  std::atomic<std::uint64_t> statuses{0};      ///< statuses taken into the view
  std::atomic<std::uint64_t> restarts{0};      ///< actors started again
  // Live migration, as LLUMLETs of this process see it.
  std::atomic<std::uint64_t> departing{0};     ///< gauge: requests on their way out now
  std::atomic<std::uint64_t> arriving{0};      ///< gauge: and in
  std::atomic<std::uint64_t> moves_out{0};     ///< requests that moved away
  std::atomic<std::uint64_t> moves_in{0};      ///< that came
  std::atomic<std::uint64_t> moves_refused{0}; ///< that a destination did not take
  std::atomic<std::uint64_t> moves_failed{0};  ///< that did not move though it was tried
  std::atomic<std::uint64_t> moves_spoiled{0}; ///< that left with KV and got there with another
  std::atomic<std::uint64_t> orders_stale{0};  ///< refused: of a RESCHEDULER that leads no more
  // RESCHEDULER.
  std::atomic<std::uint64_t> leads{0};       ///< gauge: 1 while ours leads
  std::atomic<std::uint64_t> leader_term{0}; ///< gauge: its term, while it does
  std::atomic<std::uint64_t> move_orders{0}; ///< given to LLUMLETs
  std::atomic<std::uint64_t> move_orders_empty{0}; ///< of those: no request fitted
  std::atomic<std::uint32_t> longest_request{
    0}; ///< gauge: tokens the roomiest known instance can hold; 0: unknown
  // Of requests that stayed where they were sent, where a prediction was made; GATEWAY writes.
  prediction_errors ttft_error{metric_bounds::ttft_ms};
  prediction_errors tpot_error{metric_bounds::token_ms};
};

} // namespace llumnix
