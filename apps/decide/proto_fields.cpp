#include "apps/decide/proto_fields.hpp"

#include <array>

namespace llumnix {

namespace {

// A field's name is its member's: instance.hpp keeps the reference's names.
#define LLUMNIX_METADATA(field)                                                                    \
  proto_field<instance_metadata> {                                                                 \
#field, &instance_metadata::field                                                              \
  }
#define LLUMNIX_STATUS(field)                                                                      \
  proto_field<instance_status> {                                                                   \
#field, &instance_status::field                                                                \
  }

const std::array metadata{
  LLUMNIX_METADATA(instance_type),
  LLUMNIX_METADATA(backend_type),
  LLUMNIX_METADATA(ip),
  LLUMNIX_METADATA(ip_kvs),
  LLUMNIX_METADATA(api_server_port),
  LLUMNIX_METADATA(llumlet_port),
  LLUMNIX_METADATA(kvt_port),
  LLUMNIX_METADATA(node_id),
  LLUMNIX_METADATA(data_parallel_size),
  LLUMNIX_METADATA(tensor_parallel_size),
  LLUMNIX_METADATA(unit_id),
  LLUMNIX_METADATA(dp_rank),
  LLUMNIX_METADATA(ep_rank),
  LLUMNIX_METADATA(dp_local_rank),
  LLUMNIX_METADATA(utc_create),
  LLUMNIX_METADATA(utc_update),
  LLUMNIX_METADATA(ip_kvt),
  LLUMNIX_METADATA(block_size),
  LLUMNIX_METADATA(max_num_batched_tokens),
};

const std::array status{
  LLUMNIX_STATUS(schedulable),
  LLUMNIX_STATUS(timestamp_ms),
  LLUMNIX_STATUS(step_id),
  LLUMNIX_STATUS(update_id),
  LLUMNIX_STATUS(recent_waiting_requests),
  LLUMNIX_STATUS(waiting_requests),
  LLUMNIX_STATUS(hybrid_scheduler_waiting_to_decode_requests_num),
  LLUMNIX_STATUS(scheduler_waiting_to_decode_requests_num),
  LLUMNIX_STATUS(num_waiting_requests),
  LLUMNIX_STATUS(scheduler_running_to_decode_requests_num),
  LLUMNIX_STATUS(num_running_requests),
  LLUMNIX_STATUS(num_loading_requests),
  LLUMNIX_STATUS(num_total_gpu_tokens),
  LLUMNIX_STATUS(num_used_gpu_tokens),
  LLUMNIX_STATUS(num_uncomputed_tokens_hybrid_scheduler_waiting_prefills),
  LLUMNIX_STATUS(num_unallocated_tokens_hybrid_scheduler_waiting_decodes),
  LLUMNIX_STATUS(hybrid_scheduler_waiting_to_decode_tokens_num),
  LLUMNIX_STATUS(num_uncomputed_tokens_scheduler_waiting_prefills),
  LLUMNIX_STATUS(scheduler_waiting_to_decode_tokens_num),
  LLUMNIX_STATUS(num_uncomputed_tokens_scheduler_running_prefills),
  LLUMNIX_STATUS(num_unallocated_tokens_scheduler_running_prefills),
  LLUMNIX_STATUS(scheduler_running_to_decode_tokens_num),
  LLUMNIX_STATUS(num_tokens_loading_requests),
  LLUMNIX_STATUS(num_uncomputed_tokens_all_waiting_prefills),
  LLUMNIX_STATUS(num_migrate_in_reqs),
  LLUMNIX_STATUS(num_migrate_out_reqs),
  LLUMNIX_STATUS(num_available_migrate_in_slots),
  LLUMNIX_STATUS(num_available_migrate_out_slots),
  LLUMNIX_STATUS(num_migrate_in_tokens),
  LLUMNIX_STATUS(num_migrate_out_tokens),
  LLUMNIX_STATUS(num_available_migrate_in_tokens),
  LLUMNIX_STATUS(num_available_migrate_out_tokens),
  LLUMNIX_STATUS(kv_cache_usage_ratio_migrate_in),
  LLUMNIX_STATUS(kv_cache_usage_ratio_migrate_out),
  LLUMNIX_STATUS(available_kv_cache_usage_ratio_migrate_in),
  LLUMNIX_STATUS(available_kv_cache_usage_ratio_migrate_out),
  LLUMNIX_STATUS(profiling_id),
  LLUMNIX_STATUS(step_duration),
  LLUMNIX_STATUS(num_scheduled_prefill_tokens),
};

#undef LLUMNIX_METADATA
#undef LLUMNIX_STATUS

constexpr std::array account{
  account_field{"num_inflight_dispatch_requests", &inflight_load::requests},
  account_field{"num_inflight_dispatch_prefill_requests", &inflight_load::prefill_requests},
  account_field{"num_inflight_dispatch_decode_requests", &inflight_load::decode_requests},
  account_field{
    "num_uncomputed_tokens_inflight_dispatch_prefill_requests", &inflight_load::prefill_tokens},
  account_field{"num_tokens_inflight_dispatch_decode_requests", &inflight_load::decode_tokens},
};

constexpr std::array by_priority{
  account_field{"urgent_requests", &inflight_load::urgent_requests},
  account_field{"urgent_tokens", &inflight_load::urgent_tokens},
  account_field{"low_requests", &inflight_load::low_requests},
  account_field{"low_tokens", &inflight_load::low_tokens},
};

} // namespace

std::span<const proto_field<instance_metadata>> metadata_fields() {
  return metadata;
}

std::span<const proto_field<instance_status>> status_fields() {
  return status;
}

std::span<const account_field> account_fields() {
  return account;
}

std::span<const account_field> priority_fields() {
  return by_priority;
}

} // namespace llumnix
