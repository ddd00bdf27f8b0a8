#pragma once

#include "runtime/scheduling/kv_index.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

namespace llumnix {

/// An index that knows what it is told, answers at once and forgets nothing: for tests and small
/// simulations. Not for several threads.
class kv_index_memory final : public kv_index {
public:
  explicit kv_index_memory(holder_naming named_by = holder_naming::instance)
    : named_by_{named_by} {}

  /// From now on `holder` holds all of this prompt.
  void put(const std::string& holder, std::vector<token_id> prompt) {
    held_.emplace(holder, std::move(prompt));
  }
  /// Fails from now on; without an error it answers again.
  void fail(std::optional<error> why) { failure_ = std::move(why); }

  void find(std::span<const token_id> prompt, std::string_view, answer done) override {
    if (failure_)
      return done(*failure_);
    prefix_holders found{named_by_, {}};
    for (const auto& [holder, held] : held_) {
      auto end = std::mismatch(prompt.begin(), prompt.end(), held.begin(), held.end()).first;
      auto tokens = static_cast<std::uint32_t>(end - prompt.begin());
      if (tokens == 0)
        continue;
      if (found.list.empty() || found.list.back().name != holder)
        found.list.push_back({holder, 0});
      found.list.back().tokens = std::max(found.list.back().tokens, tokens);
    }
    done(std::move(found));
  }

private:
  holder_naming named_by_;
  std::multimap<std::string, std::vector<token_id>> held_;
  std::optional<error> failure_;
};

} // namespace llumnix
