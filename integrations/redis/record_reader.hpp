#pragma once

#include "integrations/redis/redis_client.hpp"
#include "runtime/cluster/cms_store.hpp"

#include <functional>
#include <string_view>
#include <vector>

namespace llumnix {

/// Hears of a record that was left out: its instance id (any bytes) and what is wrong with it.
using odd_record_handler = std::function<void(std::string_view id, std::string_view why)>;

/// Reads every instance of the store, once: SCAN for the metadata keys, then MGET, some hundred
/// instances at a time. Gives the records ordered by id, each under the id of its key, or why the
/// store did not answer. A record that cannot be read, or that is of no known type, is reported and
/// left out; it spoils no other.
///
/// On the client's thread; `done` and `odd` run there too, `done` exactly once.
void read_records(
  redis_client& client, odd_record_handler odd,
  std::function<void(result<std::vector<stored_instance>>)> done);

} // namespace llumnix
