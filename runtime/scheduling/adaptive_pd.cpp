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

void fill(reservations& reserved, const cluster_view& view) {
  least decodes, prefills;
  for (auto& [id, known] : view.instances()) {
    if (reserved.complete())
      return;
    if (!known.has_status)
      continue;
    auto batch = decode_batch(known.status);
    auto work = prefill_tokens(known.status);
    if (reserved.decode.empty() && work == 0)
      reserved.decode = id;
    if (reserved.prefill.empty() && batch == 0 && id != reserved.decode)
      reserved.prefill = id;
    decodes.offer(id, batch);
    if (id != reserved.decode)
      prefills.offer(id, work);
  }
  if (reserved.decode.empty())
    reserved.decode = decodes.instance;
  if (reserved.prefill.empty())
    reserved.prefill = prefills.instance;
}

} // namespace llumnix
