#include "runtime/scheduling/adaptive_pd.hpp"

#include <cstdint>

namespace llumnix {

namespace {

std::int64_t decode_batch(const instance_status& x) {
  return std::int64_t{x.hybrid_scheduler_waiting_to_decode_requests_num} + x.num_loading_requests
         + x.scheduler_waiting_to_decode_requests_num + x.scheduler_running_to_decode_requests_num;
}

std::int64_t prefill_tokens(const instance_status& x) {
  return std::int64_t{x.num_uncomputed_tokens_all_waiting_prefills}
         + x.num_uncomputed_tokens_scheduler_running_prefills;
}

/// The first instance with the smallest number.
struct least {
  instance_id instance;
  std::int64_t number = 0;

  void offer(const instance_id& id, std::int64_t value) {
    if (instance.empty() || value < number)
      instance = id, number = value;
  }
};

} // namespace

std::optional<infer_type> reservations::of(const instance_id& id) const {
  if (id.empty())
    return std::nullopt;
  if (id == prefill)
    return infer_type::prefill;
  if (id == decode)
    return infer_type::decode;
  return std::nullopt;
}

void reservations::forget(const instance_id& id) {
  if (prefill == id)
    prefill.clear();
  if (decode == id)
    decode.clear();
}

void fill(
  reservations& reserved, const cluster_view& view, unix_ms now, std::uint32_t staleness_s) {
  auto takes_work = [&](const instance_view& x) {
    return x.has_status && x.status.schedulable && x.state == instance_state::ready
           && (now - x.status.timestamp_ms) / 1000 <= std::int64_t{staleness_s};
  };
  for (auto* role : {&reserved.prefill, &reserved.decode})
    if (auto* known = view.find(*role); !known || !takes_work(*known))
      role->clear();
  if (reserved.complete())
    return;
  for (auto& [id, known] : view.instances()) {
    if (!takes_work(known))
      continue;
    if (reserved.decode.empty() && id != reserved.prefill && prefill_tokens(known.status) == 0)
      reserved.decode = id;
    if (reserved.prefill.empty() && id != reserved.decode && decode_batch(known.status) == 0)
      reserved.prefill = id;
    if (reserved.complete())
      return;
  }
  auto least_of = [&](const instance_id& taken, auto number) {
    least found;
    for (auto& [id, known] : view.instances())
      if (id != taken && takes_work(known))
        found.offer(id, number(known.status));
    return found.instance;
  };
  if (reserved.decode.empty())
    reserved.decode = least_of(reserved.prefill, decode_batch);
  if (reserved.prefill.empty())
    reserved.prefill = least_of(reserved.decode, prefill_tokens);
}

} // namespace llumnix
