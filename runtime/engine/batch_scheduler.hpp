#pragma once

#include "runtime/engine/block_manager.hpp"
#include "runtime/engine/engine_request.hpp"

#include <set>
#include <vector>

namespace llumnix {

/// One request's share of a step.
struct scheduled_request {
  engine_request* request = nullptr;
  std::uint32_t tokens = 0; ///< positions to compute, from `request->computed` on
};

/// What the next step computes, in order of service.
struct batch {
  std::vector<scheduled_request> requests;
  std::uint32_t preemptions = 0;
};

/// Limits of a step, as vLLM names them.
struct batch_limits {
  std::uint32_t max_num_seqs = 256;
  std::uint32_t max_num_batched_tokens = 2048;
};

/// Who computes what next: continuous batching with chunked prefill as vLLM V1 does it.
///
/// Running requests come first, then waiting ones are admitted while seats, tokens and blocks last.
/// Where a running request finds no block, the last in order of service loses its own and waits to
/// be computed anew. A request without credit is passed over. It keeps seat and blocks while others
/// can go on without them; when nobody can, it is preempted.
///
/// Rooms of requests on their way in are computed ahead, in line with those that wait; they have
/// their blocks and take no seat. Pins and rooms may hold so many blocks that nobody can run.
class batch_scheduler {
public:
  using queue = std::set<engine_request*, served_before>;

  /// `blocks` outlives the scheduler; `block_tokens` is their size.
  batch_scheduler(batch_limits limits, block_manager& blocks, std::uint32_t block_tokens);

  /// Lets a request wait. It stays the caller's and must not move until removed.
  void add(engine_request& request);
  /// Forgets a request and frees its blocks.
  void remove(engine_request& request);
  /// Takes a request out of batch or queue with its blocks, and puts it back there.
  void freeze(engine_request& request);
  void thaw(engine_request& request);
  /// Lets a request run that has blocks already, beyond `max_num_seqs` if need be. Those of its
  /// positions that are computed are cached.
  void adopt(engine_request& request);
  /// Computes a room up to its `prefill_tokens`, now and whenever that is raised.
  void compute_ahead(engine_request& room);
  /// Forgets a room; its blocks are its own.
  void forget_ahead(engine_request& room);
  /// Decides the next step and takes its blocks; `computed` is left to whoever computes. The result
  /// is valid until the next call. Empty only if no request has credit, or none gets blocks.
  const batch& plan(time_point now);
  /// Whether `plan` would schedule anything.
  bool has_work() const;

  const queue& waiting() const { return waiting_; }
  /// In order of service.
  const std::vector<engine_request*>& running() const { return running_; }

private:
  void plan_running();
  void plan_waiting(bool admits);
  bool admit(engine_request& request);
  bool extend(engine_request& request, std::uint32_t tokens);
  void schedule(engine_request& request, std::uint32_t tokens);
  void enter(engine_request& request);
  void run(engine_request& request);
  void cache(engine_request& request, std::uint32_t from, std::uint32_t to);
  void preempt(engine_request& request);
  engine_request& victim(std::size_t first) const;
  engine_request* next_waiting() const;

  batch_limits limits_;
  block_manager& blocks_;
  std::uint32_t block_tokens_;
  queue waiting_;
  std::vector<engine_request*> running_;
  std::vector<engine_request*> ahead_; ///< rooms, in order of service
  batch batch_;
  std::uint64_t admissions_ = 0;
  std::uint32_t budget_ = 0; ///< tokens left in the step being planned
  time_point now_{};         ///< its start
};

} // namespace llumnix
