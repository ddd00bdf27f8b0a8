#pragma once

#include "integrations/redis/redis_client.hpp"
#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

inline constexpr std::string_view redis_record_prefix = "llumnix:discovery:";

/// The records a store holds.
struct stored_records {
  std::map<std::string, std::string> bytes_of_pod;
  std::vector<std::string> problems; ///< with what was left out
};

/// Reads all discovery records of a Redis, once: SCAN for the keys, then GETRANGE of each, some
/// hundred under way at a time, since MGET would bring whole values however long. Bounded by
/// `records_max`, `record_bytes_max` and `records_bytes_max`. Given up at `deadline`.
///
/// On the client's thread; `done` runs there too, exactly once.
void read_redis_records(
  redis_client& client, time_point deadline, std::function<void(result<stored_records>)> done);

} // namespace llumnix
