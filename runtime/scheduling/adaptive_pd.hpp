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

/// Fills what is missing: for decode the first instance without prefill work, for prefill the first
/// other one without decodes, by id; where there is none, the one with the fewest decodes for
/// decode and the one with the least prefill work for prefill. By statuses alone, without the
/// account. Changes nothing that is set. Where all are busy both may be the same instance, as in
/// the reference: it then serves as the one for prefill.
void fill(reservations& reserved, const cluster_view& view);

} // namespace llumnix
