#pragma once

#include "actors/protocol/cluster_messages.hpp"
#include "config/cluster_config.hpp"
#include "runtime/base/result.hpp"

#include <memory>

namespace llumnix {

/// Whether the TLS files of node links can be read, belong together, and would be trusted by nodes
/// with the same authority. `invalid_argument`, naming knob and file, where not; fine without TLS.
result<void> check_tls_files(const node_config& config);

/// The actor system of a node as the configuration wants it: scheduler, links, heartbeats, TLS.
class node_system {
public:
  explicit node_system(const node_config& config);
  ~node_system();

  caf::actor_system& actors() { return *system_; }
  bool tls() const { return tls_; }
  /// Dials other nodes, with TLS where node links use it.
  connector_actor connector();
  /// Publishes the node on `config.listen`; returns the bound address HOST:PORT, or why it cannot
  /// be had.
  result<std::string> publish(const node_actor& node, const std::string& listen);

private:
  struct settings;
  std::unique_ptr<settings> settings_;
  std::unique_ptr<caf::actor_system> system_;
  bool tls_ = false;
};

} // namespace llumnix
