#include "runtime/migration/autoscaling_policy.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace llumnix {

namespace {

using enum scaling_action;
using instances_left = std::vector<const scalable_instance*>;

std::string in_words(double steps) {
  if (std::isinf(steps))
    return steps > 0 ? "infinite" : "minus infinite";
  char text[32];
  std::snprintf(text, sizeof text, "%g", steps);
  return text;
}

result<void> check(const scaling_band& band) {
  std::string problems;
  auto unless = [&](bool good, const char* what) {
    if (!good)
      problems.append(problems.empty() ? "" : "; ").append(what);
  };
  unless(!std::isnan(band.low), "low is not a number");
  unless(!std::isnan(band.high), "high is not a number");
  unless(!(band.low > band.high), "low is above high");
  unless(band.least >= 0, "min is below 0");
  unless(band.least <= band.most, "min is above max");
  if (!problems.empty())
    return {errc::invalid_argument, std::move(problems)};
  return {};
}

double average_of(const instances_left& ready) {
  constexpr double infinite = std::numeric_limits<double>::infinity();
  if (ready.empty())
    return infinite;
  double sum = 0;
  for (auto* instance : ready) {
    if (instance->freeness == -infinite)
      return -infinite; // not the sum: beside an idle one that would be no number at all
    sum += static_cast<double>(instance->freeness);
  }
  return sum / static_cast<double>(ready.size());
}

void choose_action(
  const instances_left& ready, const scaling_band& band, scaling_decision& decision) {
  auto count = static_cast<std::int64_t>(ready.size());
  auto average = "average freeness is " + in_words(decision.average);
  auto decide = [&](scaling_action action, std::string reason) {
    decision.action = action;
    decision.reason = std::move(reason);
  };
  if (ready.empty() && band.least > 0)
    return decide(scale_out, "no instance is ready");
  if (decision.average < band.low) {
    if (count < band.most)
      return decide(scale_out, average + ", below the band");
    return decide(none, average + ", below the band, and there may be no more instances");
  }
  if (decision.average > band.high) {
    if (count > band.least)
      return decide(scale_in, average + ", above the band");
    return decide(none, average + ", above the band, and there may be no fewer instances");
  }
  decide(none, average + ", within the band");
}

} // namespace

std::string_view to_string(scaling_action action) {
  switch (action) {
    case none: return "none";
    case scale_out: return "scale_out";
    case scale_in: return "scale_in";
  }
  return "unknown";
}

result<scaling_decision>
scale(std::span<const scalable_instance> instances, const scaling_band& band) {
  if (auto good = check(band); !good)
    return std::move(good).error();
  instances_left ready;
  const scalable_instance* silent = nullptr;
  for (auto& instance : instances)
    if (instance.state == instance_state::ready) {
      ready.push_back(&instance);
      if (!instance.reported && !silent)
        silent = &instance;
    }
  scaling_decision decision{.average = average_of(ready), .leaves = {}, .reason = {}};
  if (silent) {
    decision.reason = silent->id + " has not reported yet";
    return decision;
  }
  choose_action(ready, band, decision);
  if (decision.action == scale_in)
    decision.leaves
      = (*std::ranges::min_element(
           ready, {},
           [](const scalable_instance* x) {
             return std::pair<std::int32_t, const instance_id&>{x->running_requests, x->id};
           }))
          ->id;
  return decision;
}

} // namespace llumnix
