#pragma once

#include "config/cluster_config.hpp"
#include "integrations/mooncake/metadata_client.hpp"
#include "integrations/vllm/event_index.hpp"
#include "net/http_server.hpp"
#include "runtime/cluster/discovery.hpp"
#include "runtime/scheduling/kv_index.hpp"

#include <cstdint>
#include <memory>
#include <string>

namespace llumnix {

/// Who is asked about prefixes in a process that places requests, where it is not engines of our
/// own: a KV store, or what engines behind HTTP tell of their caches. Lives on the first loop of a
/// server.
class prefix_lookup {
public:
  /// Null where `scheduler` wants none. `seed` of the hashes of an index of our own. Before the
  /// server is started. `invalid_argument`, naming the setting, where it cannot be had.
  static result<std::unique_ptr<prefix_lookup>>
  make(net::http_server& server, const scheduler_config& scheduler, std::uint64_t seed);
  /// After the server's threads have ended, before the server is destroyed.
  ~prefix_lookup();

  kv_index& index();
  /// An engine behind HTTP is there, in place of any other of its id; or gone.
  void add(const discovered_engine& engine);
  void remove(const instance_id& id);
  /// About ten times a second, on the first loop.
  void tick();
  /// How it fares, as Prometheus text. From any thread.
  std::string metrics_text() const;

private:
  prefix_lookup() = default;

  // One of the two.
  std::unique_ptr<net::upstream_pool> pool_;
  std::unique_ptr<mooncake::metadata_client> store_;
  std::unique_ptr<event_index> events_;
};

} // namespace llumnix
