#pragma once

#include "runtime/base/ids.hpp"

#include <cstddef>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

namespace llumnix {

/// Which instance took the last request of a session. Remembers a bounded number of sessions; the
/// one that was quiet for the longest time is forgotten first.
class session_memory {
public:
  explicit session_memory(std::size_t sessions_max) : sessions_max_{sessions_max} {}

  /// Null where nothing is known. Good until the next `remember`.
  const instance_id* last_of(std::string_view session) const;
  void remember(std::string_view session, const instance_id& instance);
  std::size_t size() const { return known_.size(); }

private:
  struct entry {
    std::string session;
    instance_id instance;
  };
  std::size_t sessions_max_;
  std::list<entry> known_; ///< the last heard of first
  std::unordered_map<std::string_view, std::list<entry>::iterator> places_; ///< in `known_`
};

} // namespace llumnix
