#pragma once

#include "runtime/base/result.hpp"
#include "runtime/scheduling/candidate_table.hpp"
#include "runtime/scheduling/decision.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace llumnix {

/// Who failed which filter: bit i stands for filter i of the policy.
using rejections = std::uint16_t;

/// One sweep of a policy's filters over its candidates. Every filter judges every candidate, so
/// that each pass of the decision is the same sweep read with other bits. Kept between decisions
/// for its memory.
struct screening {
  std::vector<rejections> rejected;  ///< by row
  std::vector<std::uint8_t> failing; ///< by row: 1 where the instance needs failover
  bool any_failing = false;

  /// Rows numbered by node and by unit, for failover domains; made anew when the layout changed.
  struct numbering {
    std::vector<std::uint32_t> of; ///< by row
    std::uint32_t count = 0;
    std::optional<std::uint32_t> empty; ///< the number of the empty id
  };
  std::uint64_t layout = 0;
  numbering nodes, units;
  bool data_parallel = false;
  std::vector<std::uint8_t> reached; ///< scratch
  std::vector<std::uint8_t> marks;   ///< scratch
};

/// What a filter looks at.
struct screened {
  const candidate_table& table;
  std::span<const instance_id> exclude;
  reach by;
  unix_ms now;
  rejections bit; ///< of the filter at work
};

/// Rejects instances that are not `ready`, and those that cannot be reached as is wanted. A lost
/// one needs failover.
struct state_filter {
  static constexpr filter_kind kind = filter_kind::state;
  static constexpr std::uint32_t passes = last_pass;
  void operator()(const screened& what, screening& into) const;
};

/// Rejects instances the query excludes.
struct excluded_filter {
  static constexpr filter_kind kind = filter_kind::excluded;
  static constexpr std::uint32_t passes = 2;
  void operator()(const screened& what, screening& into) const;
};

/// Rejects instances that declare themselves unfit; they need failover, unless they are `draining`.
struct schedulability_filter {
  static constexpr filter_kind kind = filter_kind::schedulability;
  static constexpr std::uint32_t passes = last_pass;
  void operator()(const screened& what, screening& into) const;
};

/// Rejects instances whose last status is more than so many whole seconds old; they need failover.
struct staleness_filter {
  static constexpr filter_kind kind = filter_kind::staleness;
  static constexpr std::uint32_t passes = last_pass;
  std::uint32_t limit_s = 60;
  void operator()(const screened& what, screening& into) const;
};

/// Which goal of time a limit is a share of; a request may set its own.
enum class time_goal : std::uint8_t { none, ttft, tpot };

/// Keeps instances whose metric is strictly better than the threshold; the inverted form rejects
/// just those.
struct metric_filter {
  std::size_t slot = 0; ///< of the candidate table
  float threshold = 0;
  bool strict = false; ///< takes part in every pass
  bool inverted = false;
  time_goal goal = time_goal::none; ///< what `threshold` is a share of
  void operator()(const screened& what, screening& into) const;
};

/// Rejects instances that are reserved for a role (adaptive PD).
struct attribute_filter {
  static constexpr filter_kind kind = filter_kind::attribute;
  static constexpr std::uint32_t passes = last_pass;
  infer_type reserved = infer_type::prefill;
  void operator()(const screened& what, screening& into) const;
};

/// Rejects instances of other roles.
struct role_filter {
  static constexpr filter_kind kind = filter_kind::infer_type;
  static constexpr std::uint32_t passes = last_pass;
  infer_type role = infer_type::neutral;
  void operator()(const screened& what, screening& into) const;
};

/// How far a failure reaches.
enum class failover_domain : std::uint8_t { instance, node, instance_unit, node_unit };

/// The domain of that name (`instance`, `node`, `instance-unit`, `node-unit`); else
/// `invalid_argument`.
result<failover_domain> parse_failover_domain(std::string_view name);

/// Rejects the failover domains of those that need failover, among all candidates of the role.
/// Comes after the filters that say who does. Units count where any candidate has more than one
/// data-parallel rank; an empty node id is nobody's neighbor, the empty unit id is a unit
/// (spec/scheduling.md 6).
struct failover_filter {
  static constexpr filter_kind kind = filter_kind::failover;
  static constexpr std::uint32_t passes = last_pass;
  failover_domain domain = failover_domain::instance_unit;
  void operator()(const screened& what, screening& into) const;
};

/// Rejects everyone outside the failover domains of those that need failover: those that must be
/// left. Judges health itself, of all rows.
struct failover_source_filter {
  static constexpr filter_kind kind = filter_kind::failover_source;
  static constexpr std::uint32_t passes = last_pass;
  failover_domain domain = failover_domain::instance_unit;
  std::uint32_t staleness_limit_s = 60;
  void operator()(const screened& what, screening& into) const;
};

using filter = std::variant<
  state_filter, excluded_filter, schedulability_filter, staleness_filter, metric_filter,
  attribute_filter, role_filter, failover_filter, failover_source_filter>;

filter_kind kind_of(const filter& which);

/// Whether `screening::failing` begins anew, or goes on from the sweep before (policies of one
/// rescheduling cycle).
enum class failure_marks : std::uint8_t { fresh, kept };

/// Runs the filters, in order, over all rows of the table. Of the query it is `exclude` and
/// `by` that matter.
void screen(
  std::span<const filter> filters, const candidate_table& table, const placement_query& query,
  unix_ms now, screening& into, failure_marks marks = failure_marks::fresh);

/// The filters that take part in a pass.
rejections filters_of_pass(std::span<const filter> filters, std::uint32_t pass);

} // namespace llumnix
