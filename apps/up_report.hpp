#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

namespace llumnix {

/// One node of a cluster on this machine, as `up` tells of it.
struct node_facts {
  std::string name;
  pid_t pid = -1;
  std::uint64_t incarnation = 1;
  std::vector<std::string> roles;
  std::vector<std::string> instances;
};

/// The cluster once it serves.
struct cluster_facts {
  std::string http;  ///< HOST:PORT to dial
  std::string admin; ///< HOST:PORT to dial
  std::string redis; ///< HOST:PORT; empty: none
  std::string model;
  bool key_wanted = false; ///< clients must send a key
  std::vector<node_facts> nodes;
};

/// What `up` says while it runs: for people, or one JSON object per line for programs.
class up_report {
public:
  virtual ~up_report() = default;
  virtual void starting(std::uint32_t engines) = 0;
  virtual void node_started(const node_facts& node) = 0;
  virtual void ready(const cluster_facts& cluster) = 0;
  virtual void node_down(const std::string& node, pid_t pid, const std::string& reason) = 0;
  virtual void node_restarted(const node_facts& node) = 0;
  virtual void stopping(std::chrono::milliseconds drain) = 0;
  virtual void stopped() = 0;
};

std::unique_ptr<up_report> make_json_report();
std::unique_ptr<up_report> make_human_report();

} // namespace llumnix
