#pragma once

#include "integrations/redis/redis_client.hpp"
#include "runtime/cluster/cms_store.hpp"

#include <functional>
#include <string_view>
#include <vector>

namespace llumnix {

/// Hears of a record that was left out: its instance id (any bytes) and what is wrong with it.
using odd_record_handler = std::function<void(std::string_view id, std::string_view why)>;

/// Reads the metadata of every instance of the store, ascending by id: SCAN for the keys, then
/// their values, some hundred commands under way at a time. At most 16384 instances are read.
///
/// A record that cannot be read, that is too long or that has a flaw (`flaw_of`) is reported and
/// left out; it spoils no other. Values are asked for up to a bound, so that nothing anyone writes
/// makes a reply larger than that.
///
/// On the client's thread; `done` and `odd` run there too, `done` exactly once: with what was
/// found, or why the store did not answer.
void read_metadata_records(
  redis_client& client, odd_record_handler odd,
  std::function<void(result<std::vector<instance_metadata>>)> done);

/// Reads the statuses of these instances, likewise.
void read_status_records(
  redis_client& client, std::vector<instance_id> instances, odd_record_handler odd,
  std::function<void(result<stored_statuses>)> done);

} // namespace llumnix
