#pragma once

#include "runtime/scheduling/filters.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

namespace llumnix {

/// Those a pass left: the rows no filter taking part in it rejected.
struct survivors {
  const candidate_table& table;
  std::span<const rejections> rejected; ///< by row
  rejections taking_part = 0;           ///< bits of the filters of the pass

  bool has(std::size_t row) const { return (rejected[row] & taking_part) == 0; }
};

/// What selectors keep from one decision to the next, per role.
struct selector_memory {
  instance_id last;               ///< chosen last, by selectors that care
  candidate_table::row first = 0; ///< where the last decision began to look
  bool kept = false;              ///< whether hysteresis made the last decision what it is
  std::uint32_t drawn = 0;        ///< as `decisive_fact::drawn`, of the last decision
  candidate_table::row beaten = 0; ///< of two that were drawn, the other
  std::vector<candidate_table::row> ranking; ///< scratch
};

/// Who wins among equally good survivors.
enum class tie_rule : std::uint8_t {
  lowest_id,
  in_turn, ///< the next in id order after the last choice, around the circle
};

/// The survivor with the best values, compared metric by metric, ties as `ties` says. With `top_k`
/// above 1, one of the best `top_k`, each as likely: drawn from the seed and the request's id, so
/// that a decision can be repeated. With `power_of_two`, the better of two survivors that are drawn
/// so: who decides on old statuses does not send everything to the one that looks best.
///
/// With `hysteresis` the last choice stays for as long as it survives and nobody's value of the
/// first metric is better than its own by more than that share of its own.
struct best_metric {
  static constexpr std::string_view name = "metric";
  std::vector<std::size_t> slots; ///< of the candidate table
  std::uint32_t top_k = 1;        ///< at least 1
  std::uint64_t seed = 1;
  tie_rule ties = tie_rule::lowest_id;
  bool power_of_two = false;
  float hysteresis = 0; ///< with neither of the two draws
};

/// The last choice again for as long as it survives, then the survivor with the lowest id.
struct fixed_preference {
  static constexpr std::string_view name = "fixed-preference";
};

/// The survivor whose id follows the last choice, around the circle.
struct next_in_order {
  static constexpr std::string_view name = "round-robin";
};

/// The least predicted time to first token, ties to the instance reserved for prefill, then by id
/// (adaptive PD, spec/scheduling.md 7.4).
struct slo_prefill {
  static constexpr std::string_view name = "slo-prefill";
  std::size_t ttft = 0; ///< slot of `predicted_ttft`
};

/// Packs decodes (adaptive PD, spec/scheduling.md 7.4). Within the limits: the instance reserved
/// for decode, else the highest predicted time per output token. With the limits dropped: of those
/// below the limit the highest, ties to the smallest prefill backlog; if there are none the lowest.
struct slo_decode {
  static constexpr std::string_view name = "slo-decode";
  std::size_t tpot = 0;    ///< slot of `predicted_tpot`
  std::size_t backlog = 0; ///< slot of `backlog_ttft`
  float limit = 0;         ///< ms per output token
};

using selector
  = std::variant<best_metric, fixed_preference, next_in_order, slo_prefill, slo_decode>;

std::string_view name_of(const selector& which);

/// The choice among the survivors, or nothing if there are none. `fallback`: they are those of a
/// later pass than the first.
std::optional<candidate_table::row> choose(
  const selector& which, const survivors& among, std::string_view request_id, bool fallback,
  selector_memory& memory);

/// The slots of the metrics that a selector compares by, the first that counts first; none where
/// it does not compare.
std::vector<std::size_t> compared_by(const selector& which);

/// The survivors in the order in which the selector likes them after a choice with this memory, at
/// most `count`; none where it does not compare. Good until the memory is used again.
std::span<const candidate_table::row> ranking_of(
  const selector& which, const survivors& among, std::size_t count, bool fallback,
  selector_memory& memory);

/// What set a choice that was just made with this memory apart from `next`, the best of the others;
/// none: there are no others.
decisive_fact what_decided(
  const selector& which, const survivors& among, candidate_table::row chosen,
  std::optional<candidate_table::row> next, bool fallback, const selector_memory& memory);

/// The best survivors, best first, at most `count`; ties in row order from `first` on, around the
/// circle. Uses `into` as its memory.
std::span<const candidate_table::row> best_of(
  const best_metric& which, const survivors& among, std::size_t count,
  std::vector<candidate_table::row>& into, candidate_table::row first = 0);

} // namespace llumnix
