#pragma once

#include "config/cluster_config.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/scheduling/decision.hpp"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace llumnix::testing {

/// The specification once more, slow and literal: spec/scheduling.md 3 to 7 and spec/cms.md 2 to 4
/// for neutral requests, in full and in lite mode, written without a look at the dispatcher. It
/// keeps records, and computes everything from them anew for each question.
class second_opinion {
public:
  explicit second_opinion(scheduler_config config) : config_{std::move(config)} {}

  void put(const instance_metadata& metadata, const node_life& life);
  void update(const instance_status& status, unix_ms now);
  void set_state(const std::string& id, instance_state state);
  void lose(const node_life& life);
  void remove(const std::string& id);
  void release(const std::string& request);

  /// Everyone who may be chosen: one instance, several with a top k, none if nobody can.
  std::set<std::string> acceptable(const placement_query& query, unix_ms now);
  /// What was chosen in fact.
  void placed(const placement_query& query, const std::string& id, unix_ms now);

private:
  struct booking {
    unix_ms at = 0;
    std::int32_t tokens = 0;
    bool found = false;
    bool waits = false; ///< in the last status
  };
  struct record {
    instance_metadata metadata;
    node_life life;
    instance_state state = instance_state::ready;
    bool reported = false;
    instance_status status;
    std::map<std::string, booking> account;
  };

  void forget_stale(unix_ms now);
  float load(const record& x) const;
  bool failing(const record& x, unix_ms now) const;
  std::set<std::string> failover(unix_ms now) const;
  std::vector<std::string> neutral() const;

  scheduler_config config_;
  std::map<std::string, record> records_;
  std::string last_;
};

} // namespace llumnix::testing
