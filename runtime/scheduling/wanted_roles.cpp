#include "runtime/scheduling/wanted_roles.hpp"

#include <algorithm>

namespace llumnix {

std::span<const infer_type>
roles_wanted(const placement_query& query, const roles_present& present) {
  static constexpr std::span<const infer_type> all{all_roles};
  auto only = [](infer_type role) { return all.subspan(static_cast<std::size_t>(role), 1); };
  if (query.mode == serving_mode::neutral)
    return present[0] ? only(infer_type::neutral) : std::span<const infer_type>{};
  if (std::ranges::count(present, true) < 2)
    return {};
  if (query.mode == serving_mode::pd_batch)
    return all.subspan(1);
  return query.stage == infer_type::neutral ? std::span<const infer_type>{} : only(query.stage);
}

std::string no_role(const placement_query& query, const roles_present& present) {
  if (query.mode == serving_mode::neutral)
    return "no neutral instance is known";
  if (std::ranges::count(present, true) < 2)
    return "prefill and decode apart want instances of two roles";
  return "no stage is asked for";
}

} // namespace llumnix
