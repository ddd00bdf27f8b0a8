#pragma once

#include "apps/decide/scene.hpp"
#include "apps/decide/scene_setup.hpp"
#include "runtime/scheduling/candidate_table.hpp"
#include "runtime/scheduling/dispatcher.hpp"

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix {

/// The cluster of a scene as the scheduler sees it once it has heard everything the scene tells.
class scene_cluster {
public:
  /// Both outlive the cluster; the setup's policy has been checked.
  scene_cluster(const scene& from, const scene_setup& setup);

  class dispatcher& dispatcher() {
    return dispatcher_;
  }

  /// What a store says about the request's prompt; none: it is not asked.
  const std::optional<prefix_hits>& hits() const { return hits_; }
  /// The request, if there is one; its mode and stage are the caller's to set.
  std::optional<placement_query> query() const;

  /// Every metric that can be computed of an instance, for the request unless told otherwise.
  std::vector<std::pair<std::string, float>>
  metrics(const instance_id& id, bool with_request = true);
  float metric(const instance_id& id, std::string_view name, bool with_request = true);

  /// The table of `config.profiles` that a value of a metric would have to come from, but that the
  /// scene does not have: "ttft", "tpot", or empty. A given value comes from nowhere.
  std::string_view missing_profile(const instance_id& id, std::string_view metric);

  /// All instances, whatever their role, as rescheduling looks at them.
  candidate_table candidates(std::vector<metric_column> columns);
  /// As given, or as they follow (spec/cms.md 5).
  reservations reserved();

private:
  void add(const scene_instance& each);
  std::optional<prefix_hits> find_hits() const;

  const scene& scene_;
  const scene_setup& setup_;
  std::map<instance_id, given_metrics> given_;
  class dispatcher dispatcher_;
  std::optional<prefix_hits> hits_;
};

} // namespace llumnix
