#pragma once

#include "integrations/vllm/kv_event_source.hpp"
#include "runtime/base/ids.hpp"
#include "runtime/scheduling/kv_index.hpp"
#include "runtime/scheduling/prefix_index.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// Where an engine is.
struct engine_place {
  std::string address;    ///< HOST:PORT of its HTTP server
  std::uint32_t rank = 0; ///< data-parallel
};

/// The endpoint of one engine: `pattern` with its {host}, {port} and {rank}. The port of a tcp
/// endpoint that names none of the last two grows with the rank, as vLLM's do. `invalid_argument`
/// for another word in brackets, or where what comes out is no tcp:// or ipc:// endpoint.
result<std::string> engine_endpoint(std::string_view pattern, const engine_place& engine);

struct event_index_options {
  std::string events; ///< where engines publish, a pattern of `engine_endpoint`
  std::string replay; ///< where they send again what was missed, likewise; empty: nowhere
  prefix_index_options index{};
};

/// What an index heard since it was made.
struct event_index_counters {
  std::size_t engines = 0;     ///< listened to now
  std::size_t blocks = 0;      ///< known now, all engines together
  std::uint64_t batches = 0;   ///< of the engines that are listened to now
  std::uint64_t malformed = 0; ///< likewise
  std::uint64_t lost = 0;      ///< likewise: times that all an engine had said became void
  std::uint64_t evicted = 0;   ///< blocks forgotten to make room
};

/// Engines behind HTTP as a KV index: their KV events over ZeroMQ, by instance. Listens to each
/// engine on a thread of its own. From any thread; answers at once.
///
/// A model that some engine has told of as a LoRA is looked for among that LoRA's blocks, any other
/// among those of the engines' own models.
class event_index final : public kv_index {
public:
  explicit event_index(event_index_options options);
  ~event_index() override;

  /// Listens to an engine from now on, instead of any other of that id. One whose endpoint cannot
  /// be used is left out, and the log says so.
  void add(const instance_id& id, const engine_place& engine);
  /// It is gone, and its cache with it. Unknown ids are ignored.
  void remove(const instance_id& id);

  void find(std::span<const token_id> prompt, std::string_view model, answer done) override;
  event_index_counters counters() const;

private:
  void hear(const instance_id& id, const kv_event_batch& batch);
  void lose(const instance_id& id);

  event_index_options options_;
  mutable std::mutex sources_mutex_; ///< guards the next; taken before the other
  std::map<instance_id, std::unique_ptr<kv_event_source>> sources_;
  mutable std::mutex mutex_; ///< guards all below
  prefix_index index_;
  std::set<std::uint64_t> adapters_; ///< heard of
  std::vector<std::uint32_t> held_;  ///< by the instances' numbers; kept for its memory
};

} // namespace llumnix
