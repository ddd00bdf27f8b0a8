#pragma once

#include "runtime/cluster/cms_store.hpp"

#include <map>
#include <utility>

namespace llumnix {

/// CMS STORE in memory, for tests and the simulation: keeps the newest record of each kind, answers
/// at once, and can be taken away. What another writer would put into a store is put there by its
/// own members.
class memory_cms_store final : public cms_store {
public:
  void put_metadata(const instance_metadata& x) override { metadata[x.instance_id] = x; }
  void put_status(const instance_status& x) override { statuses[x.instance_id] = x; }
  void remove(const instance_id& id) override {
    metadata.erase(id);
    statuses.erase(id);
    removed.push_back(id);
  }

  void read_metadata(std::function<void(result<std::vector<instance_metadata>>)> done) override {
    ++metadata_reads;
    if (!reachable)
      return done(unreachable());
    std::vector<instance_metadata> found;
    for (const auto& [id, x] : metadata)
      if (flaw_of(x).empty())
        found.push_back(x);
    done(std::move(found));
  }
  void read_statuses(
    std::vector<instance_id> instances,
    std::function<void(result<stored_statuses>)> done) override {
    ++status_reads;
    asked = std::move(instances);
    if (!reachable)
      return done(unreachable());
    stored_statuses found;
    for (const auto& id : asked)
      if (auto known = statuses.find(id); known == statuses.end())
        found.missing.push_back(id);
      else if (flaw_of(known->second).empty())
        found.found.push_back(known->second);
    done(std::move(found));
  }

  std::map<instance_id, instance_metadata> metadata;
  std::map<instance_id, instance_status> statuses;
  std::vector<instance_id> removed; ///< by `remove`, in order
  std::vector<instance_id> asked;   ///< by the last reading of statuses
  std::size_t metadata_reads = 0;   ///< so far
  std::size_t status_reads = 0;     ///< so far
  bool reachable = true;

private:
  static error unreachable() { return {errc::unreachable, "the store was taken away"}; }
};

} // namespace llumnix
