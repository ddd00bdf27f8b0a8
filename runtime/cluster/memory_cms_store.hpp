#pragma once

#include "runtime/cluster/cms_store.hpp"

#include <map>

namespace llumnix {

/// CMS STORE in memory: for clusters that need no mirror, for tests and for the simulation. Records
/// do not expire. It belongs to one thread: `read_all` answers before it returns, on its caller's.
class memory_cms_store final : public cms_store {
public:
  void put_metadata(const instance_metadata& metadata) override;
  void put_status(const instance_status& status) override;
  void remove(const instance_id& id) override;
  /// Every instance with metadata, ascending by id; a status alone tells nobody what it is of.
  void read_all(std::function<void(result<std::vector<stored_instance>>)> done) override;

private:
  std::map<instance_id, instance_metadata> metadata_;
  std::map<instance_id, instance_status> statuses_;
};

} // namespace llumnix
