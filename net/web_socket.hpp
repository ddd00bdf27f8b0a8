#pragma once

#include "net/http_server.hpp"

#include <cstddef>
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
  /// The other side has gone, or said what no WebSocket says. Nothing further is called.
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

} // namespace llumnix::net
