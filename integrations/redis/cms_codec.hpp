#pragma once

#include "runtime/base/result.hpp"
#include "runtime/cluster/instance.hpp"

#include <string>
#include <string_view>

namespace llumnix {

/// Where the store keeps an instance's records: prefix, then the instance id, whatever characters
/// it has.
inline constexpr std::string_view metadata_key_prefix = "llumnix:instance_metadata:";
inline constexpr std::string_view status_key_prefix = "llumnix:instance_status:";

/// The proto3 bytes of a record, fields in the order of their numbers, zero fields left out: what
/// the reference's own writers produce.
std::string encode(const instance_metadata& metadata);
std::string encode(const instance_status& status);

/// Reads a record anyone may have written. Unknown fields are skipped and absent ones are zero (so
/// that a `profiling_id` of -1 must have been sent); `invalid_argument` for bytes that are no such
/// record.
result<instance_metadata> decode_metadata(std::string_view bytes);
result<instance_status> decode_status(std::string_view bytes);

} // namespace llumnix
