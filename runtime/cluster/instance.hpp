#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// What an instance is: the reference's `InstanceMetadata`, field by field (spec/cms.md 1.2), so
/// that decisions, our own messages and the Redis mirror speak of the same thing. Ports are TCP
/// ports.
struct instance_metadata {
  std::string instance_id;               ///< same text as in the store's key
  std::string instance_type;             ///< `neutral`, `prefill` or `decode`: the role group
  std::string backend_type;              ///< for people; never branched on
  std::string ip;                        ///< of the API server and the llumlet
  std::string ip_kvs;                    ///< known to the KV store
  std::int32_t api_server_port = 0;      ///< OpenAI-style server; 0: none
  std::int32_t llumlet_port = 0;         ///< gRPC; 0: none
  std::int32_t kvt_port = 0;             ///< KV transfer listener; 0: none
  std::string node_id;                   ///< host identity, for node failover domains
  std::int32_t data_parallel_size = 0;   ///< ranks
  std::int32_t tensor_parallel_size = 0; ///< ranks
  std::string unit_id;            ///< data-parallel group; the instance id where there is none
  std::int32_t dp_rank = 0;       ///< 0-based
  std::int32_t ep_rank = 0;       ///< 0-based
  std::int32_t dp_local_rank = 0; ///< 0-based
  double utc_create = 0;          ///< seconds of the Unix epoch: the llumlet's start
  double utc_update = 0;          ///< seconds of the Unix epoch: the last rewrite
  std::string ip_kvt;             ///< KV transfer address handed to gateways
  std::int32_t block_size = 0;    ///< tokens per KV block
  std::int32_t max_num_batched_tokens = 0; ///< the engine's step budget, tokens
  friend bool operator==(const instance_metadata&, const instance_metadata&) = default;
};

/// How loaded an instance is: the reference's `InstanceStatus`, field by field (spec/cms.md 1.2).
/// The names are the reference's; requests and tokens are counts, ratios are of the KV capacity.
struct instance_status {
  std::string instance_id;
  bool schedulable = false;      ///< false: send no work, treat as failing
  std::int64_t timestamp_ms = 0; ///< the llumlet's wall clock when written
  std::int32_t step_id = 0;      ///< engine steps finished
  std::int32_t update_id = 0;    ///< version of the body; grows with each change
  /// Ids seen waiting at a step's start: in a store's record those of the last 10 s, in a status
  /// under way those that the one before it did not have.
  std::vector<std::string> recent_waiting_requests;
  std::vector<std::string> waiting_requests; ///< ids waiting now
  std::int32_t hybrid_scheduler_waiting_to_decode_requests_num
    = 0; ///< waiting at a KV connector to load KV
  std::int32_t scheduler_waiting_to_decode_requests_num
    = 0;                                 ///< waiting requests that will decode here
  std::int32_t num_waiting_requests = 0; ///< length of waiting_requests
  std::int32_t scheduler_running_to_decode_requests_num = 0; ///< running requests that decode here
  std::int32_t num_running_requests = 0;
  std::int32_t num_loading_requests = 0; ///< KV being pulled in
  std::int32_t num_total_gpu_tokens = 0; ///< KV capacity: blocks x block size
  std::int32_t num_used_gpu_tokens = 0;  ///< capacity - free blocks x block size
  std::int32_t num_uncomputed_tokens_hybrid_scheduler_waiting_prefills = 0; ///< tokens
  std::int32_t num_unallocated_tokens_hybrid_scheduler_waiting_decodes = 0; ///< tokens
  std::int32_t hybrid_scheduler_waiting_to_decode_tokens_num
    = 0; ///< tokens of the requests of field 8
  std::int32_t num_uncomputed_tokens_scheduler_waiting_prefills
    = 0; ///< tokens not cached of waiting requests with more than one left
  std::int32_t scheduler_waiting_to_decode_tokens_num = 0; ///< tokens of the requests of field 9
  std::int32_t num_uncomputed_tokens_scheduler_running_prefills
    = 0; ///< tokens - computed, running requests in prefill
  std::int32_t num_unallocated_tokens_scheduler_running_prefills
    = 0; ///< tokens - computed, running requests in prefill
  std::int32_t scheduler_running_to_decode_tokens_num = 0; ///< tokens of the requests of field 11
  std::int32_t num_tokens_loading_requests = 0;            ///< tokens
  std::int32_t num_uncomputed_tokens_all_waiting_prefills = 0; ///< fields 16 + 19
  std::int32_t num_migrate_in_reqs = 0;                        ///< arriving by migration
  std::int32_t num_migrate_out_reqs = 0;                       ///< leaving by migration
  std::int32_t num_available_migrate_in_slots = 0;             ///< may be negative
  std::int32_t num_available_migrate_out_slots = 0;            ///< may be negative
  std::int32_t num_migrate_in_tokens = 0;
  std::int32_t num_migrate_out_tokens = 0;
  std::int32_t num_available_migrate_in_tokens = 0;
  std::int32_t num_available_migrate_out_tokens = 0;
  double kv_cache_usage_ratio_migrate_in = 0;
  double kv_cache_usage_ratio_migrate_out = 0;
  double available_kv_cache_usage_ratio_migrate_in = 0;
  double available_kv_cache_usage_ratio_migrate_out = 0;
  std::int32_t profiling_id = -1; ///< sample counter from 1; -1: no sample in this status
  double step_duration = 0;       ///< ms, of the profiled step
  std::int32_t num_scheduled_prefill_tokens = 0; ///< in the profiled step
  /// LoRAs that requests of it use now, ordered by name; of engines that tell. No part of records.
  std::vector<std::string> adapters{};
  friend bool operator==(const instance_status&, const instance_status&) = default;
};

/// Puts a newer status in the place of one that nobody was told: what that one saw waiting is kept.
void follow(instance_status& older, const instance_status& newer);

/// Where an instance stands, as operators see it.
enum class instance_state : std::uint8_t {
  ready,    ///< takes work
  draining, ///< finishes what it has, takes nothing new
  lost,     ///< known, but its node is not connected
  stopped,  ///< ended in an orderly way
};

std::string_view to_string(instance_state state);
/// Whether nobody is there any more.
constexpr bool is_gone(instance_state state) {
  return state == instance_state::lost || state == instance_state::stopped;
}

} // namespace llumnix
