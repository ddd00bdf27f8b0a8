#pragma once

#include "runtime/base/time.hpp"

#include <deque>
#include <string>
#include <vector>

namespace llumnix {

/// Ids of requests lately seen waiting: a scheduler that looks seldom still learns that they
/// arrived (spec/cms.md 1.2, field 6). Statuses under way carry only what is new; whoever must show
/// the whole list gathers it here.
class recent_waiting {
public:
  /// Notes requests seen waiting at the start of a step, and drops what was noted more than 10 s
  /// ago.
  void add(const std::vector<std::string>& ids, time_point now);
  /// What is left at `now`, oldest first.
  std::vector<std::string> ids(time_point now) const;

private:
  struct entry {
    time_point since;
    std::string id;
  };
  std::deque<entry> seen_; ///< oldest first
};

} // namespace llumnix
