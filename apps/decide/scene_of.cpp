#include "apps/decide/scene_of.hpp"

#include "apps/decide/proto_fields.hpp"
#include "config/knob_value.hpp"
#include "config/knobs.hpp"

#include <algorithm>
#include <array>

namespace llumnix {

namespace {

/// Every knob of the scheduler, so that the defaults of flags do not come between; but none that
/// names files or hosts, or is a secret.
nlohmann::json settings_of(const scheduler_config& config) {
  constexpr std::array elsewhere{
    "scheduler.ttft_profile", "scheduler.tpot_profile",     "scheduler.http",
    "scheduler.kv_events",    "scheduler.kv_events_replay", "scheduler.mooncake"};
  cluster_config whole;
  whole.scheduler = config;
  auto settings = nlohmann::json::object();
  for (auto& each : knobs())
    if (
      each.path.starts_with("scheduler.") && !each.secret
      && std::ranges::find(elsewhere, each.path) == elsewhere.end())
      settings[std::string{each.path}] = write_json(each, whole);
  return settings;
}

/// All counters of the reference's, and of ours those that count something.
scene_account account_of(const inflight_load& load) {
  scene_account account;
  for (auto& [name, counter] : account_fields())
    account.emplace(name, load.*counter);
  for (auto& [name, counter] : priority_fields())
    if (load.*counter != 0)
      account.emplace(name, load.*counter);
  return account;
}

/// Whether an instance may be chosen as far as its status tells; in lite mode scenes do not look at
/// those.
bool unwell(const decision_snapshot::instance& known, const decision_snapshot& seen) {
  auto age_s = (seen.now - known.status.timestamp_ms) / 1000;
  return !seen.config.full_mode && known.reported
         && (!known.status.schedulable || age_s > seen.config.instance_staleness_s);
}

scene_instance
instance_of(const decision_snapshot::instance& known, const decision_snapshot& seen) {
  scene_instance written;
  auto& id = known.metadata.instance_id;
  written.metadata = known.metadata;
  written.state = known.state;
  if (written.state == instance_state::ready && (!known.reachable || unwell(known, seen)))
    written.state = instance_state::draining;
  if (known.reported) {
    written.status = known.status;
    written.status.recent_waiting_requests.clear(); // the account follows from them already
    written.status.waiting_requests.clear();
  } else {
    written.status.instance_id = id;
    written.status.timestamp_ms = seen.now;
    written.metrics["kv_cache_usage_ratio_projected"] = 0; // its capacity is not known yet
  }
  written.account = account_of(known.account);
  for (auto& [name, ms] : known.predicted)
    written.metrics[name] = static_cast<double>(ms);
  written.reserved = seen.reserved.of(id);
  return written;
}

/// Whether a scene knows the instance: one that went meanwhile is not in it, and one of a role that
/// nothing knows gets no work anyway.
bool is_candidate(const decision_snapshot::instance& known) {
  return parse_infer_type(known.metadata.instance_type).has_value();
}

bool has_candidate(const decision_snapshot& seen, const instance_id& id) {
  return std::ranges::any_of(seen.instances, [&](const decision_snapshot::instance& each) {
    return each.metadata.instance_id == id && is_candidate(each);
  });
}

/// What the request wishes for, and who took the last one of its session.
void add_wishes(const decision_snapshot& seen, scene_request& request) {
  auto& wishes = seen.query.wishes;
  request.ttft_slo_ms = wishes.ttft_slo_ms;
  request.tpot_slo_ms = wishes.tpot_slo_ms;
  request.session = wishes.session;
  request.priority = wishes.priority;
  request.adapter = wishes.adapter;
  for (auto role : all_roles)
    if (auto& last = seen.session_last[static_cast<std::size_t>(role)]; has_candidate(seen, last))
      request.session_last[role] = last;
}

scene_request request_of(const decision_snapshot& seen) {
  scene_request request;
  request.id = seen.query.request_id;
  request.scheduling_mode = to_string(seen.query.mode);
  if (seen.query.mode == serving_mode::pd_staged)
    request.scheduling_stage = to_string(seen.query.stage);
  request.prompt_tokens = seen.query.prompt_tokens;
  add_wishes(seen, request);
  for (auto& id : seen.query.exclude)
    if (has_candidate(seen, id))
      request.exclude.push_back(id);
  if (seen.hits && seen.hits->asked) {
    auto& hits = request.hit_tokens.emplace();
    for (auto& hit : seen.hits->instances.list())
      if (has_candidate(seen, hit.instance))
        hits[hit.instance] = hit.tokens;
  }
  return request;
}

} // namespace

scene scene_of(const decision_snapshot& decision) {
  scene written;
  written.name = decision.query.request_id;
  written.now = decision.now;
  written.config.settings = settings_of(decision.config);
  written.config.step_model = decision.step_model;
  for (auto& known : decision.instances)
    if (is_candidate(known))
      written.instances.push_back(instance_of(known, decision));
  written.reservations_given = decision.reserved != reservations{};
  for (auto role : all_roles)
    if (auto& last = decision.last[static_cast<std::size_t>(role)]; !last.empty())
      written.last[role] = last;
  written.request = request_of(decision);
  return written;
}

} // namespace llumnix
