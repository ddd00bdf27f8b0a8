#pragma once

#include "runtime/base/result.hpp"
#include "runtime/cluster/request_lists.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// What the value of a selection counts.
enum class selection_rule : std::uint8_t {
  requests, ///< NUM_REQ: requests; -1: all
  tokens,   ///< TOKEN: tokens of the requests, prompt and output
  kv_ratio, ///< RATIO: the same, as a share of the instance's KV capacity
};

/// Which requests go first.
enum class selection_order : std::uint8_t {
  latest_running,        ///< LCR: running, the latest arrival first
  earliest_running,      ///< FCR: running, the earliest first
  longest_running,       ///< LR: running, most tokens first
  shortest_running,      ///< SR: running, fewest tokens first
  earliest_waiting,      ///< FCW: waiting, the front of the queue first
  waiting_then_shortest, ///< FCWSR: as FCW, and with what is left as SR
  /// LPSR: running, those of high priority last, else as SR. Ours: engines of other makes take it
  /// as FCR.
  low_priority_shortest,
};

/// The reference's names: "NUM_REQ", "SR", ...; and "LPSR".
std::string_view to_string(selection_rule rule);
std::string_view to_string(selection_order order);
/// The rule or order of that name, or nothing.
std::optional<selection_rule> parse_selection_rule(std::string_view name);
std::optional<selection_order> parse_selection_order(std::string_view name);
/// All names, for messages: "a, b, c".
std::string known_selection_rules();
std::string known_selection_orders();

/// Which requests of an instance are to move, and how many of them.
struct request_selection {
  selection_rule rule = selection_rule::tokens;
  selection_order order = selection_order::shortest_running;
  double value = 1024; ///< in the unit of the rule; whole for requests and tokens
  /// Of a move by load: no more tokens leave, by whatever rule. Those that make both sides equal, or,
  /// where the value counts requests, those that the plan wants; 0: no such bound. Only
  /// `select_within` looks at it.
  double balance = 0;
  friend bool operator==(const request_selection&, const request_selection&) = default;
};

/// The requests an engine of the reference lets go, in order (spec/rescheduling.md 4.1, 4.2), with
/// the plain KV connector; possibly none. A list that is not known counts as empty. It is what
/// `llumnix decide` answers; ours let go what `select_within` says.
///
/// They are taken until the value is spent; the last one may overshoot it. Left out are those on
/// their way already, running ones without an output token yet, and any that alone costs more than
/// the whole value. NUM_REQ with -1 takes all, the waiting ones first, whatever the order.
///
/// `free_slots`: requests that may still leave at a time, where that is known. Every rule wants
/// one, NUM_REQ as many as its value says; with fewer the answer is `queue_full`. A value that is
/// no finite number is an `invalid_argument`.
result<std::vector<std::string>> select_requests(
  const request_selection& wanted, const request_lists& lists, std::int64_t kv_capacity_tokens,
  std::optional<std::int64_t> free_slots = std::nullopt);

/// The requests that really go: as `select_requests`, but no more than the value in all. One that
/// costs more than what is left of it is passed over, and later ones are looked at
/// (spec/migration.md 3.3).
///
/// In a move by load, where `balance` is known, one request goes alone though it costs more than the
/// whole value, where none within it can: the one with the fewest tokens, of equals the first, unless
/// that is more than balances (weakness 18 of spec/rescheduling.md).
result<std::vector<std::string>> select_within(
  const request_selection& wanted, const request_lists& lists, std::int64_t kv_capacity_tokens,
  std::optional<std::int64_t> free_slots = std::nullopt);

} // namespace llumnix
