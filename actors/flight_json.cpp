#include "actors/flight_json.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace llumnix {

namespace {

using nlohmann::json;

json reasons_json(const placement_reasons& reasons) {
  json dropped = json::array();
  for (const auto& one : reasons.dropped) {
    json entry{{"instance", one.instance}, {"pass", one.pass}, {"filter", one.filter}};
    if (!one.metric.empty())
      entry.update({{"metric", one.metric}, {"value", one.value}, {"threshold", one.threshold}});
    dropped.push_back(std::move(entry));
  }
  json metrics = json::object();
  json ranking = json::array();
  for (const auto& [instance, values] : reasons.metrics) {
    ranking.push_back(instance);
    for (const auto& [name, value] : values)
      metrics[instance][name] = value;
  }
  json out{
    {"policy", reasons.policy},
    {"view_version", reasons.view_version},
    {"fallback", reasons.fallback},
    {"considered", reasons.considered},
    {"considered_total", reasons.considered_total},
    {"dropped", std::move(dropped)},
    {"dropped_total", reasons.dropped_total},
    {"ranking", std::move(ranking)},
    {"metrics", std::move(metrics)}};
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
      if (event.kind != "finished" && event.kind != "waiting")
        line["epoch"] = event.epoch;
      line["reasons"] = event.kind == "placed" ? reasons_json(event.reasons) : json::object();
      if (!event.note.empty())
        line["note"] = event.note;
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
