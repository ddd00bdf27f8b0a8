#include "runtime/scheduling/dispatcher.hpp"

#include "runtime/base/log.hpp"
#include "runtime/cluster/foreign_instances.hpp"
#include "runtime/scheduling/dispatcher_state.hpp"

#include <algorithm>
#include <limits>
#include <span>

namespace llumnix {

namespace {

/// As candidates are judged (`state_filter`).
bool can_reach(const instance_view& known, reach by) {
  return by == reach::llumlet ? !known.foreign() : has_http_endpoint(known.metadata);
}

} // namespace

dispatched_request
to_dispatch(const placement_query& query, infer_type stage, std::uint32_t hit_tokens) {
  constexpr std::uint32_t most = std::numeric_limits<std::int32_t>::max();
  auto tokens = static_cast<std::int32_t>(std::min(query.prompt_tokens, most));
  auto hit = static_cast<std::int32_t>(std::min(hit_tokens, most));
  auto uncomputed = tokens - std::min(hit, tokens);
  return {query.request_id, stage, tokens, uncomputed, query.wishes.priority};
}

bool brings_sample(const instance_view* before, const instance_status& status) {
  return status.profiling_id != -1
         && (!before || !before->has_status || status.profiling_id > before->status.profiling_id);
}

result<dispatcher> dispatcher::make(const scheduler_config& config, latency_profile profile) {
  auto policy = make_policy(config);
  if (!policy)
    return std::move(policy).error();
  return dispatcher{std::make_unique<state>(config, std::move(*policy), std::move(profile))};
}

dispatcher::dispatcher(std::unique_ptr<state> state) : state_{std::move(state)} {}
dispatcher::dispatcher(dispatcher&&) noexcept = default;
dispatcher& dispatcher::operator=(dispatcher&&) noexcept = default;
dispatcher::~dispatcher() = default;

void dispatcher::put(const instance_metadata& metadata, const node_life& life, std::string engine) {
  auto& id = metadata.instance_id;
  auto* known = state_->view.find(id);
  bool same_life = known && known->life == life;
  bool same_role = known && known->metadata.instance_type == metadata.instance_type;
  state_->count(known, -1);
  bool taken = state_->view.put(metadata, life, std::move(engine));
  state_->count(state_->view.find(id), 1);
  if (!taken)
    return;
  if (!same_life)
    state_->forget_account(id);
  if (!same_role) {
    state_->forget_candidate(id);
    if (!parse_infer_type(metadata.instance_type))
      log::scheduler.warn(
        "unknown-role", "{} gets no work: its instance type is \"{}\"", id, metadata.instance_type);
  }
  state_->refresh(id);
}

void dispatcher::update(const instance_status& status, unix_ms now) {
  auto& id = status.instance_id;
  auto* known = state_->view.find(id);
  bool sampled = state_->predicts_progress() && known
                 && known->metadata.instance_type == to_string(infer_type::prefill)
                 && brings_sample(known, status);
  auto effect = state_->view.update(status);
  if (effect == status_effect::ignored)
    return;
  if (effect == status_effect::replaced) {
    state_->ledger.reconcile(status, now);
    if (state_->cache_aware() && state_->config.full_mode && state_->local_account())
      state_->correct_waiting_prefills(id);
    if (sampled)
      state_->learn(status);
  }
  state_->refresh(id);
  state_->expire(now);
}

void dispatcher::set_state(const instance_id& id, instance_state state) {
  state_->view.set_state(id, state);
  state_->refresh(id);
}

void dispatcher::lose(const node_life& life) {
  state_->view.lose(life);
  for (auto& [id, known] : state_->view.instances())
    if (known.life.node == life.node && known.life.incarnation <= life.incarnation) {
      state_->forget_account(id);
      state_->refresh(id);
    }
}

void dispatcher::remove(const instance_id& id) {
  state_->count(state_->view.find(id), -1);
  state_->ledger.forget(id);
  state_->reserved.forget(id);
  state_->forget_candidate(id);
  state_->view.remove(id);
}

scheduled dispatcher::schedule(
  const placement_query& query, const prefix_hits* hits, unix_ms now, explain how_much) {
  state_->expire(now);
  state_->fill_reservations(now);
  scheduled answer;
  auto present = state_->present();
  auto wanted = roles_wanted(query, present);
  if (wanted.empty())
    answer.note = no_role(query, present);
  for (auto stage : wanted) {
    if (state_->of(stage))
      answer.stages.push_back(state_->choose(stage, query, hits, now, how_much));
    else
      answer.note
        = fmt::format("policy {} places no {} requests", state_->policy_name, to_string(stage));
  }
  auto nobody = [](const stage_outcome& x) { return x.instance.empty(); };
  answer.placed = answer.note.empty() && std::ranges::none_of(answer.stages, nobody);
  if (!answer.placed || !state_->local_account())
    return answer;
  for (auto& [stage, instance, reasons, report] : answer.stages) {
    auto hit = state_->cache_aware() && hits ? hits->hit_tokens(instance) : 0;
    if (state_->ledger.book(instance, to_dispatch(query, stage, hit), now))
      state_->refresh(instance);
  }
  return answer;
}

bool dispatcher::places(serving_mode mode) const {
  auto knows = [&](infer_type role) { return state_->of(role).has_value(); };
  return mode == serving_mode::neutral ? knows(infer_type::neutral)
                                       : knows(infer_type::prefill) && knows(infer_type::decode);
}

placement dispatcher::place(
  const placement_query& query, const prefix_hits* hits, unix_ms now, bool explain_it) {
  auto decided = schedule(query, hits, now, explain_it ? explain::briefly : explain::nothing);
  placement answer;
  if (decided.stages.empty()) {
    state_->name_decision(
      answer.reasons, query.mode == serving_mode::neutral ? infer_type::neutral : query.stage);
    answer.reasons.note = std::move(decided.note);
    return answer;
  }
  auto nobody
    = std::ranges::find_if(decided.stages, [](const auto& x) { return x.instance.empty(); });
  auto& told = nobody == decided.stages.end() ? decided.stages.front() : *nobody;
  if (explain_it)
    answer.reasons = std::move(told.reasons);
  if (!decided.placed)
    return answer;
  answer.instance = std::move(told.instance);
  if (auto& last = decided.stages.back(); &last != &told) {
    answer.decode = std::move(last.instance);
    if (explain_it)
      answer.decode_reasons = std::move(last.reasons);
  }
  return answer;
}

void dispatcher::release(const std::string& request_id) {
  for (auto& id : state_->ledger.release(request_id))
    state_->refresh(id);
}

std::vector<std::pair<instance_id, dispatched_request>> dispatcher::counted() const {
  return state_->ledger.counted();
}

const cluster_view& dispatcher::view() const {
  return state_->view;
}

void dispatcher::book(
  const instance_id& id, const dispatched_request& request, unix_ms dispatched, bool found) {
  if (state_->local_account() && state_->ledger.book(id, request, dispatched, found))
    state_->refresh(id);
}

inflight_load dispatcher::account(const instance_id& id) const {
  return state_->account(id);
}

instance_load dispatcher::load(const instance_id& id) const {
  auto* known = state_->view.find(id);
  return known ? load_of(*known, state_->account(id)) : instance_load{};
}

std::optional<instance_gauges> dispatcher::gauges(const instance_id& id) const {
  auto* known = state_->view.find(id);
  if (!known || !known->has_status)
    return std::nullopt;
  return gauges_of(*known, state_->account(id));
}

void dispatcher::give_account(const instance_id& id, const inflight_load& account) {
  state_->given_accounts[id] = account;
  state_->refresh(id);
}

void dispatcher::give(const instance_id& id, const given_metrics& values) {
  state_->given[id] = values;
  for (auto& chooser : state_->choosers)
    if (chooser)
      chooser->candidates().give(id, values);
}

void dispatcher::list_requests(const instance_id& id, request_lists lists) {
  if (auto* known = state_->view.find(id)) {
    known->requests = std::make_shared<const request_lists>(std::move(lists));
    state_->refresh(id);
  }
}

void dispatcher::remember(infer_type role, const instance_id& last) {
  if (auto& chooser = state_->of(role))
    chooser->remember(last);
}

void dispatcher::remember_session(
  infer_type role, const std::string& session, const instance_id& last) {
  if (auto& chooser = state_->of(role))
    chooser->remember_session(session, last);
}

void dispatcher::list_adapters(const instance_id& id, std::vector<std::string> adapters) {
  if (auto* known = state_->view.find(id)) {
    known->status.adapters = std::move(adapters);
    state_->refresh(id);
  }
}

void dispatcher::reserve(const reservations& reserved) {
  state_->reserved = reserved;
  state_->reservations_given = true;
  state_->show_reservations();
}

const reservations& dispatcher::reserved(unix_ms now) {
  state_->fill_reservations(now);
  return state_->reserved;
}

void dispatcher::set_step_model(const step_coefficients& model) {
  state_->given_steps = model;
}

const std::optional<step_coefficients>& dispatcher::step_model() const {
  return state_->step_model();
}

decision_snapshot
dispatcher::snapshot(const placement_query& query, const prefix_hits* hits, unix_ms now) {
  state_->expire(now);
  state_->fill_reservations(now);
  decision_snapshot seen{
    .config = state_->config,
    .now = now,
    .query = query,
    .hits = hits && hits->asked ? std::optional{*hits} : std::nullopt,
    .instances = {},
    .reserved = state_->reserved,
    .step_model = state_->step_model()};
  bool predicts = state_->config.policy == "slo";
  for (auto& [id, known] : state_->view.instances()) {
    auto& written = seen.instances.emplace_back();
    written.metadata = known.metadata;
    written.status = known.status;
    written.reported = known.has_status;
    written.state = known.state;
    written.reachable = can_reach(known, query.by);
    written.account = state_->account(id);
    if (predicts)
      written.predicted = state_->predictions(known, query, hits, now);
  }
  for (auto role : all_roles)
    if (auto& chooser = state_->of(role)) {
      auto at = static_cast<std::size_t>(role);
      seen.last[at] = chooser->last();
      if (auto* last = chooser->last_of_session(query.wishes.session))
        seen.session_last[at] = *last;
    }
  return seen;
}

std::vector<std::pair<std::string, float>> dispatcher::metrics(
  const instance_id& id, const placement_query* query, const prefix_hits* hits, unix_ms now,
  std::span<const std::string_view> only) {
  auto* known = state_->view.find(id);
  if (!known)
    return {};
  auto mode = state_->config.full_mode ? scheduling_mode::full : scheduling_mode::lite;
  std::vector<metric_column> columns;
  for (auto& metric : load_metrics())
    if (metric.mode == mode && (only.empty() || std::ranges::count(only, metric.name) > 0))
      columns.push_back({&metric, true});
  auto role = parse_infer_type(known->metadata.instance_type).value_or(infer_type::neutral);
  auto table
    = state_->table_of(*known, std::move(columns), state_->inputs(query, hits, role, now));
  std::vector<std::pair<std::string, float>> values;
  for (std::size_t slot = 0; slot < table.metrics().size(); ++slot)
    values.emplace_back(table.metrics()[slot].metric->name, table.values(slot)[0]);
  return values;
}

} // namespace llumnix
