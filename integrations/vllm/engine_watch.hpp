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
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// What a look at an engine behind HTTP found.
struct engine_report {
  instance_id id;
  bool ready = false;  ///< takes work: answers /health with 200
  std::string trouble; ///< what it did instead, for people: "cannot be reached", "answers 503"
  bool lost = false;   ///< has answered nothing at all for `hung_after`, though it did before: what
                       ///< it was asked will not come
  std::string
    kind; ///< for people: "vLLM 0.32.0", "SGLang", "OpenAI-compatible"; empty: not known yet
  bool token_ids
    = false; ///< tells token ids when asked (`return_token_ids`) and takes them as a prompt
  bool continues_text = false; ///< goes on with a text when told to, and counts its tokens by chunk
  bool wants_key = false;      ///< answers 401 to some of what it is asked
  bool aborts = false;         ///< has an API to abort requests (`/inference/v1/abort_requests`)
  std::optional<bool> tokens;  ///< has a way for token ids in and out
                               ///< (`/inference/v1/generate`); nothing: not known yet
  std::uint32_t max_model_len = 0; ///< tokens; 0: not told
  /// The entries of its /v1/models, as sent ({"id":…}).
  std::vector<std::string> models;
  std::vector<std::string> model_ids;
  std::vector<std::string> adapters; ///< LoRAs among `model_ids`
  /// Load by its /metrics; `schedulable` says `ready`. Identity is left to the llumlet.
  instance_status status;
};

/// What an engine is and can, for people: "vLLM 0.32.0 (token ids, abort, generate)", "SGLang (text
/// only)", "OpenAI-compatible (text only; answers 401, see gateway.engine_key)", and what keeps it
/// from taking work: "vLLM 0.32.0 (token ids); answers 503"; empty while nothing is known.
std::string describe_engine(const engine_report& report);

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
