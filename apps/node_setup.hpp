#pragma once

#include "config/cluster_config.hpp"

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace llumnix {

/// What a node listens on once it runs; empty where it has no such listener.
struct node_ready {
  std::string listen;    ///< node links, HOST:PORT
  std::string http;      ///< HOST:PORT
  std::string admin;     ///< HOST:PORT
  std::string scheduler; ///< for gateways of other makes, HOST:PORT
  std::string grpc;      ///< for schedulers of other makes, HOST:PORT
  std::vector<std::string> roles;
  std::vector<std::string> instances;
};

struct node_run_options {
  std::chrono::milliseconds drain{
    10000}; ///< running requests get this long after the first SIGINT or SIGTERM, to end or to move
  std::function<void(const node_ready&)> on_ready; ///< called once, when all listeners are open
};

/// Runs one node of a cluster until SIGINT or SIGTERM: config to actor system, ports and roles. The
/// only wiring there is. A listener is opened only for the roles that need it: `gateway` the public
/// HTTP address, `scheduler` the one for gateways of other makes where `scheduler.http` names one,
/// every node its admin address unless `admin.listen` is empty. Returns the process's
/// exit code: 0 after an orderly stop, 1 on a failure while running, 2 when the configuration
/// cannot be served (a port in use, no room for the KV pool; one line on stderr says what to do),
/// 130 at a second signal. Call it before any other thread exists.
int run_node(const cluster_config& config, const node_run_options& options);

} // namespace llumnix
