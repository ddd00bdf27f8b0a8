#pragma once

#include "config/cluster_config.hpp"
#include "runtime/base/result.hpp"
#include "runtime/cluster/cluster_view.hpp"
#include "runtime/scheduling/decision.hpp"

#include <memory>

namespace llumnix {

/// Everything a placement needs, as one value: the view, the local account of what was sent since
/// the last status (in lite mode: and has not ended), and the policy that config names. It has no
/// clock, actor or socket;
/// `scheduler_actor` feeds it, and so does each gateway for the time without a scheduler.
class dispatcher {
public:
  /// Fails with `invalid_argument` when the config names an unknown policy, metric or failover
  /// domain.
  static result<dispatcher> make(const scheduler_config& config);
  dispatcher(dispatcher&&) noexcept;
  dispatcher& operator=(dispatcher&&) noexcept;
  ~dispatcher();

  /// An instance appeared or changed what it is.
  void put(const instance_metadata& metadata, const node_life& life, std::string engine = {});
  /// A status arrived: through the gates into the view, and the account is reconciled
  /// (spec/cms.md 4.4).
  void update(const instance_status& status, unix_ms now);
  void set_state(const instance_id& id, instance_state state);
  /// The node ended or cannot be reached: its instances are no candidates, their account is
  /// forgotten.
  void lose(const node_life& life);
  void remove(const instance_id& id);

  /// Chooses an instance for a request and books it in the account. Same view, account and query:
  /// same answer. `explain` fills the reasons.
  placement place(const placement_query& query, unix_ms now, bool explain);
  /// The request ended or was refused: what the account still counts for it is taken back.
  void release(const std::string& request_id);

  const cluster_view& view() const;

private:
  struct state;
  explicit dispatcher(std::unique_ptr<state> state);
  std::unique_ptr<state> state_;
};

} // namespace llumnix
