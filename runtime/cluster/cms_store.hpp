#pragma once

#include "runtime/base/result.hpp"
#include "runtime/cluster/instance.hpp"

#include <functional>
#include <vector>

namespace llumnix {

/// An instance as a store holds it. `has_status` is false when only metadata was found.
struct stored_instance {
  instance_metadata metadata;
  instance_status status;
  bool has_status = false;
};

/// CMS STORE port: the mirror of what instances are and how loaded they are. Writes are
/// fire-and-forget, coalesced and retried behind the port: nothing waits for a store, and nothing
/// stops without one. What is written last for an instance is what the store ends up with once it
/// can be reached.
class cms_store {
public:
  virtual ~cms_store() = default;
  virtual void put_metadata(const instance_metadata& metadata) = 0;
  /// The status as it was under way: the store gathers the recently waiting for its record.
  virtual void put_status(const instance_status& status) = 0;
  /// Deregisters: deletes both records, metadata first.
  virtual void remove(const instance_id& id) = 0;
  /// Reads every record, once. Records that cannot be read are left out and logged; `done` is
  /// called exactly once, on a thread of the store's own, also when the store cannot be reached
  /// within its timeout.
  virtual void read_all(std::function<void(result<std::vector<stored_instance>>)> done) = 0;
};

} // namespace llumnix
