#pragma once

#include "runtime/base/result.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// What is said to Mooncake's metadata service and what it answers (spec/scheduling.md 8.2).
namespace llumnix::mooncake {

/// One request, asking for the first `keys` of those there are.
struct batch_query {
  std::string target; ///< path and query
  std::size_t keys = 0;
};

/// Asks for as many keys, from the first on, as a target of at most `bytes_max` bytes takes; for
/// one at least. There must be one.
batch_query ask_holders(std::span<const std::string> keys, std::size_t bytes_max);

/// Reads the hosts that hold each of `keys`, in their order and as told: perhaps the same one
/// several times, none for a key the answer does not speak of. `bad_message` for what is not such
/// an answer; `internal` if it says that it failed.
result<std::vector<std::vector<std::string>>>
read_holders(std::string_view body, std::span<const std::string> keys);

} // namespace llumnix::mooncake
