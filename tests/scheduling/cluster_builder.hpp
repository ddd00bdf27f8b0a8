#pragma once

#include "runtime/scheduling/dispatcher.hpp"

#include <string>

namespace llumnix::testing {

/// The wall clock of these tests, in ms.
inline constexpr unix_ms noon = 1'700'000'000'000;

inline instance_metadata neutral_instance(const instance_id& id) {
  instance_metadata metadata;
  metadata.instance_id = id;
  metadata.instance_type = "neutral";
  metadata.unit_id = id;
  metadata.data_parallel_size = 1;
  return metadata;
}

/// A healthy, idle status with room for 1000 tokens, as the `update`-th report written at
/// `written`.
inline instance_status
idle_status(const instance_id& id, unix_ms written = noon, std::int32_t update = 1) {
  instance_status status;
  status.instance_id = id;
  status.schedulable = true;
  status.timestamp_ms = written;
  status.update_id = update;
  status.num_total_gpu_tokens = 1000;
  return status;
}

/// An instance as a view holds it once `status` has arrived.
inline instance_view seen(const instance_metadata& metadata, const instance_status& status) {
  instance_view view;
  view.metadata = metadata;
  view.status = status;
  view.has_status = true;
  view.life = {metadata.instance_id, 1};
  return view;
}

/// The life a node of that name has in these tests.
inline node_life life_of(const std::string& node, std::uint64_t incarnation = 1) {
  return {node, incarnation};
}

/// Registers an idle neutral instance on a node of its own name, with a backlog of prefill tokens.
inline void join(dispatcher& to, const instance_id& id, std::int32_t prefill_tokens = 0) {
  to.put(neutral_instance(id), life_of(id));
  auto status = idle_status(id);
  status.num_uncomputed_tokens_all_waiting_prefills = prefill_tokens;
  to.update(status, noon);
}

inline placement_query query_for(
  std::string request_id, std::uint32_t prompt_tokens = 10, std::vector<instance_id> exclude = {}) {
  return {std::move(request_id), prompt_tokens, std::move(exclude)};
}

} // namespace llumnix::testing
