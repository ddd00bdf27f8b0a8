#pragma once

#include "runtime/base/result.hpp"
#include "runtime/cluster/instance.hpp"

#include <functional>
#include <string_view>
#include <vector>

namespace llumnix {

/// What a store holds of the statuses it was asked for. One that cannot be read is in neither list:
/// it is as if it had not been written.
struct stored_statuses {
  std::vector<instance_status> found;
  std::vector<instance_id> missing; ///< instances without a status
};

/// What makes a record one that is not to be used, for the log; empty if nothing does. Whoever
/// reads a store leaves such records out, whole: whatever else they say cannot be relied on.
std::string_view flaw_of(const instance_metadata& metadata);
std::string_view flaw_of(const instance_status& status);

/// CMS STORE port: the mirror of what instances are and how loaded they are, and where those of
/// others are found.
///
/// Writes are fire-and-forget, coalesced and retried behind the port: nothing waits for a store,
/// and nothing stops without one. What is written last for an instance is what the store ends up
/// with once it can be reached.
///
/// Reads give each record under the id of its key. Records with a flaw are left out and logged, and
/// so is what there is beyond a bound. `done` is called exactly once, on whatever thread the store
/// likes, also when the store cannot be reached within its timeout.
class cms_store {
public:
  virtual ~cms_store() = default;
  virtual void put_metadata(const instance_metadata& metadata) = 0;
  /// The status as it was under way: the store gathers the recently waiting for its record.
  virtual void put_status(const instance_status& status) = 0;
  /// Deregisters: deletes both records, metadata first.
  virtual void remove(const instance_id& id) = 0;

  /// Every instance there is, ascending by id.
  virtual void read_metadata(std::function<void(result<std::vector<instance_metadata>>)> done) = 0;
  /// The statuses of these instances.
  virtual void read_statuses(
    std::vector<instance_id> instances, std::function<void(result<stored_statuses>)> done)
    = 0;
};

} // namespace llumnix
