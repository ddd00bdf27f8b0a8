#pragma once

#include "runtime/scheduling/kv_index.hpp"

#include <deque>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix::testing {

/// An index that answers when the test says so.
struct scripted_index final : kv_index {
  void find(std::span<const token_id> prompt, std::string_view, answer done) override {
    asked.emplace_back(prompt.begin(), prompt.end());
    waiting.push_back(std::move(done));
  }
  void tell(result<prefix_holders> found) {
    auto done = std::move(waiting.front());
    waiting.pop_front();
    done(std::move(found));
  }

  std::vector<std::vector<token_id>> asked;
  std::deque<answer> waiting;
};

} // namespace llumnix::testing
