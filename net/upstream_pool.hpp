#pragma once

#include "net/http_message.hpp"
#include "runtime/base/error.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace llumnix::net {

/// Hears the answer to one request sent upstream. Called on the pool's loop, never from within
/// `send`. After `on_end` nothing follows. From within any of these, the call may be destroyed,
/// others may be sent, and even the pool may go; what they throw nobody catches.
class upstream_watcher {
public:
  virtual ~upstream_watcher() = default;
  /// Status and headers; the body is still to come.
  virtual void on_head(const http_reply& head) = 0;
  /// A piece of the body, its transfer coding undone. Pieces of one read of the socket come in a
  /// row, then `on_pause`.
  virtual void on_body(std::string_view piece) = 0;
  /// All that has arrived so far was handed over: time to write on what was gathered. Left out
  /// before `on_end`, which says the same.
  virtual void on_pause() = 0;
  /// The whole answer has come (`errc::ok`), or no more will: `unreachable` (no connection in time:
  /// the server knows nothing of it), `disconnected` (cut before or within the answer), `timeout`,
  /// `bad_message` (not HTTP), `too_long` (head or body), `invalid_argument` (a request that cannot
  /// be written down: an address that is not HOST:PORT, or what would end its line early).
  virtual void on_end(const error& failure) = 0;
};

/// One request under way. Destroying it before `on_end` gives it up at once: the connection is
/// closed, which is how an engine without an API for it learns that nobody wants the answer.
class upstream_call {
public:
  virtual ~upstream_call() = default;
  /// Stops reading the answer, so that the engine is slowed down by its socket; `resume` goes on.
  /// What was read already, up to 64 KiB, is still handed over. While held, neither silence nor the
  /// end of the connection is noticed.
  virtual void hold() = 0;
  virtual void resume() = 0;
};

struct upstream_options {
  std::chrono::milliseconds connect_timeout{2000};
  std::chrono::milliseconds idle_timeout{4000}; ///< of a kept connection: below the 5 s of uvicorn
  std::size_t idle_max = 256;                   ///< kept connections, all addresses together
  std::size_t max_header_bytes = 64 * 1024;
  /// While the loop is behind, streams are read only so often (`read_pace`); 0: always at once.
  std::chrono::milliseconds longest_pause{60};
  /// How much processor time the loop has wanted so far; what the system says unless it is given.
  std::function<std::chrono::nanoseconds()> demand{};
};

/// A text that somebody keeps as long as this.
struct shared_text {
  std::shared_ptr<const std::string> owner;
  std::string_view text; ///< within `*owner`
};

/// One request.
struct upstream_request {
  std::string address; ///< HOST:PORT; HOST may be a name or an IPv6 address in brackets
  std::string method = "POST";
  std::string target = "/"; ///< path and query
  header_list headers;      ///< host, content-length and connection are added, or replaced
  shared_text body_begin{}; ///< of the body; if it is large it is sent without being copied
  std::string body;         ///< the rest of it
  std::chrono::milliseconds silence{0};  ///< longest pause before and within the answer; 0: none
  std::size_t max_body_bytes = SIZE_MAX; ///< of the answer
  bool stream = false; ///< the answer may come in larger pieces while the loop is behind
};

/// Keep-alive connections to the servers behind us, on one I/O loop, whose thread alone uses it. A
/// request that finds its kept connection closed before any of the answer came is sent again, once,
/// on a new one.
class upstream_pool {
public:
  virtual ~upstream_pool() = default;
  /// Never fails by itself: what goes wrong is told to the watcher, which must live until `on_end`
  /// or until the call is destroyed.
  virtual std::unique_ptr<upstream_call> send(upstream_request request, upstream_watcher& watcher)
    = 0;
  /// Connections open now or being opened, busy and kept.
  virtual std::size_t connections() const = 0;
};

} // namespace llumnix::net
