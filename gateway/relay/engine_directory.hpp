#pragma once

#include "gateway/relay/engine_pulse.hpp"
#include "gateway/relay/engine_trouble.hpp"
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

/// What the I/O loops of a gateway know of an engine together.
struct engine_common {
  engine_trouble trouble;
  engine_signs signs;
};

/// What an engine must be and can for a request.
struct engine_wish {
  std::string_view model{}; ///< empty: any
  bool tokens = false;      ///< takes token ids and tells them: /inference/v1/generate
};

/// How to speak to an engine.
struct engine_endpoint {
  std::string address;         ///< HOST:PORT
  bool token_ids = false;      ///< tells token ids when asked for them, and takes them as a prompt
  bool continues_text = false; ///< goes on with a text when told to, and counts its tokens by chunk
  std::uint32_t context_tokens = 0; ///< that its model can hold; 0: not known
  std::optional<bool> tokens{};     ///< has /inference/v1/generate; nothing: not known yet
  /// Names of the models it serves, in any order; empty: not known, so any.
  std::vector<std::string> models{};
  std::vector<std::string> adapters{}; ///< those of them that are LoRAs
  bool draining = false; ///< it gets nothing new
  bool ready = true;     ///< takes work, as it said last; before that it may be tried
  std::shared_ptr<engine_common> common{}; ///< never null in the directory, nor is the next
  std::shared_ptr<engine_pulse> pulse{};

  time_point rest_end() const { return common->trouble.rest_end(); }

  /// `model` empty: any will do. Of one in the directory, where `models` are in order.
  bool serves(std::string_view model) const {
    return model.empty() || models.empty()
           || std::binary_search(models.begin(), models.end(), model);
  }
  bool suits(const engine_wish& wish) const {
    return serves(wish.model) && (!wish.tokens || tokens.value_or(false));
  }
};

/// The engines behind HTTP as one I/O loop knows them; the loop's thread alone uses it.
class engine_directory {
public:
  /// What is known of its troubles and its pulse stays, and whether it drains.
  void put(const instance_id& id, engine_endpoint endpoint) {
    if (!std::is_sorted(endpoint.models.begin(), endpoint.models.end()))
      std::sort(endpoint.models.begin(), endpoint.models.end());
    auto& known = engines_[id];
    endpoint.draining = known.draining;
    if (known.common)
      endpoint.common = std::move(known.common);
    else if (!endpoint.common)
      endpoint.common = std::make_shared<engine_common>();
    endpoint.pulse = known.pulse ? std::move(known.pulse)
                                 : std::make_shared<engine_pulse>(std::shared_ptr<engine_signs>{
                                     endpoint.common, &endpoint.common->signs});
    known = std::move(endpoint);
  }
  void remove(const instance_id& id) { engines_.erase(id); }
  void drain(const instance_id& id, bool on) {
    if (auto found = engines_.find(id); found != engines_.end())
      found->second.draining = on;
  }
  /// For all loops; null for an engine that is not known (any more).
  engine_trouble* trouble(const instance_id& id) const {
    const auto* engine = find(id);
    return engine ? &engine->common->trouble : nullptr;
  }

  /// Null for one that is not known (any more).
  const engine_endpoint* find(const instance_id& id) const {
    auto found = engines_.find(id);
    return found == engines_.end() ? nullptr : &found->second;
  }
  /// Where a request with this wish is not to go: `failed`, whoever does not suit it or drains, and
  /// whoever rests while others do not. If all rest it is for the one whose rest ends first. Whoever
  /// remains and is on trial is kept from others for a moment.
  std::vector<instance_id>
  unsuited(const engine_wish& wish, const std::vector<instance_id>& failed, time_point now);
  /// Whether others than these suit it and take work, as far as is known here.
  bool any_beside(const std::vector<instance_id>& these, const engine_wish& wish) const {
    return std::any_of(engines_.begin(), engines_.end(), [&](const auto& each) {
      return each.second.suits(wish) && each.second.ready && !each.second.draining
             && std::find(these.begin(), these.end(), each.first) == these.end();
    });
  }
  /// Whether it is known of all engines that serve a model, if there are any, that they have no
  /// /inference/v1/generate.
  bool nobody_takes_tokens(std::string_view model) const {
    auto serving = [&](const auto& each) { return each.second.serves(model); };
    return std::any_of(engines_.begin(), engines_.end(), serving)
           && std::none_of(engines_.begin(), engines_.end(), [&](const auto& each) {
                return serving(each) && each.second.tokens.value_or(true);
              });
  }
  /// Whether an engine lists a model as a LoRA.
  bool is_adapter(std::string_view model) const {
    return std::any_of(engines_.begin(), engines_.end(), [&](const auto& each) {
      const auto& adapters = each.second.adapters;
      return std::find(adapters.begin(), adapters.end(), model) != adapters.end();
    });
  }
  /// Those of which `is_such(id, engine)` holds.
  template <class Predicate>
  std::vector<instance_id> such(Predicate is_such) const {
    std::vector<instance_id> all;
    for (const auto& [id, engine] : engines_)
      if (is_such(id, engine))
        all.push_back(id);
    return all;
  }
  /// When an engine other than this one last began an answer, if one did to what was asked for
  /// after `asked_at`.
  std::optional<time_point> others_answered(const engine_pulse& silent, time_point asked_at) const {
    std::optional<time_point> latest;
    for (const auto& [id, engine] : engines_)
      if (engine.pulse.get() != &silent)
        latest = std::max(latest, engine.common->signs.answered_later_than(asked_at));
    return latest;
  }

private:
  std::map<instance_id, engine_endpoint> engines_;
};

} // namespace llumnix::relay
