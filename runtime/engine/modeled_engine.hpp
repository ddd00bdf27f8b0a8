#pragma once

#include "runtime/engine/batch_scheduler.hpp"
#include "runtime/engine/engine.hpp"
#include "runtime/engine/engine_status.hpp"
#include "runtime/engine/modeled_setup.hpp"
#include "runtime/engine/moving.hpp"

#include <memory>
#include <unordered_map>

namespace llumnix {

/// A stand-in for vLLM without a model (spec/modeled_engine.md): it batches, caches, preempts and
/// takes its time like one, and its tokens are read off real KV bytes, so that a block lost, stale
/// or misplaced shows in the client's text as `broken` tokens.
///
/// Its requests can be moved: `modeled_moves.cpp`.
class modeled_engine final : public stepped_engine, private moving_requests {
public:
  /// `invalid_argument` and `not_found` name the knob at fault; `out_of_blocks`: no room for the KV
  /// pool.
  static result<std::unique_ptr<modeled_engine>> make(const engine_config& config);

  engine_capabilities capabilities() const override;
  result<void> submit(inference_request request) override;
  bool abort(const stream_ref& stream, std::uint32_t epoch) override;
  void grant(const stream_ref& stream, std::uint32_t epoch, std::uint32_t credit) override;
  bool holds(const stream_ref& stream, std::uint32_t epoch) const override;
  step_result step(time_point now) override;
  bool has_work() const override;
  instance_status status() const override;
  std::vector<std::string> take_seen_waiting() override;
  void note_kv_changes(bool wanted) override;
  kv_changes take_kv_changes() override;
  std::vector<kv_changes> cached_kv() const override;
  moving_requests* moving() override { return this; }

  /// Accounts of its KV blocks.
  const block_manager& blocks() const { return blocks_; }
  /// Tokens a request may have, prompt and output together.
  std::uint32_t max_model_len() const { return setup_.max_model_len; }
  /// Their bytes; whoever changes them is found out.
  kv_pool& pool() { return pool_; }
  /// Requests whose KV was found bad.
  std::uint64_t broken_requests() const { return broken_; }
  /// Whether each block is held as often as requests, pins and rooms say, and is free else
  /// (spec/migration.md I-3); walks everything. For tests.
  bool conserves_blocks() const;

private:
  /// A request on its way out.
  struct pin_hold {
    engine_request* request = nullptr; ///< null once it is gone
    std::vector<block_index> blocks{}; ///< pinned
    bool pins = true;                  ///< false: only waits for a frozen request to be let go
  };
  /// Room for one on its way in. Its `computed` positions are ready, those from `prefill_tokens` on
  /// not asked for; it is in none of the engine's lists but that of what is computed ahead.
  struct room {
    std::unique_ptr<engine_request> request;
    std::uint32_t present_tokens = 0; ///< shared with the prefix cache
  };
  using pin_holds = std::unordered_map<handover_id, pin_hold, handover_id_hash>;
  using rooms = std::unordered_map<handover_id, room, handover_id_hash>;

  modeled_engine(modeled_setup setup, kv_pool pool);

  kv_geometry geometry() const override;
  std::span<std::byte> kv_memory() override;
  std::vector<movable_request> movable() const override;
  bool decode_elsewhere(const stream_ref& stream, std::uint32_t epoch) override;
  void decode_here(const stream_ref& stream, std::uint32_t epoch) override;
  result<leaving_request>
  pin(const handover_id& id, const stream_ref& stream, std::uint32_t epoch) override;
  result<leaving_request> look(const handover_id& id) override;
  result<leaving_request> freeze(const handover_id& id) override;
  void thaw(const handover_id& id, std::uint32_t epoch) override;
  void drop(const handover_id& id) override;
  void unpin(const handover_id& id) override;
  result<arriving_room>
  reserve(const handover_id& id, const inference_request& request, std::uint32_t headroom) override;
  result<void>
  landed(const handover_id& id, std::span<const token_id> ids, std::uint32_t from, std::uint32_t to)
    override;
  void compute_ahead(const handover_id& id, std::span<const token_id> ids) override;
  std::uint32_t ready_tokens(const handover_id& id) const override;
  result<void> adopt(
    const handover_id& id, inference_request request, std::uint32_t sent, time_point now) override;
  void give_up(const handover_id& id) override;
  std::uint32_t pinned_blocks() const override;
  std::uint32_t reserved_blocks() const override;

  leaving_request tell_leaving(pin_hold& hold);
  void let_go(pin_holds::iterator hold);
  void forget_pinned(const engine_request& request);
  std::uint32_t capacity(const room& in) const;
  result<void> verify_landed(room& in, std::uint32_t from, std::uint32_t to);
  result<void>
  validate_adopted(const room& in, const inference_request& request, std::uint32_t sent) const;
  void collect_moves(instance_status& status) const;

  result<void> validate(const inference_request& request) const;
  result<void> validate_epoch(const inference_request& request) const;
  void note_over(engine_request& request);
  void note_arrivals();
  void tell_over(step_result& result);
  void tell_adopted(step_result& result);
  void tell_untold(engine_request& request, token_delta& delta) const;
  void compute(const scheduled_request& share);
  void verify(engine_request& request);
  void distrust(engine_request& request, std::uint32_t table_index);
  void emit(engine_request& request, step_result& result);
  void remove(engine_request& request);
  bool read_tokens(const block_manager::cached_block& from, std::vector<token_id>& tokens) const;

  modeled_setup setup_;
  kv_pool pool_;
  block_manager blocks_;
  batch_scheduler scheduler_;
  std::unordered_map<stream_ref, std::unique_ptr<engine_request>, stream_ref_hash> requests_;
  std::vector<engine_request*> arrived_;  ///< since the last step
  std::vector<engine_request*> over_;     ///< had ended before they came
  std::vector<engine_request*> adopted_;  ///< with ids that are still untold
  std::vector<engine_request*> ended_;    ///< in this step
  std::vector<std::string> seen_waiting_; ///< not taken yet
  pin_holds pins_;
  rooms rooms_;
  std::uint64_t arrivals_ = 1ull << 63; ///< the next one
  std::uint64_t fronts_ = arrivals_;    ///< the last one put in front
  std::uint64_t steps_ = 0;
  std::uint64_t broken_ = 0;
  std::uint32_t version_ = 1;      ///< of what `status` tells
  mutable instance_status status_; ///< as of version `status_.update_id`
};

} // namespace llumnix
