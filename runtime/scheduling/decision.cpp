#include "runtime/scheduling/decision.hpp"

#include "runtime/base/log.hpp"

#include <algorithm>

namespace llumnix {

std::string_view to_string(serving_mode mode) {
  switch (mode) {
    case serving_mode::neutral: return "neutral";
    case serving_mode::pd_batch: return "pd_batch";
    case serving_mode::pd_staged: return "pd_staged";
  }
  return "neutral";
}

std::optional<serving_mode> parse_serving_mode(std::string_view name) {
  for (auto mode : {serving_mode::neutral, serving_mode::pd_batch, serving_mode::pd_staged})
    if (to_string(mode) == name)
      return mode;
  return std::nullopt;
}

std::string_view filter_name(filter_kind kind) {
  switch (kind) {
    case filter_kind::state: return "state";
    case filter_kind::excluded: return "excluded";
    case filter_kind::schedulability: return "schedulability";
    case filter_kind::staleness: return "staleness";
    case filter_kind::metric: return "metric";
    case filter_kind::not_metric: return "not_metric";
    case filter_kind::attribute: return "attribute";
    case filter_kind::infer_type: return "infer_type";
    case filter_kind::failover: return "failover";
    case filter_kind::failover_source: return "failover_source";
  }
  return "unknown";
}

std::string_view to_string(choice_cause cause) {
  switch (cause) {
    case choice_cause::policy: return "policy";
    case choice_cause::session: return "session";
    case choice_cause::kept: return "kept";
    case choice_cause::alone: return "alone";
    case choice_cause::metric: return "metric";
    case choice_cause::reserved: return "reserved";
    case choice_cause::drawn: return "drawn";
    case choice_cause::turn: return "turn";
    case choice_cause::lowest_id: return "lowest_id";
  }
  return "unknown";
}

namespace {

/// By how many of the candidates what rejected them in the last pass did: "2 by state, 1 by
/// predicted_ttft".
std::string rejected_by(const placement_reasons& reasons) {
  std::string text;
  for (const auto& drops : reasons.drops) {
    if (drops.pass != reasons.pass)
      continue;
    bool on_load = drops.filter == filter_kind::metric || drops.filter == filter_kind::not_metric;
    auto by = on_load ? metric_name(drops.metric) : filter_name(drops.filter);
    auto what = drops.filter == filter_kind::attribute
                  ? fmt::format("reserved for {}", to_string(drops.reserved))
                  : fmt::format("by {}", by);
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", drops.count, what);
  }
  return text;
}

std::string refusal_sentence(const placement_reasons& reasons) {
  if (!reasons.note.empty())
    return reasons.note;
  if (reasons.considered == 0)
    return fmt::format("no instance is known for {} requests", to_string(reasons.stage));
  auto by = rejected_by(reasons);
  return fmt::format(
    "none of {} candidates can take work{}{}", reasons.considered, by.empty() ? "" : "; dropped: ",
    by);
}

/// The metrics of the ranking that did not tell the best apart: "adapter_miss and num_tokens".
std::string equal_metrics(const placement_reasons& reasons) {
  std::string text;
  auto& by = reasons.decided;
  for (std::size_t i = 0; i < reasons.ranked_by_count && i < reasons.ranked_by.size(); ++i) {
    if (by.cause == choice_cause::metric && reasons.ranked_by[i] == by.metric)
      break;
    text.append(text.empty() ? "" : " and ").append(metric_name(reasons.ranked_by[i]));
  }
  return text;
}

/// Of a metric behind the first the values too, as nobody else would look at that one.
std::string by_metric(const placement_reasons& reasons) {
  auto& by = reasons.decided;
  auto equal = equal_metrics(reasons);
  if (equal.empty())
    return fmt::format(" by {}", metric_name(by.metric));
  return fmt::format(
    " by {}, {} against {} of {}: equal in {}", metric_name(by.metric), by.value, by.against,
    by.next, equal);
}

/// "drawn among the best 20: a, b, c, d, ..."
std::string by_draw(const placement_reasons& reasons) {
  auto count = std::min<std::size_t>(reasons.decided.drawn, reasons.ranking.size());
  std::string names;
  for (std::size_t i = 0; i < count; ++i)
    names.append(i == 0 ? "" : ", ").append(reasons.ranking[i].instance);
  return fmt::format(
    ": drawn among the best {}: {}{}", reasons.decided.drawn, names,
    count < reasons.decided.drawn ? ", ..." : "");
}

/// What decided, as goes on behind "b chosen".
std::string cause_of(const placement_reasons& reasons) {
  switch (reasons.decided.cause) {
    case choice_cause::policy: return fmt::format(" by {}", reasons.policy);
    case choice_cause::session: return ": it took the last request of the session";
    case choice_cause::kept:
      return ": it was chosen last, and nobody is better by more than scheduler.hysteresis";
    case choice_cause::alone:
      return reasons.considered == 1
               ? ": the only candidate"
               : fmt::format(": the only one left of {} candidates", reasons.considered);
    case choice_cause::metric: return by_metric(reasons);
    case choice_cause::reserved:
      return fmt::format(": it is reserved for {}", to_string(reasons.stage));
    case choice_cause::drawn: return by_draw(reasons);
    case choice_cause::turn: return ": its turn among those equal in " + equal_metrics(reasons);
    case choice_cause::lowest_id:
      return ": the lowest id of those equal in " + equal_metrics(reasons);
  }
  return "";
}

/// Why the first pass found nobody.
std::string fallback_of(const placement_reasons& reasons) {
  if (reasons.pass == last_pass)
    return "; only excluded candidates are healthy";
  bool excluded = std::ranges::any_of(reasons.drops, [](const filter_drops& x) {
    return x.filter == filter_kind::excluded;
  });
  return fmt::format(
    "; every healthy candidate is above the load limit{}", excluded ? " or excluded" : "");
}

} // namespace

std::string sentence(const placement_reasons& reasons, const instance_id& chosen) {
  if (chosen.empty())
    return refusal_sentence(reasons);
  auto text = fmt::format("{} chosen{}", chosen, cause_of(reasons));
  if (auto& by = reasons.decided; by.drawn > 1 && by.cause != choice_cause::drawn)
    text += fmt::format("; {} and {} were drawn", chosen, by.next);
  return reasons.pass > 1 ? text + fallback_of(reasons) : text;
}

} // namespace llumnix
