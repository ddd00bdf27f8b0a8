#include "runtime/cluster/cms_store.hpp"

#include "config/json_text.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"

#include <algorithm>
#include <cmath>

namespace llumnix {

namespace {

constexpr std::size_t waiting_ids_max = 1u << 16; ///< of both lists of a status

} // namespace

std::string_view flaw_of(const instance_metadata& x) {
  if (x.instance_id.empty())
    return "a key without an instance id";
  if (!is_utf8(x.instance_id)) // of its key; the other texts were read as UTF-8
    return "an instance id that is no UTF-8";
  if (std::ranges::any_of(x.instance_id, [](unsigned char c) { return c < ' ' || c == 127; }))
    return "an instance id with control characters";
  if (!parse_infer_type(x.instance_type))
    return "instance_type is none of neutral, prefill and decode";
  if (!std::isfinite(x.utc_create) || !std::isfinite(x.utc_update))
    return "a time that is no number";
  return {};
}

std::string_view flaw_of(const instance_status& x) {
  if (x.timestamp_ms < 0)
    return "a timestamp before 1970";
  if (x.recent_waiting_requests.size() + x.waiting_requests.size() > waiting_ids_max)
    return "more than 65536 waiting requests";
  for (double value :
       {x.kv_cache_usage_ratio_migrate_in, x.kv_cache_usage_ratio_migrate_out,
        x.available_kv_cache_usage_ratio_migrate_in, x.available_kv_cache_usage_ratio_migrate_out,
        x.step_duration})
    if (!std::isfinite(value))
      return "a value that is no number";
  return {};
}

} // namespace llumnix
