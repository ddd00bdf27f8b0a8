#pragma once

#include "runtime/base/ids.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace llumnix {

/// An engine behind HTTP as a discovery source tells of it (spec/discovery.md A).
struct discovered_engine {
  /// Names it within its source: `{pod_name}_dp{dp_rank}` in records, the address in lists.
  instance_id id;
  std::string address;          ///< HOST:PORT as `engine_address` writes it
  std::string role = "neutral"; ///< neutral, prefill or decode
  std::string model;            ///< that it serves; empty: whatever it says itself
  std::string kv_address;       ///< HOST:PORT for KV transfer between engines; empty: not told
  std::uint32_t dp_rank = 0;
  std::uint32_t dp_size = 1; ///< ranks of its pod
  std::int64_t version = 0;  ///< of its record; another one means another life
  bool operator==(const discovered_engine&) const = default;
};

/// How a source stands, for people.
struct discovery_health {
  std::string source;        ///< "files", "redis 10.0.0.5:6379", "etcd"
  std::size_t engines = 0;   ///< in its last answer
  std::uint64_t errors = 0;  ///< so far
  double answered_s_ago = 0; ///< since its last good answer; negative: there was none yet
};

/// Where engines are found. A port: watched files, Redis and etcd in production, a list in tests.
/// A source never gives up and never takes back what it told because it cannot be reached.
///
/// Lives on one executor's thread, which alone calls it and on which it calls back, never from
/// within `start`. Destroyed there, it calls back no more.
class discovery {
public:
  /// The whole list, ordered by id, ids once: told first when the source has answered for the first
  /// time, then after each change (`discovered_engine` compared whole).
  using listener = std::function<void(std::vector<discovered_engine>)>;

  virtual ~discovery() = default;
  /// Begins to look. Called once.
  virtual void start(listener told) = 0;
  /// About ten times a second: looks again when it is time.
  virtual void tick() = 0;
  virtual discovery_health health() const = 0;
  /// The same of each source it is made of, where it is made of several.
  virtual std::vector<discovery_health> parts() const { return {health()}; }
};

} // namespace llumnix
