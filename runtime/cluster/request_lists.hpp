#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

/// A request as its instance tells of it.
struct listed_request {
  std::string id;
  std::int32_t tokens = 0;        ///< prompt and output
  std::int32_t output_tokens = 0; ///< of them, generated
  bool high_priority = false;
  bool migrating = false;
  friend bool operator==(const listed_request&, const listed_request&) = default;
};

/// The requests of an instance one by one, where they are known; a status tells only their number.
struct request_lists {
  std::optional<std::vector<listed_request>> running; ///< in the order they began to run
  std::optional<std::vector<listed_request>> waiting; ///< front of the queue first
};

} // namespace llumnix
