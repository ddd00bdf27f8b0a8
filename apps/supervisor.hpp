#pragma once

#include "apps/child_process.hpp"
#include "apps/memory_file.hpp"
#include "apps/node_setup.hpp"
#include "apps/signal_queue.hpp"
#include "apps/up_report.hpp"
#include "runtime/cluster/restart_budget.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// A cluster on this machine, as the command line describes it.
struct up_plan {
  std::uint32_t engines = 4;        ///< modeled ones, each a process
  std::uint32_t prefill = 0;        ///< more of them, which compute prompts only
  std::uint32_t decode = 0;         ///< and which take over after that
  std::uint32_t remote_engines = 0; ///< behind HTTP, run by somebody else
  bool finds_engines = false;       ///< more such, or fewer, while it runs
  bool reschedules = false;         ///< running requests are moved to balance load
  std::string http = "127.0.0.1:8089";
  std::string admin = "127.0.0.1:8090";
  std::string admin_key;
  std::string http_key; ///< clients must send it; empty: none
  std::string model;    ///< empty: whatever the engines behind HTTP serve
  bool spawn_redis = false;
  std::string redis;                       ///< HOST:PORT of somebody's Redis; empty: none
  memory_file settings;                    ///< configuration of every `serve`, secrets included
  std::vector<std::string> node_arguments; ///< of every `serve`: --config, --log-level
  std::chrono::milliseconds drain{10000};
  std::optional<std::chrono::milliseconds> run_for; ///< from ready on; absent: until a signal
  restart_limits limits;

  std::uint32_t own_engines() const { return engines + prefill + decode; }
};

/// Runs the processes of a cluster: starts them in order, watches them, restarts what ends, stops
/// them in reverse order. One thread, no other before or beside it.
class supervisor {
public:
  supervisor(up_plan plan, up_report& report);

  /// From the first process to the last one's end; returns the exit code.
  int run();

private:
  enum class kind { redis, head, engine };
  enum class phase { starting, running, stopping };
  enum class wait_end { reached, stop_asked, failed, too_late };

  struct child {
    kind what;
    std::string name;
    std::string instance_type; ///< of an engine
    restart_budget budget;
    child_process process{};
    node_ready ready{};                     ///< of its latest life that got there
    bool up = false;                        ///< this life has announced itself
    std::uint64_t incarnation = 0;          ///< lives so far
    std::optional<time_point> restart_at{}; ///< while it is down
    time_point start_deadline{};
  };

  wait_end start();
  wait_end start_redis();
  wait_end start_head();
  wait_end start_engines();
  bool instances_ready();
  bool redis_linked();
  std::size_t answering_engines();
  std::string served_model();
  int stop();
  bool stop_group(kind what, std::chrono::milliseconds patience);
  void kill_all();

  void launch(child& which);
  child_command command_of(const child& which) const;
  void on_announcement(child& which, const std::string& line);
  void on_exit(child& which, pid_t pid, int wait_status);
  void fail(int code, const std::string& sentence);

  /// Waits for something to happen, at most that long, and deals with it.
  void step(std::chrono::milliseconds longest);
  wait_end
  until(const std::function<bool()>& reached, time_point deadline, std::chrono::milliseconds pause);
  child& head();
  bool running(kind what) const;
  node_facts facts_of(const child& which) const;
  cluster_facts cluster();

  up_plan plan_;
  up_report& report_;
  signal_queue signals_;
  std::vector<child> children_; ///< in the order of their start
  phase phase_ = phase::starting;
  int stops_asked_ = 0;
  std::optional<int> failure_; ///< the exit code, once the cluster has failed
  std::string last_look_;      ///< why the cluster was not ready when last asked
};

} // namespace llumnix
