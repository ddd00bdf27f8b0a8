#include "runtime/scheduling/relayed_latency.hpp"

namespace llumnix {

void relayed_latency::placed(const stream_ref& stream, const instance_id& engine, infer_type role) {
  left(stream);
  open_.emplace(stream, open_request{engine, role, ++running_[engine]});
}

void relayed_latency::left(const stream_ref& stream) {
  if (auto at = open_.find(stream); at != open_.end())
    take_out(at);
}

/// How many ran at its engine, itself included.
std::uint32_t relayed_latency::take_out(std::map<stream_ref, open_request>::iterator at) {
  auto running = running_.find(at->second.engine);
  auto count = running->second--;
  if (running->second == 0)
    running_.erase(running);
  open_.erase(at);
  return count;
}

void relayed_latency::ended(const stream_end& end) {
  auto at = open_.find(end.stream);
  if (at == open_.end())
    return;
  auto request = at->second;
  auto batch = (request.beside + take_out(at) + 1) / 2;
  bool whole = end.outcome != "cancelled" && end.outcome != "failed";
  if (!whole || end.placements != 1)
    return;
  auto& seen = seen_[static_cast<std::size_t>(request.role)];
  if (auto ttft = end.times.ttft_of_placement_ms(); ttft && request.beside == 1)
    seen.saw_prefill(end.prompt_tokens, *ttft);
  auto tokens = end.prompt_tokens + end.output_tokens / 2; // halfway
  if (auto tpot = end.times.tpot_ms(end.output_tokens))
    seen.saw_decode_step(batch, std::uint64_t{batch} * tokens, *tpot);
}

} // namespace llumnix
