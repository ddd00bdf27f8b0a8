#include "actors/flight_json.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

namespace llumnix {

namespace {

using nlohmann::json;

/// Also where it is infinite, which JSON has no number for.
json number(float value) {
  if (std::isfinite(value))
    return static_cast<double>(value);
  return value > 0 ? "inf" : "-inf";
}

/// Where there is a value.
template <class T>
void add(json& to, const char* name, const std::optional<T>& value) {
  if (value)
    to[name] = *value;
}

json times_json(const flight_times& times) {
  json out = json::object();
  add(out, "placed_ms", times.placed_ms);
  add(out, "ttft_ms", times.ttft_ms);
  add(out, "tpot_ms", times.tpot_ms);
  add(out, "predicted_ttft_ms", times.predicted_ttft_ms);
  add(out, "predicted_tpot_ms", times.predicted_tpot_ms);
  add(out, "ttft_error_ms", times.ttft_error_ms());
  add(out, "tpot_error_ms", times.tpot_error_ms());
  return out;
}

json drops_json(const filter_drops& drops) {
  json entry{
    {"filter", filter_name(drops.filter)},
    {"pass", drops.pass},
    {"count", drops.count},
    {"first", drops.first}};
  if (drops.filter == filter_kind::metric || drops.filter == filter_kind::not_metric)
    entry.update(
      {{"metric", metric_name(drops.metric)},
       {"value", number(drops.value)},
       {"threshold", number(drops.threshold)}});
  if (drops.filter == filter_kind::attribute)
    entry["reserved"] = to_string(drops.reserved);
  return entry;
}

json decided_json(const placement_reasons& reasons) {
  auto& by = reasons.decided;
  json out{{"cause", to_string(by.cause)}};
  if (by.cause == choice_cause::metric)
    out.update(
      {{"metric", metric_name(by.metric)},
       {"value", number(by.value)},
       {"against", number(by.against)}});
  if (by.cause == choice_cause::reserved)
    out["reserved"] = to_string(reasons.stage);
  if (!by.next.empty())
    out["next"] = by.next;
  if (by.drawn > 0)
    out["drawn_among"] = by.drawn;
  return out;
}

json wishes_json(const placement_wishes& wishes) {
  json out = json::object();
  if (wishes.ttft_slo_ms)
    out["ttft_slo_ms"] = number(*wishes.ttft_slo_ms);
  if (wishes.tpot_slo_ms)
    out["tpot_slo_ms"] = number(*wishes.tpot_slo_ms);
  if (!wishes.session.empty())
    out["session"] = wishes.session;
  if (!wishes.adapter.empty())
    out["adapter"] = wishes.adapter;
  if (wishes.priority != 0)
    out["priority"] = wishes.priority;
  return out;
}

json reasons_json(const placement_reasons& reasons, const instance_id& chosen) {
  json dropped = json::array();
  for (const auto& drops : reasons.drops)
    dropped.push_back(drops_json(drops));
  json metrics = json::object();
  json ranking = json::array();
  for (const auto& [instance, values] : reasons.ranking) {
    ranking.push_back(instance);
    for (std::size_t i = 0; i < reasons.ranked_by_count && i < values.size(); ++i)
      metrics[instance][std::string{metric_name(reasons.ranked_by[i])}] = number(values[i]);
  }
  json out{
    {"policy", reasons.policy},
    {"for", to_string(reasons.stage)},
    {"view_version", reasons.view_version},
    {"fallback", reasons.pass > 1 && !chosen.empty()},
    {"considered", reasons.considered},
    {"dropped", std::move(dropped)},
    {"ranking", std::move(ranking)},
    {"metrics", std::move(metrics)},
    {"sentence", sentence(reasons, chosen)}};
  if (!chosen.empty() && reasons.considered > 0)
    out["decided_by"] = decided_json(reasons);
  json predicted = json::object();
  add(predicted, "ttft_ms", reasons.predicted_ttft_ms);
  add(predicted, "tpot_ms", reasons.predicted_tpot_ms);
  if (!predicted.empty())
    out["predicted"] = std::move(predicted);
  if (reasons.hit_tokens > 0)
    out["hit_tokens"] = reasons.hit_tokens;
  if (auto wishes = wishes_json(reasons.wishes); !wishes.empty())
    out["wishes"] = std::move(wishes);
  if (!reasons.note.empty())
    out["note"] = reasons.note;
  return out;
}

} // namespace

std::string flight_json(const std::vector<flight_record>& records) {
  if (records.empty())
    return {};
  json requests = json::array();
  std::vector<std::pair<unix_ms, json>> merged;
  for (const auto& record : records) {
    requests.push_back(record.text_id);
    for (const auto& event : record.events) {
      json line{{"at_ms", event.at}, {"kind", event.kind}, {"request", record.text_id}};
      if (!event.instance.empty())
        line["instance"] = event.instance;
      if (event.kind != "finished" && event.kind != "waiting" && event.kind != "released")
        line["epoch"] = event.epoch;
      bool chosen = event.kind == "placed" || event.kind == "decode_placed";
      line["reasons"] = !event.reasons.policy.empty()
                          ? reasons_json(event.reasons, chosen ? event.instance : instance_id{})
                          : json::object();
      if (!event.note.empty())
        line["note"] = event.note;
      if (event.kind == "finished")
        line["times"] = times_json(event.times);
      merged.emplace_back(event.at, std::move(line));
    }
  }
  std::stable_sort(
    merged.begin(), merged.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  json events = json::array();
  for (auto& [at, line] : merged)
    events.push_back(std::move(line));
  return json{
    {"id", records.front().text_id},
    {"requests", std::move(requests)},
    {"events", std::move(events)}}
    .dump(-1, ' ', false, json::error_handler_t::replace);
}

} // namespace llumnix
