#pragma once

#include "gateway/scheduler_api/scheduler_client.hpp"
#include "integrations/llumlet_grpc/llumlet_server.hpp"
#include "integrations/mooncake/metadata_client.hpp"
#include "integrations/redis/redis_metrics.hpp"
#include "integrations/vllm/event_index.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/cluster/discovery.hpp"
#include "runtime/scheduling/scheduler_probes.hpp"
#include "transport/kv_transport.hpp"

#include <functional>
#include <string>
#include <vector>

namespace llumnix {

/// The process's own numbers as Prometheus text 0.0.4: its actors' counters, how its Redis mirror
/// fares (null: it has none), and `process_*` as the usual client libraries name them. `uptime_s`:
/// seconds since the process began.
std::string
node_metrics_text(const node_counters& counters, const redis_metrics* mirror, double uptime_s);

/// What SCHEDULER tells of instances and of those it chose, under the reference's names
/// (spec/scheduling.md 10, spec/cms.md 7.5 and 11). A series appears when something was first
/// recorded, and goes with its instance; of more than 1000 instances the rest is one, called
/// `_overflow`, with what the last of them has, or in lite mode their sum. `model_of`: what an
/// instance serves, as far as that is known.
std::string scheduler_metrics_text(
  const scheduler_probes& probes, const std::function<std::string(const instance_id&)>& model_of);

/// What finding prompts' beginnings took, and how much of them was found, under the reference's
/// names (spec/scheduling.md 10): of requests of our own gateway, and of gateways of other makes.
/// Nothing where nobody looked.
std::string prefix_metrics_text(const prefix_probes& ours, const prefix_probes& others);

/// How the sources of engines fare, as Prometheus text (spec/discovery.md H). `now_s`: Unix
/// seconds.
std::string discovery_metrics_text(const std::vector<discovery_health>& sources, double now_s);

/// What moved between the KV memory of this node's engines and others, as Prometheus text.
std::string kv_transport_metrics_text(const kv_transport_counters& counters);

/// What was called by the RPC service of this node's llumlets, as Prometheus text.
std::string llumlet_calls_metrics_text(const llumlet_server_counters& counters);

/// How the KV store's metadata service fares, as Prometheus text.
std::string kv_store_metrics_text(const mooncake::client_counters& counters);

/// What engines behind HTTP tell of their KV caches, as Prometheus text.
std::string kv_events_metrics_text(const event_index_counters& counters);

/// How the scheduler that is asked over HTTP fares, as Prometheus text.
std::string remote_metrics_text(const scheduler_api::client_counters& counters);

} // namespace llumnix
