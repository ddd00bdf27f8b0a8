#include "runtime/scheduling/decision.hpp"

#include "runtime/base/log.hpp"

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

namespace {

/// By how many of the candidates what rejected them in the last pass did: "2 by state, 1 by
/// predicted_ttft".
std::string rejected_by(const placement_reasons& reasons) {
  std::string text;
  for (const auto& drops : reasons.drops) {
    if (drops.pass != reasons.pass)
      continue;
    bool on_load = drops.filter == filter_kind::metric || drops.filter == filter_kind::not_metric;
    text += fmt::format(
      "{}{} by {}", text.empty() ? "" : ", ", drops.count,
      on_load ? metric_name(drops.metric) : filter_name(drops.filter));
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

} // namespace

std::string sentence(const placement_reasons& reasons, const instance_id& chosen) {
  if (chosen.empty())
    return refusal_sentence(reasons);
  auto by = reasons.ranked_by_count > 0 ? metric_name(reasons.ranked_by[0])
                                        : std::string_view{reasons.policy};
  auto text = reasons.cause == choice_cause::session
                ? fmt::format("{} chosen: it took the last request of the session", chosen)
                : fmt::format("{} chosen by {}", chosen, by);
  if (reasons.cause == choice_cause::kept)
    text += ": it was chosen last, and nobody is better by more than scheduler.hysteresis";
  if (reasons.pass == 2)
    text += "; every healthy candidate is above the load limit or excluded";
  else if (reasons.pass == last_pass)
    text += "; only excluded candidates are healthy";
  return text;
}

} // namespace llumnix
