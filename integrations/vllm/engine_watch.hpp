#pragma once

#include "net/upstream_pool.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/ids.hpp"
#include "runtime/cluster/instance.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace llumnix {

/// What a look at an engine behind HTTP found.
struct engine_report {
  instance_id id;
  bool ready = false; ///< takes work: answers /health with 200
  bool lost = false;  ///< has answered nothing at all for `hung_after`, though it did before: what
                      ///< it was asked will not come
  std::string
    kind; ///< for people: "vLLM 0.32.0", "SGLang", "OpenAI-compatible"; empty: not known yet
  bool token_ids
    = false; ///< tells token ids when asked (`return_token_ids`) and takes them as a prompt
  bool aborts = false; ///< has an API to abort requests (`/inference/v1/abort_requests`)
  std::uint32_t max_model_len = 0; ///< tokens; 0: not told
  /// The entries of its /v1/models, as sent ({"id":…}).
  std::vector<std::string> models;
  std::vector<std::string> model_ids;
  /// Load by its /metrics; `schedulable` says `ready`. Identity is left to the llumlet.
  instance_status status;
};

struct engine_watch_options {
  std::chrono::milliseconds interval{1000}; ///< between two looks at an engine that is well
  std::chrono::milliseconds longest_interval{
    5000};                                     ///< at one that is not: doubles up to this, for ever
  std::chrono::milliseconds patience{2000};    ///< for one answer
  std::chrono::milliseconds hung_after{30000}; ///< 0: never
};

/// Looks after engines behind HTTP, from one I/O loop: whether each answers, what it is and can,
/// and how loaded it is. An engine that loads its model for an hour is waited for.
class engine_watch {
public:
  /// `engines`: id and HOST:PORT. `on_report` is called on the loop after each look that found
  /// something new, and at least every `interval` for an engine that answers.
  engine_watch(
    net::upstream_pool& pool, executor& loop, engine_watch_options options,
    std::map<instance_id, std::string> engines,
    std::function<void(const engine_report&)> on_report);
  ~engine_watch();

  /// Call about ten times a second: looks at those that are due.
  void tick();
  /// Somebody had trouble with it: looks at it now (at most ten times a second).
  void suspect(const instance_id& id);

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
