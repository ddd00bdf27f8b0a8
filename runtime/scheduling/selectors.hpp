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
  instance_id last;                          ///< chosen last, by selectors that care
  candidate_table::row first = 0;            ///< where the last decision began to look
  std::vector<candidate_table::row> ranking; ///< scratch
};

/// Who wins among equally good survivors.
enum class tie_rule : std::uint8_t {
  lowest_id,
  in_turn, ///< the next in id order after the last choice, around the circle
};

/// The survivor with the best values, compared metric by metric, ties as `ties` says. With `top_k`
/// above 1, one of the best `top_k`, each as likely: drawn from the seed and the request's id, so
/// that a decision can be repeated.
struct best_metric {
  static constexpr std::string_view name = "metric";
  std::vector<std::size_t> slots; ///< of the candidate table
  std::uint32_t top_k = 1;        ///< at least 1
  std::uint64_t seed = 1;
  tie_rule ties = tie_rule::lowest_id;
};

/// The last choice again for as long as it survives, then the survivor with the lowest id.
struct fixed_preference {
  static constexpr std::string_view name = "fixed-preference";
};

/// The survivor whose id follows the last choice, around the circle.
struct next_in_order {
  static constexpr std::string_view name = "round-robin";
};

using selector = std::variant<best_metric, fixed_preference, next_in_order>;

std::string_view name_of(const selector& which);

/// The choice among the survivors, or nothing if there are none.
std::optional<candidate_table::row> choose(
  const selector& which, const survivors& among, std::string_view request_id,
  selector_memory& memory);

/// The best survivors, best first, at most `count`; ties in row order from `first` on, around the
/// circle. Uses `into` as its memory.
std::span<const candidate_table::row> best_of(
  const best_metric& which, const survivors& among, std::size_t count,
  std::vector<candidate_table::row>& into, candidate_table::row first = 0);

} // namespace llumnix
