#include "runtime/cluster/cluster_view.hpp"

#include <algorithm>

namespace llumnix {

namespace {

bool counts_no_versions(const instance_status& before, const instance_status& now) {
  return before.update_id == 0 && now.update_id == 0;
}

bool started_again(const instance_status& before, const instance_status& now) {
  return std::int64_t{before.update_id} - now.update_id >= restart_jump;
}

/// A newer body that says it is older.
bool clock_set_back(const instance_status& before, const instance_status& now) {
  return before.timestamp_ms - now.timestamp_ms >= clock_jump_ms
         && (now.update_id > before.update_id || counts_no_versions(before, now));
}

} // namespace

bool cluster_view::put(
  const instance_metadata& metadata, const node_life& life, std::string engine) {
  auto& known = instances_[metadata.instance_id];
  if (known.life.node == life.node && life.incarnation < known.life.incarnation)
    return false;
  bool fresh = known.life != life || known.metadata.utc_create != metadata.utc_create;
  if (fresh) {
    known.status = {};
    known.has_status = false;
  }
  // The same life seen again keeps what operators made of it, `draining` above all.
  if (fresh || known.state == instance_state::lost)
    known.state = instance_state::ready;
  known.metadata = metadata;
  known.life = life;
  known.engine = std::move(engine);
  ++version_;
  return true;
}

status_effect cluster_view::update(const instance_status& status) {
  auto found = instances_.find(status.instance_id);
  if (found == instances_.end())
    return status_effect::ignored;
  auto& known = found->second;
  if (
    known.has_status && status.timestamp_ms <= known.status.timestamp_ms
    && !clock_set_back(known.status, status))
    return status_effect::ignored;
  ++version_;
  if (
    known.has_status && status.update_id <= known.status.update_id
    && !counts_no_versions(known.status, status) && !started_again(known.status, status)) {
    known.status.timestamp_ms = status.timestamp_ms;
    known.status.schedulable = status.schedulable;
    return status_effect::heartbeat;
  }
  known.status = status;
  known.has_status = true;
  return status_effect::replaced;
}

unix_ms cluster_view::written_at(const instance_status& status, unix_ms now) const {
  auto* known = find(status.instance_id);
  auto next = known && known->has_status ? known->status.timestamp_ms + 1 : now;
  bool ahead = status.timestamp_ms > std::max(now + clock_ahead_ms, next);
  return ahead ? std::max(now, next) : status.timestamp_ms;
}

void cluster_view::set_state(const instance_id& id, instance_state state) {
  if (auto* known = find(id); known && known->state != state) {
    known->state = state;
    ++version_;
  }
}

void cluster_view::lose(const node_life& life) {
  for (auto& [id, known] : instances_)
    if (
      known.life.node == life.node && known.life.incarnation <= life.incarnation
      && known.state != instance_state::stopped)
      set_state(id, instance_state::lost);
}

void cluster_view::remove(const instance_id& id) {
  if (instances_.erase(id) > 0)
    ++version_;
}

const instance_view* cluster_view::find(const instance_id& id) const {
  auto found = instances_.find(id);
  return found == instances_.end() ? nullptr : &found->second;
}

instance_view* cluster_view::find(const instance_id& id) {
  auto found = instances_.find(id);
  return found == instances_.end() ? nullptr : &found->second;
}

} // namespace llumnix
