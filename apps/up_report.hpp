#pragma once

#include <chrono>
#include <cstddef>
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
  std::string admin; ///< its own operators' address, HOST:PORT, for its /metrics
  std::string grpc; ///< HOST:PORT of its llumlets' RPC service; empty: none
};

/// The cluster once it serves.
struct cluster_facts {
  std::string http;                  ///< HOST:PORT to dial
  std::string admin;                 ///< HOST:PORT to dial
  std::string redis;                 ///< HOST:PORT; empty: none
  std::string model;                 ///< empty: whatever the engines behind HTTP serve
  bool key_wanted = false;           ///< clients must send a key
  bool redis_linked = true;          ///< the cluster's state reaches Redis
  std::size_t remote_engines = 0;    ///< behind HTTP, of those named at the start
  std::size_t answering_engines = 0; ///< of them
  std::string served_model;          ///< by engines behind HTTP; empty: none has told any yet
  std::vector<node_facts> nodes;
};

/// What `up` says while it runs: for people, or one JSON object per line for programs.
class up_report {
public:
  up_report() = default;
  up_report(const up_report&) = delete;
  up_report& operator=(const up_report&) = delete;
  virtual ~up_report() = default;
  /// So many simulated engines; or so many behind HTTP that others run, and whether more of them
  /// are looked for.
  virtual void starting(std::uint32_t engines, std::uint32_t remote, bool finds_more) = 0;
  virtual void node_started(const node_facts& node) = 0;
  virtual void ready(const cluster_facts& cluster) = 0;
  virtual void node_down(const std::string& node, pid_t pid, const std::string& reason) = 0;
  virtual void node_restarted(const node_facts& node) = 0;
  virtual void stopping(std::chrono::milliseconds drain) = 0;
  virtual void stopped() = 0;

  /// Whether all of it could be written; if not, stderr has said why, and the rest is left out.
  bool all_written() const { return all_written_; }

protected:
  void print(const std::string& text);

private:
  bool all_written_ = true;
};

std::unique_ptr<up_report> make_json_report();
std::unique_ptr<up_report> make_human_report();

} // namespace llumnix
