#include "apps/reference/flag_names.hpp"

#include "apps/reference/extra_args.hpp"

#include <algorithm>

namespace llumnix {

void name_flags(
  flag_table table, std::span<const flag_and_knob> own, given_flags given,
  std::vector<config_problem>& problems) {
  put_extra_args_on_top(table, given);
  auto sets = [&](std::string_view name, std::string_view knob) {
    const auto* flag = find_flag(table, name);
    return (flag && flag->fate == flag_fate::knob && flag->word == knob)
           || std::ranges::find(own, flag_and_knob{name, knob}) != own.end();
  };
  for (auto& each : problems)
    for (const auto& [name, value] : given)
      if (sets(name, each.path)) {
        each.path = dashed(name) + " (" + each.path + ")";
        break;
      }
}

} // namespace llumnix
