#include "runtime/cluster/memory_cms_store.hpp"

namespace llumnix {

void memory_cms_store::put_metadata(const instance_metadata& metadata) {
  metadata_[metadata.instance_id] = metadata;
}

void memory_cms_store::put_status(const instance_status& status) {
  statuses_[status.instance_id] = status;
}

void memory_cms_store::remove(const instance_id& id) {
  metadata_.erase(id);
  statuses_.erase(id);
}

void memory_cms_store::read_all(std::function<void(result<std::vector<stored_instance>>)> done) {
  std::vector<stored_instance> records;
  records.reserve(metadata_.size());
  for (auto& [id, metadata] : metadata_) {
    auto& record = records.emplace_back();
    record.metadata = metadata;
    if (auto status = statuses_.find(id); status != statuses_.end()) {
      record.status = status->second;
      record.has_status = true;
    }
  }
  done(std::move(records));
}

} // namespace llumnix
