#include "runtime/scheduling/scheduling_desk.hpp"

namespace llumnix {

chosen_instance
describe_choice(const instance_metadata& instance, infer_type role, bool full_mode) {
  auto id = instance.instance_id;
  if (full_mode)
    id = instance.ip + "_instance" + std::to_string(instance.dp_rank) + "_"
         + std::to_string(instance.data_parallel_size);
  return {
    .instance = instance.instance_id,
    .id = std::move(id),
    .role = role,
    .host = instance.ip,
    .port = instance.api_server_port,
    .auxiliary_host = instance.ip_kvt,
    .auxiliary_port = instance.kvt_port,
    .dp_rank = instance.dp_rank,
    .dp_size = instance.data_parallel_size};
}

} // namespace llumnix
