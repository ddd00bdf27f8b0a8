#pragma once

#include "net/http_message.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/result.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace llumnix::net {

class exchange;
class upstream_pool;
struct upstream_options;

/// Whoever answers an exchange and wants to know how it goes. Called on the exchange's loop.
class exchange_watcher {
public:
  virtual ~exchange_watcher() = default;
  /// The client went away before the reply was complete. Nothing further is called; write nothing
  /// more.
  virtual void on_gone() = 0;
  /// Everything written so far has been accepted by the kernel, after some of it had to wait.
  virtual void on_drained() = 0;
};

/// One request being answered on its connection. Confined to its loop. Answer it exactly once:
/// `reply`, or `begin_stream`, any number of `write` and `flush`, and `end_stream`. May be answered
/// later, after `on_request` returned; a client that goes away meanwhile is told to the watcher.
/// The next pipelined request is read only after the answer is complete.
class exchange {
public:
  virtual ~exchange() = default;
  /// The watcher must outlive the exchange or be replaced by null.
  virtual void watch(exchange_watcher* watcher) = 0;
  virtual void reply(http_reply whole) = 0;
  /// Starts a chunked reply; the head goes out with the first flush. A HEAD or HTTP/1.0 client gets
  /// what suits it.
  virtual void begin_stream(int status, const header_list& headers) = 0;
  /// Queues one chunk; sent by `flush`. Empty text writes nothing.
  virtual void write(std::string_view chunk) = 0;
  /// Writes what is queued, at once if the socket takes it.
  virtual void flush() = 0;
  virtual void end_stream() = 0;
  /// Drops the connection without completing the answer.
  virtual void abandon() = 0;
  /// Bytes written but not yet accepted by the kernel.
  virtual std::size_t backlog() const = 0;
  /// Since when the oldest byte of the backlog waits without the kernel taking any; meaningless
  /// without a backlog.
  virtual std::chrono::steady_clock::time_point stalled_since() const = 0;
};

/// Receives the requests of one loop.
class http_handler {
public:
  virtual ~http_handler() = default;
  virtual void on_request(std::shared_ptr<exchange> client, http_request&& request) = 0;
  /// About ten times a second, on the loop: housekeeping.
  virtual void on_tick() {}
  /// The loop runs nothing more: whatever works for it on other threads must have ended when this
  /// returns. Until then the executor may be used; work posted to it is dropped.
  virtual void on_loop_end() {}
  /// The body of an error the server itself answers with (400, 408, 413, 431, 503...), with its
  /// content type.
  virtual http_reply error_reply(int status, std::string_view message) = 0;
};

struct http_server_options {
  std::string listen = "127.0.0.1:0"; ///< HOST:PORT; port 0 picks a free one
  std::uint32_t loops = 1; ///< I/O threads, each with an acceptor of its own (SO_REUSEPORT)
  std::size_t max_header_bytes = 16 * 1024;
  std::size_t max_body_bytes = 64 * 1024 * 1024;
  /// Of all bodies that are being received, or that handlers have and still hold, over all loops. A
  /// request that would exceed it gets 503. What fits into one read is not counted.
  std::size_t max_bodies_bytes = 1024 * 1024 * 1024;
  std::chrono::milliseconds header_timeout{10000};
  std::chrono::milliseconds body_timeout{30000};
  std::chrono::milliseconds idle_timeout{300000};
  std::size_t max_connections = 10000; ///< over all loops; above it new ones get 503 and are closed
  std::size_t max_backlog_bytes
    = 4 * 1024 * 1024; ///< of one exchange; beyond it the client is dropped as gone
};

/// HTTP/1.1 over TCP: acceptors, I/O loops, parsing, limits, and nothing else; knows no route.
class http_server {
public:
  /// Binds and listens; nothing is accepted before `start`. Fails with a sentence that names the
  /// address
  /// ("127.0.0.1:8089: address already in use").
  static result<std::unique_ptr<http_server>> make(const http_server_options& options);
  virtual ~http_server() = default;
  /// The bound address, HOST:PORT.
  virtual std::string address() const = 0;
  virtual std::uint32_t loops() const = 0;
  /// The executor of loop i. Valid as long as the server.
  virtual executor& loop(std::uint32_t i) = 0;
  /// A pool of connections to servers behind us, on loop i. Call it on that loop, or before `start`
  /// has returned; the pool must be destroyed on that loop or after the threads ended, and before
  /// the server. A handler may own it.
  virtual std::unique_ptr<upstream_pool>
  make_upstream(std::uint32_t loop, const upstream_options& options) = 0;
  /// Starts the threads. `make_handler(i)` is called for each loop before it accepts, on the
  /// calling thread; the handler lives until the server is destroyed and is used on its loop only.
  virtual void start(std::function<std::unique_ptr<http_handler>(std::uint32_t loop)> make_handler)
    = 0;
  /// The end is near: open exchanges complete, idle connections are closed, and every connection
  /// ends with its next answer. New ones are still accepted, so that who asks is told so by the
  /// handler, which should welcome nothing any more. From any thread.
  virtual void drain() = 0;
  /// Exchanges not yet answered completely.
  virtual std::size_t open_exchanges() const = 0;
  /// What counts against `max_bodies_bytes` now.
  virtual std::size_t body_bytes() const = 0;
  /// Ends the threads; open connections are dropped. Also done by the destructor. Watchers hear
  /// nothing.
  virtual void stop() = 0;
};

} // namespace llumnix::net
