#pragma once

#include "runtime/migration/migrate_call.hpp"

#include <deque>
#include <map>
#include <optional>
#include <string>

namespace llumnix {

/// Calls with a key (spec/llumlet.md 8.4, R-1): the same key again is the same call, which is not
/// done twice. Kept for ten minutes, the last 4096 of them.
class call_record {
public:
  struct entry {
    migrate_call call;
    std::optional<call_reply> reply{}; ///< none: it is under way
  };
  static constexpr std::size_t calls_max = 4096;
  static constexpr std::chrono::minutes kept_for{10};

  /// The call of that key; null if there was none lately.
  const entry* find(const std::string& key, time_point now);
  /// One that begins. Its key must not be there.
  void begin(const std::string& key, migrate_call call, time_point now);
  /// How it ended; ignored where it is forgotten.
  void end(const std::string& key, const call_reply& reply);
  /// Nothing came of it: the key is free again.
  void forget(const std::string& key);
  std::size_t size() const { return calls_.size(); }

private:
  void forget_old(time_point now);

  struct age {
    time_point begun;
    std::string key;
  };
  std::map<std::string, entry> calls_;
  std::deque<age> ages_; ///< oldest first
};

} // namespace llumnix
