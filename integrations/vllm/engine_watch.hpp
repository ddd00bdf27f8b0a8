#pragma once

#include "integrations/vllm/engine_report.hpp"
#include "net/upstream_pool.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/ids.hpp"

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace llumnix {

struct engine_watch_options {
  std::chrono::milliseconds interval{1000}; ///< between two looks at an engine that is well
  std::chrono::milliseconds longest_interval{
    5000};                                  ///< at one that is not: doubles up to this, for ever
  std::chrono::milliseconds patience{2000}; ///< for one answer
  std::chrono::milliseconds models_every{10000}; ///< between two looks at an engine's models
  std::chrono::milliseconds hung_after{30000};   ///< 0: never
  std::string key{};                             ///< bearer key of all of them; empty: none
};

/// Looks after engines behind HTTP, from one I/O loop: whether each answers, what it is and can,
/// and how loaded it is. An engine that loads its model for an hour is waited for.
class engine_watch {
public:
  /// `on_report` is called on the loop after each look that found something new, and at least every
  /// `interval` for an engine that answers. It must not add or remove engines.
  engine_watch(
    net::upstream_pool& pool, executor& loop, engine_watch_options options,
    std::function<void(const engine_report&)> on_report);
  ~engine_watch();

  /// From now on looks after the engine at `address`, HOST:PORT, instead of any other of that id.
  void add(const instance_id& id, std::string address);
  /// Reports on it no more. Unknown ids are ignored.
  void remove(const instance_id& id);
  /// It is called `to` from now on, an id that no other has; what is known of it stays. Unknown ids
  /// are ignored.
  void rename(const instance_id& from, const instance_id& to);

  /// Call about ten times a second: looks at those that are due.
  void tick();
  /// Somebody had trouble with it: looks at it now (at most ten times a second).
  void suspect(const instance_id& id);
  /// Asks all engines that take work for their models, now.
  void ask_models();
  /// Whether some of them have not answered that yet.
  bool asks_models() const;

private:
  struct engine;
  class question;
  net::upstream_pool& pool_;
  executor& loop_;
  engine_watch_options options_;
  std::function<void(const engine_report&)> on_report_;
  std::map<instance_id, std::unique_ptr<engine>> engines_;
};

} // namespace llumnix
