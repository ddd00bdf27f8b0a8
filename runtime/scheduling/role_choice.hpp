#pragma once

#include "runtime/scheduling/policy_registry.hpp"
#include "runtime/scheduling/session_memory.hpp"

#include <cstdint>
#include <optional>
#include <span>

namespace llumnix {

/// Who was chosen for a role, and in which pass. Without a row nobody survived the last pass.
struct role_choice {
  std::optional<candidate_table::row> row;
  std::uint32_t pass = 1;
  bool of_session = false; ///< it took the last request of the session; no selector was asked
};

/// All that choosing for one role takes: its policy, its candidates, and what its selector
/// remembers.
class role_chooser {
public:
  /// The profile, if any, outlives the chooser.
  role_chooser(role_policy policy, const latency_profile* profile)
    : policy_{std::move(policy)},
      candidates_{policy_.metrics, profile},
      sessions_{policy_.sessions_max} {}

  candidate_table& candidates() { return candidates_; }
  const candidate_table& candidates() const { return candidates_; }
  /// Whether instances of any role are candidates.
  bool any_role() const { return policy_.any_role; }
  /// What a fixed preference goes on choosing.
  void remember(const instance_id& last) { memory_.last = last; }
  /// Whom a selector that remembers chose last.
  const instance_id& last() const { return memory_.last; }
  /// Who took the last request of a session, where sessions count.
  void remember_session(const std::string& session, const instance_id& last) {
    sessions_.remember(session, last);
  }
  /// The same; null where nothing is known.
  const instance_id* last_of_session(const std::string& session) const {
    return session.empty() ? nullptr : sessions_.last_of(session);
  }

  /// Chooses among the candidates (spec/scheduling.md 3.1). Fills the columns that depend on the
  /// request, and keeps what `reasons` and `report` tell of. The request's session, where that
  /// counts, goes before the policy's selector, not before its filters.
  role_choice choose(const placement_query& query, const decision_inputs& about);
  /// Of the choice just made, before anything else changes the candidates: for the record.
  placement_reasons reasons(const role_choice& made);
  /// The same in full, as large as the cluster.
  stage_report report(const role_choice& made) const;

private:
  survivors survivors_of(std::uint32_t pass) const;
  role_choice choose_among_survivors(const placement_query& query);
  std::optional<candidate_table::row> of_session(const std::string& session) const;
  void set_limits(const placement_wishes& wishes);
  void explain_drops(std::uint32_t pass, placement_reasons& into) const;
  void explain_ranking(const role_choice& made, placement_reasons& into);
  void explain_choice(const role_choice& made, stage_report& into) const;
  decisive_fact
  what_decided(const role_choice& made, std::span<const candidate_table::row> best) const;

  role_policy policy_;
  candidate_table candidates_;
  screening screened_;
  selector_memory memory_;
  session_memory sessions_;
};

} // namespace llumnix
