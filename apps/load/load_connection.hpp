#pragma once

#include "runtime/base/result.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace llumnix::load {

/// Where an endpoint is, of a URL http://HOST[:PORT][/PREFIX].
struct endpoint_url {
  std::string host;
  std::string port = "80";
  std::string prefix; ///< of every path, without a slash at the end
  /// What the `Host` header says.
  std::string authority() const;
};
/// `unsupported` for https, `invalid_argument` for what is no URL.
result<endpoint_url> parse_endpoint(std::string_view url);

/// What one reply is told to, in this order: `on_head` once, `on_body` any number of times,
/// `on_end` once. `on_end` alone comes when there is no reply.
struct reply_events {
  std::function<void(int status, std::string_view request_id, bool event_stream)> on_head;
  std::function<void(std::string_view piece)> on_body;
  /// `failure` is empty when the whole reply has come, else one of few texts.
  std::function<void(std::string_view failure)> on_end;
};

/// One keep-alive connection to an endpoint; one request at a time, from a single thread.
class load_connection {
public:
  load_connection(boost::asio::io_context& loop, boost::asio::ip::tcp::resolver::results_type peer);
  ~load_connection();
  load_connection(const load_connection&) = delete;
  load_connection& operator=(const load_connection&) = delete;

  /// Sends a whole HTTP/1.1 request and reads its reply; connects first where needed. A kept
  /// connection that the server closed in the meantime is replaced once, unseen. Events come from
  /// the loop, never from here.
  void exchange(std::string request, reply_events events);
  /// Ends the exchange at hand: the connection closes, and `on_end` comes with `why`.
  void cancel(std::string_view why);

private:
  struct state;
  std::shared_ptr<state> state_;
};

/// A whole request with the headers that `llumnix load` sends; `key` empty: no authorization.
std::string http_request_text(
  std::string_view method, const endpoint_url& endpoint, std::string_view path,
  std::string_view key, std::string_view body);

} // namespace llumnix::load
