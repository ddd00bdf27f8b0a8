#pragma once

#include "net/upstream_pool.hpp"
#include "runtime/base/error.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix {

/// What an engine behind HTTP can be asked about itself.
enum class topic : std::uint8_t { health, metrics, models, version, aborts, tokens };

/// Where it is asked.
std::string_view path_of(topic about);

/// The request that asks for it. Answers are bounded to 1 MiB, /metrics to 4 MiB. `patience`: the
/// longest silence. `key`: the engine's; empty: it has none.
net::upstream_request ask_engine(
  topic about, std::string address, std::chrono::milliseconds patience, const std::string& key);

/// What came of a question.
struct engine_answer {
  errc outcome = errc::ok; ///< anything else: the answer is not whole
  int status = 0;          ///< HTTP; 0: none came
  std::string body;

  bool whole() const { return outcome == errc::ok; }
  bool good() const { return whole() && status == 200; }
  /// Worth asking again: it said nothing, or that this is not the time.
  bool may_change() const { return !whole() || status >= 500 || status == 408 || status == 429; }
};

} // namespace llumnix
