#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace llumnix::relay {

/// How to speak to an engine.
struct engine_endpoint {
  std::string address;         ///< HOST:PORT
  bool token_ids = false;      ///< tells token ids when asked for them, and takes them as a prompt
  bool continues_text = false; ///< goes on with a text when told to, and counts its tokens by chunk
  std::uint32_t context_tokens = 0; ///< that its model can hold; 0: not known
  time_point resting_until{};       ///< it asked to be left alone until then (`Retry-After`)
};

/// The engines behind HTTP as one I/O loop knows them; the loop's thread alone uses it.
class engine_directory {
public:
  void put(const instance_id& id, engine_endpoint endpoint) {
    auto& known = engines_[id];
    endpoint.resting_until = known.resting_until;
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
  /// Those that asked to be left alone.
  std::vector<instance_id> resting(time_point now) const {
    std::vector<instance_id> all;
    for (const auto& [id, engine] : engines_)
      if (engine.resting_until > now)
        all.push_back(id);
    return all;
  }
  /// Whether there are others than these.
  bool any_beside(const std::vector<instance_id>& these) const {
    return std::any_of(engines_.begin(), engines_.end(), [&](const auto& each) {
      return std::find(these.begin(), these.end(), each.first) == these.end();
    });
  }

private:
  std::map<instance_id, engine_endpoint> engines_;
};

} // namespace llumnix::relay
