#pragma once

#include "integrations/vllm/kv_events.hpp"
#include "runtime/base/result.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace llumnix {

struct kv_event_source_options {
  /// Where the engine publishes, e.g. "tcp://10.0.0.5:5571"; tcp or ipc.
  std::string endpoint;
  /// Listens at `endpoint` for one engine that connects to it, instead of connecting.
  bool bind = false;
  /// Where the engine sends again what was missed; empty: nowhere.
  std::string replay_endpoint = {};
  /// Hears what has a topic that begins so; empty: everything.
  std::string topic = {};
  /// For one answer of the replay endpoint; all of a replay may take ten times that. One that
  /// failed is not asked for as long.
  std::chrono::milliseconds replay_patience{2000};
};

/// Called on the source's own thread, one at a time, and not any more once the source is gone. They
/// hand over and return, must not throw, and must not end the source.
struct kv_event_callbacks {
  std::function<void(kv_event_batch)> on_batch;
  /// Something is missing before the next batch: forget which blocks this engine holds.
  std::function<void()> on_lost;
};

/// What a source did since it started.
struct kv_event_source_counters {
  std::uint64_t batches = 0;        ///< handed over, replayed ones included
  std::uint64_t malformed = 0;      ///< messages that could not be understood
  std::uint64_t lost = 0;           ///< calls of `on_lost`
  std::uint64_t replays = 0;        ///< asked for
  std::uint64_t failed_replays = 0; ///< not answered to the end
};

/// Hears the KV events of one engine over ZeroMQ (vLLM's `--kv-events-config`), each batch once and
/// in order.
///
/// Has a thread of its own, and one of ZeroMQ's. A gap in the numbers is filled by the replay
/// endpoint; where it cannot be, where a message cannot be understood, where the engine starts
/// over, and whenever the connection breaks, `on_lost` comes first. Connects again by itself, for
/// ever. Waiting messages are bounded: an engine that is faster than `on_batch` leaves gaps.
class kv_event_source {
public:
  /// `invalid_argument`: an endpoint that is none, or cannot be bound.
  static result<std::unique_ptr<kv_event_source>>
  start(kv_event_source_options options, kv_event_callbacks callbacks);
  /// Stops at once, but for a callback that is running.
  ~kv_event_source();
  kv_event_source(const kv_event_source&) = delete;
  kv_event_source& operator=(const kv_event_source&) = delete;

  /// Where it listens or connects to; of "tcp://127.0.0.1:*", with the port it was given.
  std::string endpoint() const;
  /// From any thread.
  kv_event_source_counters counters() const;

private:
  struct state;
  explicit kv_event_source(std::unique_ptr<state> made);
  std::unique_ptr<state> state_;
};

} // namespace llumnix
