#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/cluster/cms_store.hpp"

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

/// What a reading of the store changed in a view.
struct pull_changes {
  std::vector<instance_id> put; ///< new ones, and those of which something but the load changed
  std::vector<instance_id> statuses; ///< those with a newer status
  std::vector<instance_id> removed;
  bool empty() const { return put.empty() && statuses.empty() && removed.empty(); }
};

/// Instances that only a store tells of, and what each reading of it means for a view
/// (spec/cms.md 2): a plain value. Instances that a node of ours has are left alone, whatever the
/// store says.
///
/// An instance is in the view once it has metadata and a status, and leaves it with its metadata.
/// It is `ready`; `stopped` while the store has no status of it, so that it takes no work, fails
/// nobody beside it, and what was sent there stays in the accounts of those who place requests; and
/// `lost` where it has no HTTP endpoint: then it is one of ours, whose node is not there (yet).
class foreign_instances {
public:
  /// All metadata there is. What changed in it takes effect; a new `utc_create` is a new start, and
  /// the next status is taken over whatever its numbers.
  pull_changes take_metadata(std::vector<instance_metadata> found, cluster_view& view);
  /// The statuses of `ids`, through the gates. One that was missing for a while may come back with
  /// numbers that are not above the old ones: then the instance was born again meanwhile.
  pull_changes take_statuses(stored_statuses found, cluster_view& view, unix_ms now);
  /// An instance of ours was forgotten: a record of it that is still in the store, or that another
  /// node of ours still writes, does not bring it back.
  void disown(const instance_metadata& metadata);

  /// Whose statuses are to be read, ascending.
  std::vector<instance_id> ids(const cluster_view& view) const;
  /// Whether there is anybody.
  bool any(const cluster_view& view) const;

private:
  struct record {
    instance_metadata metadata;
    bool status_missing = false;
    using version = std::optional<std::pair<std::int64_t, std::int32_t>>; ///< a status: time, number
    version last_read;
    version of_earlier_life; ///< the last one of the life before: it may still be in the store
  };
  void refresh(record& known, instance_metadata now_known, cluster_view& view, pull_changes& out);
  void take_status(const instance_status& status, cluster_view& view, unix_ms now, pull_changes&);
  bool put(const record& known, const node_life& life, cluster_view& view);

  std::map<instance_id, record> records_;
  std::map<instance_id, double> disowned_; ///< utc_create of the record that is not to be read
};

/// Where an instance takes requests over HTTP; nothing if it does not say.
std::optional<std::string> http_endpoint(const instance_metadata& metadata);
/// Whether it says.
bool has_http_endpoint(const instance_metadata& metadata);

} // namespace llumnix
