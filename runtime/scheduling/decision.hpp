#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/serving/placement_wishes.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// How a request is spread over roles (spec/scheduling.md 4).
enum class serving_mode : std::uint8_t {
  neutral,   ///< one instance does both stages
  pd_batch,  ///< a prefill and a decode instance, chosen together
  pd_staged, ///< one of them now, as `stage` says
};
std::string_view to_string(serving_mode mode);
/// The mode of that name, or nothing.
std::optional<serving_mode> parse_serving_mode(std::string_view name);

/// How whoever asks will reach the instance that is chosen. Others are no candidates.
enum class reach : std::uint8_t {
  llumlet, ///< over a link of ours: not those that only a store tells of
  http,    ///< at its own address: not those without one
};

/// What a placement is asked for.
struct placement_query {
  std::string request_id; ///< text id of the request (of this choice); key of the local account
  std::uint32_t prompt_tokens = 0; ///< load it adds: prompt and, for a replay, delivered tokens
  std::vector<instance_id>
    exclude; ///< instances that just refused or failed it; chosen only if nothing else is left
  serving_mode mode = serving_mode::neutral;
  infer_type stage = infer_type::prefill; ///< of `pd_staged`
  reach by = reach::llumlet; ///< no part of a message: gateways of ours ask for nothing else
  placement_wishes wishes{};
};

/// A filter by number, so that reasons travel and are kept as numbers; `filter_name` says it.
enum class filter_kind : std::uint8_t {
  state,
  excluded,
  schedulability,
  staleness,
  metric,
  not_metric,
  attribute,
  infer_type,
  failover,
  failover_source,
};
std::string_view filter_name(filter_kind kind);

/// Passes of a decision. In each, fewer filters take part; the first that leaves somebody decides.
///
///     1 all of them    2 without those on load    3 also without `excluded`
inline constexpr std::uint32_t last_pass = 3;

/// What one filter rejected in one pass.
struct filter_drops {
  filter_kind filter = filter_kind::state;
  std::uint8_t pass = 1;
  std::uint32_t count = 0;
  instance_id first; ///< the first it rejected, by id
  // Of filters on load:
  std::uint8_t metric = 0; ///< number of the metric, `metric_name`
  float value = 0;         ///< of `first`
  float threshold = 0;
  infer_type reserved = infer_type::neutral; ///< of filter `attribute`: for which role they are
};

/// A survivor and what it was ranked by.
struct ranked_candidate {
  instance_id instance;
  std::array<float, 3> values{}; ///< by the metrics of the ranking
};

/// What decided among those who may take a request.
enum class choice_cause : std::uint8_t {
  policy,    ///< a rule of the policy that compares nothing
  session,   ///< it took the last request of the session
  kept,      ///< it was chosen last, and nobody is better by enough
  alone,     ///< nobody else was left
  metric,    ///< its value of a metric
  reserved,  ///< it is reserved for the role
  drawn,     ///< it was drawn
  turn,      ///< of equals it was its turn
  lowest_id, ///< of equals
};
std::string_view to_string(choice_cause cause);

/// What set whoever was chosen apart from the best of the others.
struct decisive_fact {
  choice_cause cause = choice_cause::policy;
  instance_id next{}; ///< the best of the others; empty where nobody was compared
  // With cause `metric`:
  std::uint8_t metric = 0; ///< number of the first metric that told the two apart, `metric_name`
  float value = 0;         ///< of the chosen one
  float against = 0;       ///< of `next`
  /// Above 1: there was a draw. With cause `drawn` among so many of the best; else out of so many,
  /// of the chosen one and `next`.
  std::uint32_t drawn = 0;
  friend bool operator==(const decisive_fact&, const decisive_fact&) = default;
};

/// Why an instance was chosen, or none, for the record: numbers, and a few ids (DESIGN.md 3.10). It
/// is made for every placement, so it costs little; the whole scene is `stage_report`.
struct placement_reasons {
  std::string policy; ///< name of the composition
  infer_type stage = infer_type::neutral;
  std::uint64_t view_version = 0;
  std::uint8_t pass = 1;        ///< that chose, or that nobody survived; above 1: a fallback
  std::uint32_t considered = 0; ///< candidates of the role
  std::vector<filter_drops> drops;
  std::array<std::uint8_t, 3> ranked_by{}; ///< numbers of metrics, `metric_name`
  std::uint8_t ranked_by_count = 0;
  std::vector<ranked_candidate> ranking; ///< best first, the winner among them; a few
  std::uint32_t hit_tokens = 0;          ///< of the winner, where prefixes were looked up
  // Of the winner for this request, ms, by the profiles, as far as those reach; infinite values are
  // left out. TTFT from the decision on, of prefill and neutral; TPOT of decode and neutral.
  std::optional<float> predicted_ttft_ms;
  std::optional<float> predicted_tpot_ms;
  decisive_fact decided;
  placement_wishes wishes; ///< of the request, also those that the policy does not look at
  std::string note;        ///< what the decision cannot know, for people
};

/// Metrics by number: stable within a version of the program, which nodes that talk share.
std::uint8_t metric_number(std::string_view name);
std::string_view metric_name(std::uint8_t number);

/// The reasons in a sentence: "b chosen by all_prefills_tokens_num".
std::string sentence(const placement_reasons& reasons, const instance_id& chosen);

/// Outcome of one placement. `instance` is empty when nobody can take the request now.
struct placement {
  instance_id instance;
  placement_reasons reasons; ///< filled where asked for, or where no role was tried
  // With `pd_batch`, when both were found:
  instance_id decode; ///< where it decodes, `instance` being for its prefill; perhaps the same
  placement_reasons decode_reasons;
};

/// One candidate a filter rejected.
struct dropped_candidate {
  instance_id instance;
  std::uint32_t pass = 1;
  filter_kind filter = filter_kind::state;
  std::string metric; ///< of filters on load
  float value = 0;
  float threshold = 0;
  std::optional<infer_type> reserved{}; ///< of filter `attribute`: for which role it is
};

/// Everything one choice saw: what `llumnix decide` shows.
struct stage_report {
  infer_type stage = infer_type::neutral;
  std::vector<instance_id> considered;
  bool fallback = false;
  std::vector<dropped_candidate> dropped;
  struct valued {
    instance_id instance;
    std::vector<std::pair<std::string, float>> metrics; ///< of the role's policy
    std::optional<float> score;                         ///< of survivors, by selectors that compare
  };
  std::vector<valued> candidates; ///< by id
  instance_id winner;             ///< empty: nobody
  decisive_fact decided;          ///< where there is a winner
  std::vector<instance_id> drawn; ///< among whom a draw was, best first
};

} // namespace llumnix
