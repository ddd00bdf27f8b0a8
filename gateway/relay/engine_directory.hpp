#pragma once

#include "gateway/relay/engine_pulse.hpp"
#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix::relay {

/// How to speak to an engine.
struct engine_endpoint {
  std::string address;         ///< HOST:PORT
  bool token_ids = false;      ///< tells token ids when asked for them, and takes them as a prompt
  bool continues_text = false; ///< goes on with a text when told to, and counts its tokens by chunk
  std::uint32_t context_tokens = 0; ///< that its model can hold; 0: not known
  /// Names of the models it serves; empty: not known, so any.
  std::vector<std::string> models{};
  time_point resting_until{}; ///< left alone until then: it asked for it (`Retry-After`), or hangs
  std::shared_ptr<engine_pulse> pulse{}; ///< never null in the directory

  /// `model` empty: any will do.
  bool serves(std::string_view model) const {
    return model.empty() || models.empty()
           || std::find(models.begin(), models.end(), model) != models.end();
  }
};

/// The engines behind HTTP as one I/O loop knows them; the loop's thread alone uses it.
class engine_directory {
public:
  /// What is known of its rest and its pulse stays.
  void put(const instance_id& id, engine_endpoint endpoint) {
    auto& known = engines_[id];
    endpoint.resting_until = known.resting_until;
    endpoint.pulse = known.pulse ? std::move(known.pulse) : std::make_shared<engine_pulse>();
    known = std::move(endpoint);
  }
  void remove(const instance_id& id) { engines_.erase(id); }
  void rest(const instance_id& id, time_point until) {
    if (auto found = engines_.find(id); found != engines_.end())
      found->second.resting_until = until;
  }

  /// Null for one that is not known (any more).
  const engine_endpoint* find(const instance_id& id) const {
    auto found = engines_.find(id);
    return found == engines_.end() ? nullptr : &found->second;
  }
  /// Those that are left alone, or do not serve this model.
  std::vector<instance_id> unsuited(std::string_view model, time_point now) const {
    std::vector<instance_id> all;
    for (const auto& [id, engine] : engines_)
      if (engine.resting_until > now || !engine.serves(model))
        all.push_back(id);
    return all;
  }
  /// Whether others than these serve it.
  bool any_beside(const std::vector<instance_id>& these, std::string_view model) const {
    return std::any_of(engines_.begin(), engines_.end(), [&](const auto& each) {
      return each.second.serves(model)
             && std::find(these.begin(), these.end(), each.first) == these.end();
    });
  }
  /// When an engine other than this one last began an answer, if one did to what was asked for
  /// after `asked_at`.
  std::optional<time_point> others_answered(const engine_pulse& silent, time_point asked_at) const {
    std::optional<time_point> latest;
    for (const auto& [id, engine] : engines_)
      if (engine.pulse.get() != &silent)
        latest = std::max(latest, engine.pulse->answered_later_than(asked_at));
    return latest;
  }

private:
  std::map<instance_id, engine_endpoint> engines_;
};

} // namespace llumnix::relay
