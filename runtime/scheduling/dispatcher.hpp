#pragma once

#include "config/cluster_config.hpp"
#include "runtime/base/result.hpp"
#include "runtime/cluster/cluster_view.hpp"
#include "runtime/scheduling/adaptive_pd.hpp"
#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/decision_snapshot.hpp"
#include "runtime/scheduling/instance_gauges.hpp"
#include "runtime/scheduling/latency_profile.hpp"
#include "runtime/scheduling/load_metrics.hpp"
#include "runtime/scheduling/prefix_hits.hpp"
#include "runtime/scheduling/step_model.hpp"

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix {

/// How much a decision tells of itself.
enum class explain : std::uint8_t { nothing, briefly, in_full };

/// One role that a decision tried.
struct stage_outcome {
  infer_type stage = infer_type::neutral;
  instance_id instance;               ///< empty: nobody
  placement_reasons reasons;          ///< unless nothing was to be told
  std::optional<stage_report> report; ///< in full
};

/// Whether a status brings a profiled step that the one before it did not have (spec/cms.md 2.2).
bool brings_sample(const instance_view* before, const instance_status& status);

/// A decision over all roles of a request.
struct scheduled {
  bool placed = false;               ///< every role has an instance, and they are booked
  std::vector<stage_outcome> stages; ///< those tried, in order: prefill before decode
  std::string note;                  ///< why none was tried
};

/// What a request adds to the account of the instance that is to do `stage` of it; `hit_tokens` of
/// its prompt are cached there.
dispatched_request
to_dispatch(const placement_query& query, infer_type stage, std::uint32_t hit_tokens);

/// Everything a placement needs, as one value: the view, the local account of what was sent since
/// the last status (in lite mode: and has not ended), and the policy that config names. It has no
/// clock, actor or socket; `scheduler_actor` feeds it, and so does each gateway for the time
/// without a scheduler.
class dispatcher {
public:
  /// Fails with `invalid_argument` when the config names an unknown policy, metric or failover
  /// domain. `profile`: measured times, for policies that predict; they place nothing without.
  static result<dispatcher> make(const scheduler_config& config, latency_profile profile = {});
  dispatcher(dispatcher&&) noexcept;
  dispatcher& operator=(dispatcher&&) noexcept;
  ~dispatcher();

  /// An instance appeared or changed what it is.
  void put(const instance_metadata& metadata, const node_life& life, std::string engine = {});
  /// A status arrived: through the gates into the view, and the account is reconciled
  /// (spec/cms.md 4.4). With every status and every decision, what no status has shown in time is
  /// no longer counted, wherever it was sent.
  void update(const instance_status& status, unix_ms now);
  void set_state(const instance_id& id, instance_state state);
  /// The node ended or cannot be reached: its instances are no candidates. Their account is
  /// forgotten, but not in lite mode: an engine behind HTTP runs on, and another node may speak for
  /// it; what ran on others is released one by one.
  void lose(const node_life& life);
  void remove(const instance_id& id);

  /// Chooses an instance for each role of a request (spec/scheduling.md 4) and books them in the
  /// account, all or none. `hits`: where its prefix is cached; null: nobody was asked. Same view,
  /// account, query, hits and former choices: same answer.
  scheduled
  schedule(const placement_query& query, const prefix_hits* hits, unix_ms now, explain how_much);
  /// `schedule` for a request of ours: one instance, or with `pd_batch` one for each of the two
  /// roles. Where a role finds nobody its reasons are the answer's.
  placement place(const placement_query& query, const prefix_hits* hits, unix_ms now, bool explain);
  placement place(const placement_query& query, unix_ms now, bool explain) {
    return place(query, nullptr, now, explain);
  }
  /// Whether the policy knows the roles of such requests; where not, nobody will ever take one.
  bool places(serving_mode mode) const;
  /// The request ended or was refused: what the account still counts for it is taken back.
  void release(const std::string& request_id);

  /// What the account counts now, by instance and request.
  std::vector<std::pair<instance_id, dispatched_request>> counted() const;

  const cluster_view& view() const;

  // What scenes lay down and show (spec/surface.md 5).

  /// Counts a dispatch of earlier (spec/cms.md 4.2); `found`: a status has shown it.
  void
  book(const instance_id& id, const dispatched_request& request, unix_ms dispatched, bool found);
  inflight_load account(const instance_id& id) const;
  /// How loaded an instance is now, without any request in mind; nothing where it is not known.
  instance_load load(const instance_id& id) const;
  /// What dashboards show of it; nothing while it has not reported.
  std::optional<instance_gauges> gauges(const instance_id& id) const;
  /// Puts an account in the place of the one that follows from bookings.
  void give_account(const instance_id& id, const inflight_load& account);
  /// Values of metrics that are not to be computed.
  void give(const instance_id& id, const given_metrics& values);
  /// The requests of an instance one by one.
  void list_requests(const instance_id& id, request_lists lists);
  /// What a fixed preference chose last for a role.
  void remember(infer_type role, const instance_id& last);
  /// Who took the last request of a session, for a role; nothing without `session_affinity`.
  void remember_session(infer_type role, const std::string& session, const instance_id& last);
  /// The LoRAs that are active at an instance, ordered by name.
  void list_adapters(const instance_id& id, std::vector<std::string> adapters);
  /// Reservations as they are to be: what is missing stays so.
  void reserve(const reservations& reserved);
  /// The reservations of adaptive PD, those that are missing filled by what is known now.
  const reservations& reserved(unix_ms now);
  /// How long prefill steps take, in place of what is learned from statuses.
  void set_step_model(const step_coefficients& model);
  const std::optional<step_coefficients>& step_model() const;
  /// What `schedule` would look at now.
  decision_snapshot snapshot(const placement_query& query, const prefix_hits* hits, unix_ms now);
  /// Every metric of an instance, or `only` those, for the request if there is one.
  std::vector<std::pair<std::string, float>> metrics(
    const instance_id& id, const placement_query* query, const prefix_hits* hits, unix_ms now,
    std::span<const std::string_view> only = {});

private:
  struct state;
  explicit dispatcher(std::unique_ptr<state> state);
  std::unique_ptr<state> state_;
};

} // namespace llumnix
