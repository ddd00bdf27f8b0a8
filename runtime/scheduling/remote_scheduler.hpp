#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/result.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

/// A request that another scheduler is to place.
struct remote_question {
  std::string request;     ///< text id, by which it is released
  std::uint32_t epoch = 0; ///< grows with each placement of the request
  std::string model;
  std::uint32_t prompt_tokens = 0;
  std::vector<token_id> prompt; ///< empty: not known
};

/// REMOTE SCHEDULER port: a scheduler outside of this cluster that places requests for engines
/// behind HTTP. The reference's scheduler API in production, a script in tests. From any thread.
class remote_scheduler {
public:
  /// The address, HOST:PORT, of the engine that is to serve a request. `no_instance`: nobody can
  /// take it now, so ask again later. Any other error: it cannot be asked.
  using answer = std::function<void(result<std::string>)>;

  virtual ~remote_scheduler() = default;
  /// Whether it is worth asking. While it is not, it is tried by itself.
  virtual bool ready() const = 0;
  /// `told` is called once, in bounded time, on any thread. Until it is released the request counts
  /// there.
  virtual void place(remote_question question, answer told) = 0;
  /// All placements of the request are over, also those still being asked for. Unknown ones do no
  /// harm.
  virtual void release(std::string request) = 0;
};

} // namespace llumnix
