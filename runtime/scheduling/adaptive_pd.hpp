#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"

#include <optional>

namespace llumnix {

/// The two instances that adaptive PD keeps for one role each (spec/cms.md 5); empty: none yet.
struct reservations {
  instance_id prefill;
  instance_id decode;

  bool complete() const { return !prefill.empty() && !decode.empty(); }
  std::optional<infer_type> of(const instance_id& id) const;
  /// The instance is gone, and with it what it was reserved for.
  void forget(const instance_id& id);
  friend bool operator==(const reservations&, const reservations&) = default;
};

/// Takes its role from an instance that takes no work any more, and fills what is missing: for
/// decode the first instance without prefill work, for prefill the first other one without decodes,
/// by id; where there is none, another one with the fewest decodes for decode and one with the
/// least prefill work for prefill. By statuses alone, without the account. Otherwise it changes
/// nothing that is set.
///
/// Only instances that are ready, schedulable and not older than `staleness_s` are reserved, and
/// none for both roles (spec/cms.md, weakness 7).
void fill(
  reservations& reserved, const cluster_view& view, unix_ms now, std::uint32_t staleness_s);

} // namespace llumnix
