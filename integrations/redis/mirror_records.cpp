#include "integrations/redis/mirror_records.hpp"

#include "integrations/redis/cms_codec.hpp"

#include <algorithm>

namespace llumnix {

namespace {

std::string key(std::string_view prefix, const instance_id& id) {
  return std::string{prefix} + id;
}

} // namespace

void mirror_records::apply(const instance_id& id, mirror_change change, time_point now) {
  auto& known = records_[id];
  known.touched = now;
  if (change.removed) {
    known.metadata.reset();
    known.status.reset();
    known.recent = {};
    known.metadata_dirty = known.status_dirty = known.metadata_written = false;
    ++known.erase_wanted;
  }
  if (change.metadata) {
    known.metadata = std::move(change.metadata);
    known.metadata_dirty = true;
  }
  if (change.status) {
    known.recent.add(change.status->recent_waiting_requests, now);
    known.status = std::move(change.status);
    known.status->recent_waiting_requests = known.recent.ids(now);
    known.status_dirty = true;
  }
  dirty_.insert(id);
}

void mirror_records::mark_all() {
  settling_ = true;
  for (auto& [id, known] : records_) {
    known.metadata_dirty = known.status_dirty = true;
    known.erase_sent = known.erase_confirmed;
    dirty_.insert(id);
  }
}

void mirror_records::settle() {
  settling_ = false;
  for (auto& [id, known] : records_) {
    known.metadata_dirty = known.status_dirty = true;
    if (!known.metadata && known.erase_wanted > 0)
      ++known.erase_wanted;
    dirty_.insert(id);
  }
}

void mirror_records::mark_metadata() {
  for (auto& [id, known] : records_) {
    if (!known.metadata)
      continue;
    known.metadata_dirty = true;
    dirty_.insert(id);
  }
}

void mirror_records::sweep(time_point now) {
  std::erase_if(records_, [&](const auto& entry) {
    if (entry.second.metadata || now - entry.second.touched <= expiry_)
      return false;
    dirty_.erase(entry.first);
    return true;
  });
}

void mirror_records::begin_batch() {
  for (const auto& [id, kind] : std::exchange(failed_, {})) {
    auto entry = records_.find(id);
    if (entry == records_.end())
      continue;
    auto& known = entry->second;
    switch (kind) {
      case mirror_write::type::erase: known.erase_sent = known.erase_confirmed; break;
      case mirror_write::type::metadata: known.metadata_dirty = true; break;
      case mirror_write::type::status: known.status_dirty = true; break;
    }
  }
  dirty_.insert(batch_.begin(), batch_.end());
  batch_.assign(dirty_.rbegin(), dirty_.rend());
  dirty_.clear();
}

std::optional<mirror_write> mirror_records::next(double utc_now) {
  while (!batch_.empty()) {
    auto entry = records_.find(batch_.back());
    if (entry != records_.end())
      if (auto write = next_of(entry->first, entry->second, utc_now))
        return write;
    batch_.pop_back();
  }
  return std::nullopt;
}

std::optional<mirror_write>
mirror_records::next_of(const instance_id& id, record& known, double utc_now) {
  const auto set = [&](mirror_write::type kind, std::string_view prefix, std::string value) {
    return mirror_write{
      kind,
      id,
      0,
      {"SET", key(prefix, id), std::move(value), "EX", std::to_string(expiry_.count())}};
  };
  if (known.erase_sent != known.erase_wanted) {
    known.erase_sent = known.erase_wanted;
    return mirror_write{
      mirror_write::type::erase,
      id,
      known.erase_wanted,
      {"DEL", key(metadata_key_prefix, id), key(status_key_prefix, id)}};
  }
  if (!known.metadata)
    return std::nullopt;
  if (known.metadata_dirty) {
    known.metadata_dirty = false;
    if (known.metadata_written)
      known.metadata->utc_update = std::max(known.metadata->utc_update, utc_now);
    return set(mirror_write::type::metadata, metadata_key_prefix, encode(*known.metadata));
  }
  if (known.status && known.status_dirty) {
    known.status_dirty = false;
    return set(mirror_write::type::status, status_key_prefix, encode(*known.status));
  }
  return std::nullopt;
}

void mirror_records::confirmed(const mirror_write& write) {
  auto entry = records_.find(write.id);
  if (entry == records_.end())
    return;
  auto& known = entry->second;
  if (write.kind == mirror_write::type::metadata)
    known.metadata_written = true;
  if (write.kind != mirror_write::type::erase)
    return;
  known.erase_confirmed = std::max(known.erase_confirmed, write.erase_number);
  if (known.erase_confirmed == known.erase_wanted && !known.metadata && !known.status && !settling_)
    records_.erase(entry);
}

void mirror_records::failed(const mirror_write& write) {
  failed_.emplace_back(write.id, write.kind);
  dirty_.insert(write.id);
}

} // namespace llumnix
