#include "runtime/scheduling/dispatcher.hpp"

#include "runtime/base/log.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/scheduling/policy_registry.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace llumnix {

namespace {

constexpr std::size_t considered_kept = 32; ///< instances of `placement_reasons::considered`
constexpr std::size_t dropped_kept = 32;    ///< entries of `placement_reasons::dropped`
constexpr std::size_t metrics_kept = 8;     ///< instances of `placement_reasons::metrics`

/// All that choosing for one role takes.
struct role_state {
  explicit role_state(role_policy made) : policy{std::move(made)}, candidates{policy.metrics} {}

  role_policy policy;
  candidate_table candidates;
  screening screened;
  selector_memory memory;
};

/// Who was chosen, and in which pass. Without a row nobody survived the last pass.
struct choice {
  std::optional<candidate_table::row> row;
  std::uint32_t pass = 1;
};

survivors survivors_of(const role_state& role, std::uint32_t pass) {
  return {role.candidates, role.screened.rejected, filters_of_pass(role.policy.filters, pass)};
}

choice choose_among(role_state& role, const placement_query& query, unix_ms now) {
  screen(role.policy.filters, role.candidates, query, now, role.screened);
  auto passes = query.exclude.empty() ? last_pass - 1 : last_pass;
  choice made;
  for (made.pass = 1; made.pass <= passes; ++made.pass) {
    made.row
      = choose(role.policy.pick, survivors_of(role, made.pass), query.request_id, role.memory);
    if (made.row)
      return made;
  }
  made.pass = passes;
  return made;
}

void explain_drops(const role_state& role, std::uint32_t pass, placement_reasons& into) {
  auto& filters = role.policy.filters;
  auto taking_part = filters_of_pass(filters, pass);
  for (std::size_t row = 0; row < role.candidates.size(); ++row) {
    auto failed = role.screened.rejected[row] & taking_part;
    for (std::size_t i = 0; failed != 0; ++i, failed >>= 1) {
      if ((failed & 1) == 0 || ++into.dropped_total > dropped_kept)
        continue;
      auto& drop = into.dropped.emplace_back();
      drop.instance = role.candidates.ids()[row];
      drop.pass = pass;
      drop.filter = name_of(filters[i]);
      if (auto* metric = std::get_if<metric_filter>(&filters[i])) {
        drop.metric = role.policy.metrics[metric->slot]->name;
        drop.value = role.candidates.values(metric->slot)[row];
        drop.threshold = metric->threshold;
      }
    }
  }
}

void explain_ranking(role_state& role, std::uint32_t pass, placement_reasons& into) {
  auto* by = std::get_if<best_metric>(&role.policy.pick);
  if (!by)
    return;
  for (auto row : best_of(
         *by, survivors_of(role, pass), metrics_kept, role.memory.ranking, role.memory.first)) {
    auto& [id, values] = into.metrics.emplace_back();
    id = role.candidates.ids()[row];
    for (auto slot : by->slots)
      values.emplace_back(role.policy.metrics[slot]->name, role.candidates.values(slot)[row]);
  }
}

std::string sentence(const role_state& role, infer_type stage, const choice& made) {
  if (role.candidates.size() == 0)
    return fmt::format("no {} instance is known", to_string(stage));
  if (!made.row)
    return fmt::format("none of {} candidates can take work", role.candidates.size());
  auto text
    = fmt::format("{} chosen by {}", role.candidates.ids()[*made.row], name_of(role.policy.pick));
  if (made.pass == 2)
    text += "; every healthy candidate is above the load limit or excluded";
  else if (made.pass == last_pass)
    text += "; only excluded candidates are healthy";
  return text;
}

/// Before the request is booked, so that the values are those that were compared.
placement_reasons explain(role_state& role, infer_type stage, const choice& made) {
  placement_reasons reasons;
  reasons.fallback = made.row && made.pass > 1;
  const auto& ids = role.candidates.ids();
  reasons.considered.assign(ids.begin(), ids.begin() + std::min(ids.size(), considered_kept));
  reasons.considered_total = static_cast<std::uint32_t>(ids.size());
  for (std::uint32_t pass = 1; pass <= made.pass; ++pass)
    explain_drops(role, pass, reasons);
  explain_ranking(role, made.pass, reasons);
  reasons.note = sentence(role, stage, made);
  return reasons;
}

dispatched_request to_dispatch(const placement_query& query, infer_type stage) {
  constexpr std::uint32_t most = std::numeric_limits<std::int32_t>::max();
  auto tokens = static_cast<std::int32_t>(std::min(query.prompt_tokens, most));
  return {query.request_id, stage, tokens, tokens};
}

} // namespace

struct dispatcher::state {
  state(const scheduler_config& config, placement_policy policy)
    : local_account{config.local_account || !config.full_mode},
      ledger{
        config.full_mode ? dispatch_ledger{config.local_account_staleness_s}
                         : dispatch_ledger::until_released()},
      policy_name{std::move(policy.name)},
      roles{
        role_state{std::move(policy.roles[0])}, role_state{std::move(policy.roles[1])},
        role_state{std::move(policy.roles[2])}} {}

  role_state& of(infer_type role) { return roles[static_cast<std::size_t>(role)]; }

  /// Brings the candidate tables up to what the view and the account say of an instance.
  void refresh(const instance_id& id) {
    if (auto* known = view.find(id))
      if (auto role = parse_infer_type(known->metadata.instance_type))
        of(*role).candidates.put(*known, ledger.inflight(id));
  }

  void forget_candidate(const instance_id& id) {
    for (auto& role : roles)
      role.candidates.erase(id);
  }

  bool local_account;
  cluster_view view;
  dispatch_ledger ledger;
  std::string policy_name;
  std::array<role_state, 3> roles;
};

result<dispatcher> dispatcher::make(const scheduler_config& config) {
  auto policy = make_policy(config);
  if (!policy)
    return std::move(policy).error();
  return dispatcher{std::make_unique<state>(config, std::move(*policy))};
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
  if (!state_->view.put(metadata, life, std::move(engine)))
    return;
  if (!same_life)
    state_->ledger.forget(id);
  if (!same_role) {
    state_->forget_candidate(id);
    if (!parse_infer_type(metadata.instance_type))
      log::scheduler.warn(
        "unknown-role", "{} gets no work: its instance type is \"{}\"", id, metadata.instance_type);
  }
  state_->refresh(id);
}

void dispatcher::update(const instance_status& status, unix_ms now) {
  auto effect = state_->view.update(status);
  if (effect == status_effect::ignored)
    return;
  if (effect == status_effect::replaced)
    state_->ledger.reconcile(status, now);
  state_->refresh(status.instance_id);
}

void dispatcher::set_state(const instance_id& id, instance_state state) {
  state_->view.set_state(id, state);
  state_->refresh(id);
}

void dispatcher::lose(const node_life& life) {
  state_->view.lose(life);
  for (auto& [id, known] : state_->view.instances())
    if (known.life.node == life.node && known.life.incarnation <= life.incarnation) {
      state_->ledger.forget(id);
      state_->refresh(id);
    }
}

void dispatcher::remove(const instance_id& id) {
  state_->ledger.forget(id);
  state_->forget_candidate(id);
  state_->view.remove(id);
}

placement dispatcher::place(const placement_query& query, unix_ms now, bool explain_it) {
  constexpr auto stage = infer_type::neutral;
  auto& role = state_->of(stage);
  auto made = choose_among(role, query, now);
  placement placed;
  if (made.row)
    placed.instance = role.candidates.ids()[*made.row];
  if (explain_it) {
    placed.reasons = explain(role, stage, made);
    placed.reasons.policy = state_->policy_name;
    placed.reasons.view_version = state_->view.version();
  }
  if (
    made.row && state_->local_account
    && state_->ledger.book(placed.instance, to_dispatch(query, stage), now))
    state_->refresh(placed.instance);
  return placed;
}

void dispatcher::release(const std::string& request_id) {
  for (auto& id : state_->ledger.release(request_id))
    state_->refresh(id);
}

const cluster_view& dispatcher::view() const {
  return state_->view;
}

} // namespace llumnix
