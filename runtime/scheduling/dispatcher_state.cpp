#include "runtime/scheduling/dispatcher_state.hpp"

#include <cmath>
#include <string_view>
#include <utility>

namespace llumnix {

namespace {

constexpr std::string_view not_looked_up
  = "no cached prefix was looked up: the prompt came as a text or is too short, or no index "
    "answered";

} // namespace

dispatcher::state::state(
  const scheduler_config& knobs, placement_policy policy, latency_profile measured)
  : config{knobs},
    profile{std::move(measured)},
    ledger{
      config.full_mode ? dispatch_ledger{config.local_account_staleness_s}
                       : dispatch_ledger::until_released()},
    policy_name{std::move(policy.name)},
    adaptive{config.full_mode && config.adaptive_pd},
    steps{config.predictor_warmup_samples} {
  for (auto role : all_roles)
    if (auto& made = policy.roles[static_cast<std::size_t>(role)])
      of(role).emplace(std::move(*made), &profile);
}

inflight_load dispatcher::state::account(const instance_id& id) const {
  auto laid_down = given_accounts.find(id);
  return laid_down == given_accounts.end() ? ledger.inflight(id) : laid_down->second;
}

void dispatcher::state::refresh(const instance_id& id) {
  auto* known = view.find(id);
  if (!known)
    return;
  auto role = parse_infer_type(known->metadata.instance_type);
  if (!role)
    return;
  auto sent = account(id);
  for (auto each : all_roles)
    if (auto& chooser = of(each); chooser && (each == *role || chooser->any_role())) {
      chooser->candidates().put(*known, sent);
      if (adaptive || reservations_given)
        chooser->candidates().reserve(id, reserved.of(id));
    }
}

void dispatcher::state::expire(unix_ms now) {
  for (auto& id : ledger.expire(now))
    refresh(id);
}

void dispatcher::state::forget_account(const instance_id& id) {
  if (config.full_mode)
    ledger.forget(id);
}

void dispatcher::state::forget_candidate(const instance_id& id) {
  for (auto& chooser : choosers)
    if (chooser)
      chooser->candidates().erase(id);
}

roles_present dispatcher::state::present() const {
  roles_present present{};
  for (auto role : all_roles)
    present[static_cast<std::size_t>(role)] = instances_of[static_cast<std::size_t>(role)] > 0;
  return present;
}

void dispatcher::state::count(const instance_view* known, int by) {
  if (known)
    if (auto role = parse_infer_type(known->metadata.instance_type))
      instances_of[static_cast<std::size_t>(*role)] += by;
}

void dispatcher::state::fill_reservations(unix_ms now) {
  if (!adaptive || reservations_given)
    return;
  auto before = reserved;
  fill(reserved, view, now, config.instance_staleness_s);
  if (reserved != before)
    show_reservations();
}

void dispatcher::state::show_reservations() {
  for (auto& [id, known] : view.instances())
    for (auto& chooser : choosers)
      if (chooser)
        chooser->candidates().reserve(id, reserved.of(id));
}

void dispatcher::state::correct_waiting_prefills(const instance_id& id) {
  auto& status = view.find(id)->status;
  if (auto tokens = ledger.waiting_prefills(status))
    status.num_uncomputed_tokens_all_waiting_prefills = *tokens;
}

void dispatcher::state::learn(const instance_status& status) {
  if (steps.add(status.num_scheduled_prefill_tokens, status.step_duration))
    steps.fit();
}

const std::optional<step_coefficients>& dispatcher::state::step_model() const {
  return given_steps ? given_steps : steps.fitted();
}

decision_inputs dispatcher::state::inputs(
  const placement_query* query, const prefix_hits* hits, infer_type role, unix_ms now) const {
  decision_inputs about{.prompt_tokens = query ? query->prompt_tokens : 0, .now = now};
  if (cache_aware())
    about.hits = hits;
  if (predicts_progress() && role == infer_type::prefill && step_model())
    about.step = &*step_model();
  about.max_num_batched_tokens = config.max_num_batched_tokens;
  if (query) {
    about.priority = query->wishes.priority;
    about.adapter = query->wishes.adapter.empty() ? nullptr : &query->wishes.adapter;
  }
  return about;
}

candidate_table dispatcher::state::table_of(
  const instance_view& known, std::vector<metric_column> columns,
  const decision_inputs& about) const {
  auto& id = known.metadata.instance_id;
  candidate_table table{std::move(columns), &profile};
  if (auto laid_down = given.find(id); laid_down != given.end())
    table.give(id, laid_down->second);
  table.put(known, account(id));
  table.prepare(about);
  return table;
}

given_metrics dispatcher::state::predictions(
  const instance_view& known, const placement_query& query, const prefix_hits* hits,
  unix_ms now) const {
  static const auto& ttft = *find_load_metric("predicted_ttft");
  static const auto& tpot = *find_load_metric("predicted_tpot");
  auto value = [&](const load_metric& metric, infer_type stage) {
    return table_of(known, {{&metric, true}}, inputs(&query, hits, stage, now)).values(0)[0];
  };
  return {
    {std::string{ttft.name}, value(ttft, infer_type::prefill)},
    {std::string{tpot.name}, value(tpot, infer_type::decode)},
    {std::string{backlog_ttft_name}, value(backlog_ttft(), infer_type::decode)}};
}

stage_outcome dispatcher::state::choose(
  infer_type stage, const placement_query& query, const prefix_hits* hits, unix_ms now,
  explain how_much) {
  stage_outcome outcome;
  outcome.stage = stage;
  auto& chooser = *of(stage);
  auto made = chooser.choose(query, inputs(&query, hits, stage, now));
  if (made.row)
    outcome.instance = chooser.candidates().ids()[*made.row];
  if (how_much != explain::nothing) {
    outcome.reasons = chooser.reasons(made);
    outcome.reasons.wishes = query.wishes;
  }
  if (how_much != explain::nothing && made.row)
    predict(chooser, *made.row, inputs(&query, hits, stage, now), outcome);
  if (how_much == explain::in_full)
    outcome.report = chooser.report(made);
  if (outcome.report)
    outcome.report->stage = stage;
  if (how_much != explain::nothing)
    name_decision(outcome.reasons, stage);
  if (how_much != explain::nothing && made.row && blind_to_prefixes(stage, hits))
    outcome.reasons.note = not_looked_up;
  return outcome;
}

bool dispatcher::state::blind_to_prefixes(infer_type stage, const prefix_hits* hits) const {
  return cache_aware() && stage != infer_type::decode && !(hits && hits->asked);
}

void dispatcher::state::predict(
  const role_chooser& chooser, candidate_table::row chosen, const decision_inputs& about,
  stage_outcome& of) const {
  static const auto& ttft = *find_load_metric("predicted_ttft");
  static const auto& tpot = *find_load_metric("predicted_tpot");
  auto finite = [&](const load_metric& metric) {
    auto ms = chooser.candidates().value(metric, chosen, about);
    return std::isfinite(ms) ? std::optional{ms} : std::nullopt;
  };
  if (of.stage != infer_type::decode && profile.ttft.size() > 0)
    of.reasons.predicted_ttft_ms = finite(ttft);
  if (of.stage != infer_type::prefill && profile.tpot.size() > 0)
    of.reasons.predicted_tpot_ms = finite(tpot);
}

void dispatcher::state::name_decision(placement_reasons& reasons, infer_type stage) const {
  reasons.policy = policy_name;
  reasons.stage = stage;
  reasons.view_version = view.version();
}

} // namespace llumnix
