#include "runtime/scheduling/dispatcher.hpp"

#include "runtime/base/log.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/cluster/foreign_instances.hpp"
#include "runtime/scheduling/role_choice.hpp"
#include "runtime/scheduling/wanted_roles.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <span>

namespace llumnix {

namespace {

constexpr std::string_view not_looked_up = "no cached prefix was looked up: the prompt came as a text "
                                           "or is too short, or no index answered";

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

struct dispatcher::state {
  state(const scheduler_config& knobs, placement_policy policy, latency_profile measured)
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

  std::optional<role_chooser>& of(infer_type role) {
    return choosers[static_cast<std::size_t>(role)];
  }
  bool local_account() const { return config.local_account || !config.full_mode; }
  bool cache_aware() const { return is_cache_aware(config); }
  bool predicts_progress() const { return config.predict_progress && config.full_mode; }

  inflight_load account(const instance_id& id) const {
    auto laid_down = given_accounts.find(id);
    return laid_down == given_accounts.end() ? ledger.inflight(id) : laid_down->second;
  }

  /// Brings the candidate tables up to what the view and the account say of an instance.
  void refresh(const instance_id& id) {
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

  /// What no status has shown in time counts no longer.
  void expire(unix_ms now) {
    for (auto& id : ledger.expire(now))
      refresh(id);
  }

  /// Another life of an instance. In lite mode that may be another node that speaks for the same
  /// engine.
  void forget_account(const instance_id& id) {
    if (config.full_mode)
      ledger.forget(id);
  }

  void forget_candidate(const instance_id& id) {
    for (auto& chooser : choosers)
      if (chooser)
        chooser->candidates().erase(id);
  }

  roles_present present() const {
    roles_present present{};
    for (auto role : all_roles)
      present[static_cast<std::size_t>(role)] = instances_of[static_cast<std::size_t>(role)] > 0;
    return present;
  }

  /// Counts an instance of a role, or takes it back.
  void count(const instance_view* known, int by) {
    if (known)
      if (auto role = parse_infer_type(known->metadata.instance_type))
        instances_of[static_cast<std::size_t>(*role)] += by;
  }

  void fill_reservations(unix_ms now) {
    if (!adaptive || reservations_given)
      return;
    auto before = reserved;
    fill(reserved, view, now, config.instance_staleness_s);
    if (reserved != before)
      show_reservations();
  }

  void show_reservations() {
    for (auto& [id, known] : view.instances())
      for (auto& chooser : choosers)
        if (chooser)
          chooser->candidates().reserve(id, reserved.of(id));
  }

  /// The engine knows of the prefixes it holds itself, the account also of those in a KV store: it
  /// says how much the waiting requests have to compute (spec/cms.md 4.4).
  void correct_waiting_prefills(const instance_id& id) {
    auto& status = view.find(id)->status;
    if (auto tokens = ledger.waiting_prefills(status))
      status.num_uncomputed_tokens_all_waiting_prefills = *tokens;
  }

  void learn(const instance_status& status) {
    if (steps.add(status.num_scheduled_prefill_tokens, status.step_duration))
      steps.fit();
  }

  const std::optional<step_coefficients>& step_model() const {
    return given_steps ? given_steps : steps.fitted();
  }

  decision_inputs inputs(
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

  /// Of one instance alone.
  candidate_table table_of(
    const instance_view& known, std::vector<metric_column> columns, const decision_inputs& about) const {
    auto& id = known.metadata.instance_id;
    candidate_table table{std::move(columns), &profile};
    if (auto laid_down = given.find(id); laid_down != given.end())
      table.give(id, laid_down->second);
    table.put(known, account(id));
    table.prepare(about);
    return table;
  }

  /// What the stages compare, each as it sees the instance: progress is predicted for prefills only.
  given_metrics predictions(
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

  stage_outcome choose(
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

  /// A decision on prefixes that knows of none, where metrics of 0 do not mean that all is cached.
  bool blind_to_prefixes(infer_type stage, const prefix_hits* hits) const {
    return cache_aware() && stage != infer_type::decode && !(hits && hits->asked);
  }

  /// What the profiles, where there are any, say of whoever was chosen.
  void predict(
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

  void name_decision(placement_reasons& reasons, infer_type stage) const {
    reasons.policy = policy_name;
    reasons.stage = stage;
    reasons.view_version = view.version();
  }

  scheduler_config config;
  latency_profile profile;
  cluster_view view;
  dispatch_ledger ledger;
  std::string policy_name;
  bool adaptive;
  std::array<std::optional<role_chooser>, 3> choosers; ///< by infer_type
  std::array<int, 3> instances_of{};                   ///< known instances, by infer_type
  reservations reserved;
  bool reservations_given = false; ///< what is missing stays so
  llumnix::step_model steps;

  std::map<instance_id, inflight_load> given_accounts;
  std::map<instance_id, given_metrics> given;
  std::optional<step_coefficients> given_steps;
};

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
