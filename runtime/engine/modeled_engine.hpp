#pragma once

#include "runtime/engine/batch_scheduler.hpp"
#include "runtime/engine/engine.hpp"
#include "runtime/engine/engine_status.hpp"
#include "runtime/engine/modeled_setup.hpp"

#include <memory>
#include <unordered_map>

namespace llumnix {

/// A stand-in for vLLM without a model (spec/modeled_engine.md): it batches, caches, preempts and
/// takes its time like one, and its tokens are read off real KV bytes, so that a block lost, stale
/// or misplaced shows in the client's text as `broken` tokens.
class modeled_engine final : public stepped_engine {
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

  /// Accounts of its KV blocks.
  const block_manager& blocks() const { return blocks_; }
  /// Tokens a request may have, prompt and output together.
  std::uint32_t max_model_len() const { return setup_.max_model_len; }
  /// Their bytes; whoever changes them is found out.
  kv_pool& pool() { return pool_; }
  /// Requests whose KV was found bad.
  std::uint64_t broken_requests() const { return broken_; }

private:
  modeled_engine(modeled_setup setup, kv_pool pool);

  result<void> validate(const inference_request& request) const;
  void note_arrivals();
  void tell_over(step_result& result);
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
  std::vector<engine_request*> ended_;    ///< in this step
  std::vector<std::string> seen_waiting_; ///< not taken yet
  std::uint64_t arrivals_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t broken_ = 0;
  std::uint32_t version_ = 1;      ///< of what `status` tells
  mutable instance_status status_; ///< as of version `status_.update_id`
};

} // namespace llumnix
