#pragma once

#include "scene.hpp"

namespace llumnix::testing {

/// What requests that are over may have left behind, over all instances: blocks in use, hand-overs
/// and requests under way, as statuses and actors say.
struct leftovers {
  std::uint64_t used = 0;
  std::uint64_t moving = 0;
  std::uint64_t running = 0;
  std::size_t silent = 0; ///< instances that tell nothing
  friend bool operator==(const leftovers&, const leftovers&) = default;
};

/// `instances`: as many must be there and tell.
inline leftovers leftovers_of(scene& there, std::size_t instances) {
  leftovers found;
  std::size_t told = 0;
  for (const auto& instance : there.list_of("instances", "cluster")) {
    if (instance.at("status_age_ms").is_null())
      continue;
    ++told;
    found.used += instance.at("kv_blocks").at("used").get<std::uint64_t>();
    found.moving += instance.at("migrations").at("in").get<std::uint64_t>()
                    + instance.at("migrations").at("out").get<std::uint64_t>();
    found.running += instance.at("scheduling").at("running").get<std::uint64_t>();
  }
  found.silent = instances - told;
  for (const auto& actor : there.list_of("actors", "actors"))
    for (const char* what : {"departing", "arriving", "prefills"})
      if (actor.at("state").contains(what))
        found.moving += actor.at("state").at(what).get<std::uint64_t>();
  return found;
}

} // namespace llumnix::testing
