#pragma once

#include "net/http_server.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace llumnix::net {

/// Whoever speaks on a WebSocket. Called on its loop, and may let go of the socket in each of
/// these.
class web_socket_watcher {
public:
  virtual ~web_socket_watcher() = default;
  /// A whole message, text or not.
  virtual void on_message(std::string_view message) = 0;
  virtual void on_pong() = 0;
  /// The other side wants to know whether we are there; it is told so.
  virtual void on_ping() {}
  /// One that we opened is open, from this address of ours.
  virtual void on_open(const std::string& /*host*/, std::uint16_t /*port*/) {}
  /// The other side has gone, cannot be reached, or said what no WebSocket says. Nothing further
  /// is called.
  virtual void on_closed() = 0;
};

/// A connection that has become a WebSocket (RFC 6455): Beast's, on the loop of an exchange. Pings
/// of the other side are answered. Letting go of it closes the connection. Confined to its loop.
class web_socket {
public:
  virtual ~web_socket() = default;
  /// Sends a text message. Of messages that the other side does not read a few wait; beyond them
  /// the connection is closed.
  virtual void send(std::string message) = 0;
  /// Sends an empty ping, unless one still waits to be sent.
  virtual void ping() = 0;
};

/// Answers a request for a WebSocket with one. It counts among the server's connections until it is
/// closed. Null if the request is none, or its client has gone: the exchange then has no answer
/// yet. `watcher` must outlive what is returned. A message above `message_bytes_max` closes the
/// connection.
std::unique_ptr<web_socket> accept_web_socket(
  exchange& client, const http_request& request, web_socket_watcher& watcher,
  std::size_t message_bytes_max);

/// Where a WebSocket is to be opened.
struct web_socket_target {
  std::string address; ///< HOST:PORT
  std::string path = "/";
  header_list headers;                      ///< beside those of the protocol
  std::chrono::milliseconds patience{3000}; ///< for connection and handshake together
  std::size_t message_bytes_max = 4096;     ///< one above closes the connection
};

/// Opens a WebSocket towards a server (ws://), on a loop of an `http_server` of ours. The watcher,
/// which must outlive what is returned, hears `on_open` or `on_closed`, never from within this.
std::unique_ptr<web_socket>
open_web_socket(executor& loop, const web_socket_target& target, web_socket_watcher& watcher);

} // namespace llumnix::net
