#pragma once

#include "integrations/discovery/pod_record.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/discovery.hpp"

#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <vector>

namespace llumnix::testing {

using namespace std::chrono_literals;

/// A loop whose clock the test moves.
struct hand_loop final : executor {
  time_point time{1h};
  std::deque<std::function<void()>> posted;

  void post(std::function<void()> work) override { posted.push_back(std::move(work)); }
  clock::time_point now() const override { return time; }
  void run_posted() {
    while (!posted.empty()) {
      auto work = std::move(posted.front());
      posted.pop_front();
      work();
    }
  }
};

/// What a source told.
struct heard_lists {
  std::vector<std::vector<discovered_engine>> lists;

  discovery::listener listener() {
    return [this](std::vector<discovered_engine> list) { lists.push_back(std::move(list)); };
  }
  std::size_t times() const { return lists.size(); }
  /// The ids of the last list, joined by blanks; "-" if there is none.
  std::string ids() const {
    std::string all;
    for (const auto& engine : lists.empty() ? std::vector<discovered_engine>{} : lists.back())
      all += (all.empty() ? "" : " ") + engine.id;
    return lists.empty() ? "-" : all;
  }
};

/// The record of a pod with one neutral rank at 10.0.0.LAST:8000, written at that time.
inline std::string record_of(const std::string& pod, int last = 1, unix_ms written = 1) {
  return encode(
    {pod, written, {{"neutral", "10.0.0." + std::to_string(last), 8000, "", 0, 0, 1, "", 1}}});
}

inline unix_ms utc_now() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

} // namespace llumnix::testing
