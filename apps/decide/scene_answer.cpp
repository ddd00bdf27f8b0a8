#include "apps/decide/scene_answer.hpp"

#include "apps/decide/proto_fields.hpp"
#include "apps/decide/scene_writer.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <set>

namespace llumnix {

namespace {

using json = nlohmann::ordered_json;

/// Adds a member without looking for one of that name first, which takes its time in an object with
/// a member for each instance.
void append(json& object, const std::string& name, json value) {
  object.get_ref<json::object_t&>().emplace_back(name, std::move(value));
}

/// What is not `ready` is as good as unschedulable; the reference knows no other name for it.
filter_kind shown(filter_kind filter) {
  return filter == filter_kind::state ? filter_kind::schedulability : filter;
}

template <class Drop>
json write_drop(const Drop& drop) {
  json object{{"instance", drop.instance}};
  if constexpr (requires { drop.pass; })
    object["pass"] = drop.pass;
  else
    object["side"] = to_string(drop.side);
  object["filter"] = filter_name(shown(drop.filter));
  if (!drop.metric.empty()) {
    object["metric"] = drop.metric;
    object["value"] = write_number(drop.value);
    object["threshold"] = write_number(drop.threshold);
  }
  if constexpr (requires { drop.reserved; })
    if (drop.reserved)
      object["reserved"] = to_string(*drop.reserved);
  return object;
}

/// One entry a filter, so an instance that is draining and unschedulable has one for both.
template <class Drop>
json write_drops(const std::vector<Drop>& drops) {
  auto list = json::array();
  std::set<json> unready;
  for (auto& drop : drops) {
    auto entry = write_drop(drop);
    if (shown(drop.filter) == filter_kind::schedulability && !unready.insert(entry).second)
      continue;
    list.push_back(std::move(entry));
  }
  return list;
}

json write_metrics(const std::vector<std::pair<std::string, float>>& metrics) {
  auto object = json::object();
  for (auto& [name, value] : metrics)
    object[name] = write_number(value);
  return object;
}

json write_decided(const stage_report& stage) {
  auto& by = stage.decided;
  json object{{"cause", to_string(by.cause)}};
  if (by.cause == choice_cause::metric) {
    object["metric"] = metric_name(by.metric);
    object["value"] = write_number(by.value);
    object["against"] = write_number(by.against);
  }
  if (by.cause == choice_cause::reserved)
    object["reserved"] = to_string(stage.stage);
  if (!by.next.empty())
    object["next"] = by.next;
  if (by.drawn > 0) {
    object["drawn_among"] = by.drawn;
    object["drawn"] = stage.drawn;
  }
  return object;
}

json write_stage(const stage_report& stage) {
  auto metrics = json::object(), scores = json::object();
  for (auto& candidate : stage.candidates) {
    append(metrics, candidate.instance, write_metrics(candidate.metrics));
    if (candidate.score)
      append(scores, candidate.instance, write_number(*candidate.score));
  }
  json object{
    {"for", to_string(stage.stage)},
    {"considered", stage.considered},
    {"fallback", stage.fallback},
    {"dropped", write_drops(stage.dropped)},
    {"metrics", std::move(metrics)},
    {"scores", std::move(scores)},
    {"winner", stage.winner.empty() ? json{} : json(stage.winner)}};
  if (!stage.winner.empty())
    object["decided_by"] = write_decided(stage);
  return object;
}

json write_policy(const policy_report& policy) {
  auto metrics = json::object();
  for (auto& candidate : policy.candidates)
    append(metrics, candidate.instance, write_metrics(candidate.metrics));
  json object{
    {"for", policy.policy},
    {"considered", policy.considered},
    {"dropped", write_drops(policy.dropped)},
    {"sources", policy.sources},
    {"destinations", policy.destinations},
    {"metrics", std::move(metrics)}};
  for (auto& pair : policy.left_out)
    object["left_out"].push_back(
      {{"from", pair.from}, {"to", pair.to}, {"why", to_string(pair.why)}});
  if (!policy.needless_with.empty())
    object["needless_with"] = policy.needless_with;
  return object;
}

json write_times(const predicted_answer::times& times) {
  auto list = json::array();
  for (auto& time : times)
    list.push_back(time ? write_number(*time) : json{});
  return list;
}

json write_model(const std::optional<step_coefficients>& model) {
  if (!model)
    return nullptr;
  return {{"a", model->a}, {"b", model->b}, {"c", model->c}};
}

/// Writes each kind of answer's own members, `outcome` first.
struct writer {
  json& into;

  void operator()(const scene_error& error) {
    into["outcome"] = "error";
    into["error"] = {{"path", error.path}, {"message", error.message}};
  }
  void operator()(const placed_answer& answer) {
    into["outcome"] = answer.placed ? "placed" : "refused";
    into["http_status"] = answer.placed ? 200 : 429;
    auto& placement = into["placement"] = json::array();
    for (auto& [role, instance] : answer.placement)
      placement.push_back({{"infer_type", to_string(role)}, {"instance", instance}});
    auto& stages = into["stages"] = json::array();
    for (auto& stage : answer.stages)
      stages.push_back(write_stage(stage));
  }
  void operator()(const planned_answer& plan) {
    into["outcome"] = "planned";
    auto& moves = into["moves"] = json::array();
    for (auto& move : plan.moves)
      moves.push_back(
        {{"from", move.from},
         {"to", move.to},
         {"policy", move.policy},
         {"rule", to_string(move.selection.rule)},
         {"order", to_string(move.selection.order)},
         {"value", move.selection.value}});
    auto& stages = into["stages"] = json::array();
    for (auto& policy : plan.reports)
      stages.push_back(write_policy(policy));
  }
  void operator()(const chosen_answer& answer) {
    into["outcome"] = answer.refused ? "refused" : "chosen";
    into["chosen"] = answer.requests;
  }
  void operator()(const computed_answer& answer) {
    into["outcome"] = "computed";
    auto metrics = json::object(), accounts = json::object();
    for (auto& each : answer.instances) {
      append(metrics, each.instance, write_metrics(each.metrics));
      auto account = json::object();
      for (auto& [name, member] : account_fields())
        account[std::string{name}] = each.account.*member;
      append(accounts, each.instance, std::move(account));
    }
    into["metrics"] = std::move(metrics);
    into["account"] = std::move(accounts);
  }
  void operator()(const predicted_answer& answer) {
    into["outcome"] = "predicted";
    auto& predicted = into["predicted"] = json::object();
    if (answer.prefill)
      predicted["prefill"] = write_times(*answer.prefill);
    if (answer.decode)
      predicted["decode"] = write_times(*answer.decode);
    if (answer.step)
      predicted["step"] = write_times(*answer.step);
    into["step_model"] = write_model(answer.step_model);
  }
  void operator()(const reservations& reserved) {
    into["outcome"] = "reserved";
    auto name = [](const instance_id& id) { return id.empty() ? json{} : json(id); };
    into["reserved"] = {{"prefill", name(reserved.prefill)}, {"decode", name(reserved.decode)}};
  }
  void operator()(const keyed_answer& answer) {
    into["outcome"] = "keyed";
    into["keys"] = answer.keys;
  }
  void operator()(const scaling_decision& decision) {
    into["outcome"] = "scaled";
    auto& scale = into["scale"]
      = {{"average", write_number(decision.average)}, {"action", to_string(decision.action)}};
    if (!decision.leaves.empty())
      scale["leaves"] = decision.leaves;
  }
  void operator()(const configured_answer& answer) {
    into["outcome"] = "configured";
    into["flags"] = answer.flags;
  }
};

} // namespace

json write_answer(const scene_answer& answer) {
  auto object = json::object();
  if (answer.name)
    object["name"] = *answer.name;
  std::visit(writer{object}, answer.what);
  if (!answer.reason.empty())
    object["reason"] = answer.reason;
  if (!answer.warnings.empty())
    object["warnings"] = answer.warnings;
  return object;
}

bool is_error(const scene_answer& answer) {
  return std::holds_alternative<scene_error>(answer.what);
}

bool is_refusal(const scene_answer& answer) {
  auto* placed = std::get_if<placed_answer>(&answer.what);
  auto* chosen = std::get_if<chosen_answer>(&answer.what);
  return (placed != nullptr && !placed->placed) || (chosen != nullptr && chosen->refused);
}

} // namespace llumnix
