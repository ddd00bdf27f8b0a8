#pragma once

#include "runtime/base/log.hpp"

#include <cstddef>
#include <set>
#include <string>
#include <utility>

namespace llumnix {

namespace log {
inline constexpr logger discovery{"discovery"};
} // namespace log

/// Remembers what was said already, so that each sentence is said once; at most `limit` of them,
/// and after that nothing.
class once_only {
public:
  explicit once_only(std::size_t limit = 1024) : limit_{limit} {}
  /// Whether this is the first time.
  bool first(std::string sentence) {
    return said_.size() < limit_ && said_.insert(std::move(sentence)).second;
  }

private:
  std::size_t limit_;
  std::set<std::string> said_;
};

} // namespace llumnix
