#include "integrations/redis/cms_codec.hpp"

#include "cms.pb.h"
#include "runtime/base/log.hpp"

#include <climits>

namespace llumnix {

namespace {

// The fields of instance.hpp carry the wire's names, so each is named once here and copied both
// ways.
// clang-format off
#define LLUMNIX_METADATA_FIELDS(FIELD) \
  FIELD(instance_id) FIELD(instance_type) FIELD(backend_type) FIELD(ip) FIELD(ip_kvs) \
  FIELD(api_server_port) FIELD(llumlet_port) FIELD(kvt_port) FIELD(node_id) \
  FIELD(data_parallel_size) FIELD(tensor_parallel_size) FIELD(unit_id) FIELD(dp_rank) \
  FIELD(ep_rank) FIELD(dp_local_rank) FIELD(utc_create) FIELD(utc_update) FIELD(ip_kvt) \
  FIELD(block_size) FIELD(max_num_batched_tokens)

#define LLUMNIX_STATUS_FIELDS(FIELD) \
  FIELD(instance_id) FIELD(schedulable) FIELD(timestamp_ms) FIELD(step_id) FIELD(update_id) \
  FIELD(hybrid_scheduler_waiting_to_decode_requests_num) \
  FIELD(scheduler_waiting_to_decode_requests_num) FIELD(num_waiting_requests) \
  FIELD(scheduler_running_to_decode_requests_num) FIELD(num_running_requests) \
  FIELD(num_loading_requests) FIELD(num_total_gpu_tokens) FIELD(num_used_gpu_tokens) \
  FIELD(num_uncomputed_tokens_hybrid_scheduler_waiting_prefills) \
  FIELD(num_unallocated_tokens_hybrid_scheduler_waiting_decodes) \
  FIELD(hybrid_scheduler_waiting_to_decode_tokens_num) \
  FIELD(num_uncomputed_tokens_scheduler_waiting_prefills) \
  FIELD(scheduler_waiting_to_decode_tokens_num) \
  FIELD(num_uncomputed_tokens_scheduler_running_prefills) \
  FIELD(num_unallocated_tokens_scheduler_running_prefills) \
  FIELD(scheduler_running_to_decode_tokens_num) FIELD(num_tokens_loading_requests) \
  FIELD(num_uncomputed_tokens_all_waiting_prefills) FIELD(num_migrate_in_reqs) \
  FIELD(num_migrate_out_reqs) FIELD(num_available_migrate_in_slots) \
  FIELD(num_available_migrate_out_slots) FIELD(num_migrate_in_tokens) \
  FIELD(num_migrate_out_tokens) FIELD(num_available_migrate_in_tokens) \
  FIELD(num_available_migrate_out_tokens) FIELD(kv_cache_usage_ratio_migrate_in) \
  FIELD(kv_cache_usage_ratio_migrate_out) FIELD(available_kv_cache_usage_ratio_migrate_in) \
  FIELD(available_kv_cache_usage_ratio_migrate_out) FIELD(profiling_id) FIELD(step_duration) \
  FIELD(num_scheduled_prefill_tokens)
// clang-format on

// Protobuf reports broken text of its own accord, on stderr; the caller's error says as much.
void take_over_protobuf_log() {
  static const bool once = [] {
    google::protobuf::SetLogHandler(
      [](google::protobuf::LogLevel, const char*, int, const std::string& text) {
        log::redis.debug("protobuf", "{}", text);
      });
    return true;
  }();
  static_cast<void>(once);
}

template <class Message>
bool parse(Message& message, std::string_view bytes) {
  take_over_protobuf_log();
  return bytes.size() <= INT_MAX
         && message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

template <class Message>
std::string serialize(const Message& message) {
  take_over_protobuf_log();
  return message.SerializeAsString();
}

} // namespace

std::string encode(const instance_metadata& x) {
  cms::InstanceMetadata message;
#define LLUMNIX_SET(field) message.set_##field(x.field);
  LLUMNIX_METADATA_FIELDS(LLUMNIX_SET)
  return serialize(message);
}

std::string encode(const instance_status& x) {
  cms::InstanceStatus message;
  LLUMNIX_STATUS_FIELDS(LLUMNIX_SET)
#undef LLUMNIX_SET
  message.mutable_recent_waiting_requests()->Assign(
    x.recent_waiting_requests.begin(), x.recent_waiting_requests.end());
  message.mutable_waiting_requests()->Assign(x.waiting_requests.begin(), x.waiting_requests.end());
  return serialize(message);
}

result<instance_metadata> decode_metadata(std::string_view bytes) {
  cms::InstanceMetadata message;
  if (!parse(message, bytes))
    return {errc::invalid_argument, "not an InstanceMetadata record"};
  instance_metadata x;
#define LLUMNIX_GET(field) x.field = message.field();
  LLUMNIX_METADATA_FIELDS(LLUMNIX_GET)
  return x;
}

result<instance_status> decode_status(std::string_view bytes) {
  cms::InstanceStatus message;
  if (!parse(message, bytes))
    return {errc::invalid_argument, "not an InstanceStatus record"};
  instance_status x;
  LLUMNIX_STATUS_FIELDS(LLUMNIX_GET)
#undef LLUMNIX_GET
  x.recent_waiting_requests.assign(
    message.recent_waiting_requests().begin(), message.recent_waiting_requests().end());
  x.waiting_requests.assign(message.waiting_requests().begin(), message.waiting_requests().end());
  return x;
}

} // namespace llumnix
