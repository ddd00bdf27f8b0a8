#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace llumnix {

/// Why something expected did not happen. One list for the whole system; `http_status` maps it to
/// HTTP and `actors/protocol/caf_error` carries it through messages.
enum class errc : std::uint8_t {
  ok = 0,
  invalid_argument, ///< the caller's fault: a value nobody can work with
  not_found,        ///< no such instance, request, model or file
  too_long,         ///< the prompt, or prompt and output together, exceed the model's length
  queue_full,       ///< a bounded queue is full; try again later
  no_instance,      ///< no instance can take the request now
  out_of_blocks,    ///< no free KV blocks
  draining,         ///< the node or instance takes no new work
  stale,            ///< an epoch, incarnation or term that has been overtaken
  cancelled,        ///< the client went away
  timeout,          ///< no answer in time
  unreachable,      ///< the peer's node is not connected
  unsupported,      ///< the engine or the build cannot do this
  internal,         ///< a bug or a broken peer
  disconnected,     ///< a connection ended within an answer
  bad_message,      ///< a peer said what cannot be understood
};

std::string_view to_string(errc code);

/// The HTTP status a client sees for `code` when nothing better is known (429 for `queue_full`,
/// 503 for `no_instance`, 400 for `too_long`, ...). `ok` is 200.
int http_status(errc code);

/// An expected failure: a code for programs and a sentence for people.
struct error {
  errc code = errc::internal;
  std::string context; ///< what was wrong, innermost first; "schedule r1: no instance is ready"

  /// The same error, prefixed with what the caller was doing.
  error while_doing(std::string_view what) &&;
  friend bool operator==(const error&, const error&) = default;
};

/// "no_instance: schedule r1: ...".
std::string to_string(const error& failure);

} // namespace llumnix
