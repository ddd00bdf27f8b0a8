#pragma once

#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/scheduling/dispatcher.hpp"
#include "runtime/scheduling/policy_registry.hpp"
#include "runtime/scheduling/role_choice.hpp"
#include "runtime/scheduling/wanted_roles.hpp"

#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// What a `dispatcher` knows, and how one role of a request is decided on it. Nobody else sees it.
struct dispatcher::state {
  state(const scheduler_config& knobs, placement_policy policy, latency_profile measured);

  std::optional<role_chooser>& of(infer_type role) {
    return choosers[static_cast<std::size_t>(role)];
  }
  bool local_account() const { return config.local_account || !config.full_mode; }
  bool cache_aware() const { return is_cache_aware(config); }
  bool predicts_progress() const { return config.predict_progress && config.full_mode; }

  inflight_load account(const instance_id& id) const;

  /// Brings the candidate tables up to what the view and the account say of an instance.
  void refresh(const instance_id& id);

  /// What no status has shown in time counts no longer.
  void expire(unix_ms now);

  /// Another life of an instance. In lite mode that may be another node that speaks for the same
  /// engine.
  void forget_account(const instance_id& id);

  void forget_candidate(const instance_id& id);
  roles_present present() const;

  /// Counts an instance of a role, or takes it back.
  void count(const instance_view* known, int by);

  void fill_reservations(unix_ms now);
  void show_reservations();

  /// The engine knows of the prefixes it holds itself, the account also of those in a KV store: it
  /// says how much the waiting requests have to compute (spec/cms.md 4.4).
  void correct_waiting_prefills(const instance_id& id);

  void learn(const instance_status& status);
  const std::optional<step_coefficients>& step_model() const;

  decision_inputs inputs(
    const placement_query* query, const prefix_hits* hits, infer_type role, unix_ms now) const;

  /// Of one instance alone.
  candidate_table table_of(
    const instance_view& known, std::vector<metric_column> columns,
    const decision_inputs& about) const;

  /// What the stages compare, each as it sees the instance: progress is predicted for prefills
  /// only.
  given_metrics predictions(
    const instance_view& known, const placement_query& query, const prefix_hits* hits,
    unix_ms now) const;

  stage_outcome choose(
    infer_type stage, const placement_query& query, const prefix_hits* hits, unix_ms now,
    explain how_much);

  /// A decision on prefixes that knows of none, where metrics of 0 do not mean that all is cached.
  bool blind_to_prefixes(infer_type stage, const prefix_hits* hits) const;

  /// What the profiles, where there are any, say of whoever was chosen.
  void predict(
    const role_chooser& chooser, candidate_table::row chosen, const decision_inputs& about,
    stage_outcome& of) const;

  void name_decision(placement_reasons& reasons, infer_type stage) const;

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

} // namespace llumnix
