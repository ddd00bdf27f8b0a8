#pragma once

#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/discovery.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

inline constexpr std::size_t record_bytes_max = 64 * 1024;
inline constexpr std::size_t pod_instances_max = 1024;

/// One rank of a pod, as its sidecar wrote it (`InstanceDiscoveryInfo`).
struct pod_instance {
  std::string instance_type; ///< neutral, prefill or decode
  std::string entrypoint_ip; ///< of its HTTP server
  std::int32_t entrypoint_port = 0;
  std::string kv_transfer_ip;
  std::int32_t kv_transfer_port = 0;
  std::int32_t dp_rank = 0;
  std::int32_t dp_size = 0;
  std::string model;
  std::int64_t version = 0;
  bool operator==(const pod_instance&) const = default;
};

/// What a pod's sidecar last wrote (`PodDiscoveryInfo`): the instances that were well.
struct pod_record {
  std::string pod_name;
  unix_ms timestamp_ms = 0; ///< by the writer's clock
  std::vector<pod_instance> instances;
  std::size_t unreadable = 0; ///< instances left out: no such message, or beyond
                              ///< `pod_instances_max`
  bool operator==(const pod_record&) const = default;
};

/// The proto3 bytes, as the reference's sidecars write them.
std::string encode(const pod_record& record);

/// Reads a record anyone may have written. Unknown fields are skipped and absent ones zero;
/// `too_long` above `record_bytes_max`, `bad_message` for bytes that are no such record. Its values
/// are taken as they come.
result<pod_record> decode_pod_record(std::string_view bytes);

/// The engines of a pod, and what is wrong with those of its instances that are none.
struct pod_engines {
  std::vector<discovered_engine> engines; ///< in the record's order, ids once
  std::vector<std::string> problems;      ///< printable, a few; without the pod's name
};

/// neutral, prefill or decode.
bool is_role(std::string_view text);

/// Whether a model may be called that: at most 512 bytes of UTF-8 that shows, for it goes into JSON
/// and logs. It may be empty.
bool is_model_name(std::string_view text);

/// Whether a pod may be called that: 1 to 253 letters, digits and any of "._-:@". What else a key
/// may hold has no place in an id.
bool is_pod_name(std::string_view name);

/// The engines of the pod `pod`, the name its key has; a record that calls itself otherwise is
/// among the problems. No dp_size stands for one rank, no KV address for none.
pod_engines engines_of(std::string_view pod, const pod_record& record);

} // namespace llumnix
