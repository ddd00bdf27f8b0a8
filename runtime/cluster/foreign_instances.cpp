#include "runtime/cluster/foreign_instances.hpp"

#include <algorithm>

namespace llumnix {

namespace {

bool same_but_for_heartbeat(const instance_metadata& x, instance_metadata y) {
  y.utc_update = x.utc_update;
  return x == y;
}

std::pair<std::int64_t, std::int32_t> version_of(const instance_status& status) {
  return {status.timestamp_ms, status.update_id};
}

/// For people, who see it on terminals: anyone may have written it.
std::string plain_text(std::string_view text) {
  std::string out{text.substr(0, 64)};
  std::ranges::replace_if(
    out, [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
  return out;
}

instance_state state_of(const instance_metadata& metadata, bool has_status) {
  if (!has_http_endpoint(metadata))
    return instance_state::lost;
  return has_status ? instance_state::ready : instance_state::stopped;
}

void remember(std::vector<instance_id>& ids, const instance_id& id) {
  if (ids.empty() || ids.back() != id)
    ids.push_back(id);
}

} // namespace

bool has_http_endpoint(const instance_metadata& metadata) {
  return !metadata.ip.empty() && metadata.api_server_port > 0 && metadata.api_server_port <= 65535;
}

std::optional<std::string> http_endpoint(const instance_metadata& metadata) {
  if (!has_http_endpoint(metadata))
    return std::nullopt;
  bool is_ipv6 = metadata.ip.find(':') != std::string::npos;
  auto port = ":" + std::to_string(metadata.api_server_port);
  return (is_ipv6 ? "[" + metadata.ip + "]" : metadata.ip) + port;
}

pull_changes
foreign_instances::take_metadata(std::vector<instance_metadata> found, cluster_view& view) {
  pull_changes out;
  auto before = std::exchange(records_, {});
  auto disowned_before = std::exchange(disowned_, {});
  for (auto& metadata : found) {
    auto id = metadata.instance_id;
    if (auto* known = view.find(id); known && !known->foreign())
      continue;
    if (auto ours = disowned_before.find(id);
        ours != disowned_before.end() && ours->second == metadata.utc_create) {
      disowned_.insert(*ours); // for as long as it is there
      continue;
    }
    auto& record = records_[id];
    if (auto earlier = before.find(id); earlier != before.end()) {
      record = std::move(earlier->second);
      refresh(record, std::move(metadata), view, out);
    } else {
      record.metadata = std::move(metadata);
    }
  }
  for (const auto& [id, earlier] : before)
    if (auto* known = view.find(id); known && known->foreign() && !records_.contains(id)) {
      view.remove(id);
      out.removed.push_back(id);
    }
  return out;
}

void foreign_instances::refresh(
  record& known, instance_metadata now_known, cluster_view& view, pull_changes& out) {
  if (same_but_for_heartbeat(known.metadata, now_known))
    return;
  auto* shown = view.find(now_known.instance_id);
  if (shown && shown->has_status && known.metadata.utc_create != now_known.utc_create)
    known.of_earlier_life = known.last_read;
  known.metadata = std::move(now_known);
  if (shown && put(known, node_life{shown->life}, view))
    out.put.push_back(known.metadata.instance_id);
}

bool foreign_instances::put(const record& known, const node_life& life, cluster_view& view) {
  const auto& metadata = known.metadata;
  if (!view.put(metadata, life, plain_text(metadata.backend_type)))
    return false;
  bool has_status = view.find(metadata.instance_id)->has_status && !known.status_missing;
  view.set_state(metadata.instance_id, state_of(metadata, has_status));
  return true;
}

pull_changes
foreign_instances::take_statuses(stored_statuses found, cluster_view& view, unix_ms now) {
  pull_changes out;
  for (const auto& id : found.missing) {
    auto record = records_.find(id);
    auto* known = view.find(id);
    if (record == records_.end() || !known || !known->foreign())
      continue;
    if (!std::exchange(record->second.status_missing, true)) {
      view.set_state(id, state_of(record->second.metadata, false));
      out.put.push_back(id);
    }
  }
  for (const auto& status : found.found)
    take_status(status, view, now, out);
  return out;
}

namespace {

status_effect update(cluster_view& view, const instance_status& status, unix_ms now) {
  auto written = view.written_at(status, now);
  if (written == status.timestamp_ms)
    return view.update(status);
  auto dated = status;
  dated.timestamp_ms = written;
  return view.update(dated);
}

} // namespace

void foreign_instances::take_status(
  const instance_status& status, cluster_view& view, unix_ms now, pull_changes& out) {
  const auto& id = status.instance_id;
  auto found = records_.find(id);
  auto* known = view.find(id);
  if (found == records_.end() || (known && !known->foreign()))
    return;
  auto& record = found->second;
  if (record.of_earlier_life == version_of(status))
    return;
  record.of_earlier_life.reset();
  if (!known) {
    put(record, {"", static_cast<std::uint64_t>(std::max<unix_ms>(now, 0))}, view);
    known = view.find(id);
    out.put.push_back(id);
  }
  bool returns = std::exchange(record.status_missing, false);
  const auto& last = known->status;
  bool is_older = status.timestamp_ms <= last.timestamp_ms || status.update_id < last.update_id;
  if (returns && known->has_status && is_older && version_of(status) != version_of(last)) {
    auto born = std::max(
      known->life.incarnation + 1, static_cast<std::uint64_t>(std::max<unix_ms>(now, 0)));
    put(record, {"", born}, view);
    remember(out.put, id);
  }
  bool is_new = std::exchange(record.last_read, version_of(status)) != record.last_read;
  if (is_new && update(view, status, now) != status_effect::ignored)
    out.statuses.push_back(id);
  auto state = state_of(record.metadata, known->has_status);
  if (known->state != state) {
    view.set_state(id, state);
    remember(out.put, id);
  }
}

void foreign_instances::disown(const instance_metadata& metadata) {
  disowned_[metadata.instance_id] = metadata.utc_create;
}

namespace {

/// Whether a view has room for the record: nobody of ours goes by that id.
bool is_foreign(const cluster_view& view, const instance_id& id) {
  const auto* known = view.find(id);
  return !known || known->foreign();
}

} // namespace

std::vector<instance_id> foreign_instances::ids(const cluster_view& view) const {
  std::vector<instance_id> ids;
  for (const auto& [id, record] : records_)
    if (is_foreign(view, id))
      ids.push_back(id);
  return ids;
}

bool foreign_instances::any(const cluster_view& view) const {
  return std::ranges::any_of(records_, [&](auto& each) { return is_foreign(view, each.first); });
}

} // namespace llumnix
