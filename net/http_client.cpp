#include "net/http_client.hpp"

#include "net/reply_reader.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <limits>
#include <memory>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace llumnix::net {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::size_t max_reply_header = 64 * 1024;
constexpr std::size_t max_reply_body = 64 * 1024 * 1024;

std::string system_message() {
  return std::system_category().message(errno);
}

/// A connected socket whose every step has a deadline.
class connection {
public:
  connection() = default;
  connection(const connection&) = delete;
  connection& operator=(const connection&) = delete;
  ~connection() { close(); }

  /// Tries each address of the host until one takes the connection.
  result<void> open(const http_url& url, clock::time_point deadline);
  result<void> write(std::string_view bytes, clock::time_point deadline);
  /// Nothing at the end of the connection.
  result<std::string_view> read(clock::time_point deadline);

private:
  result<void> open(const addrinfo& where, clock::time_point deadline);
  result<void> wait(short events, clock::time_point deadline);
  void close() {
    if (socket_ >= 0)
      ::close(std::exchange(socket_, -1));
  }

  int socket_ = -1;
  std::array<char, 16 * 1024> buffer_;
};

result<void> connection::wait(short events, clock::time_point deadline) {
  for (;;) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count();
    if (left <= 0)
      return {errc::timeout, "no answer in time"};
    pollfd state{socket_, events, 0};
    auto ready = ::poll(
      &state, 1, static_cast<int>(std::min<long long>(left, std::numeric_limits<int>::max())));
    if (ready > 0)
      return {};
    if (ready < 0 && errno != EINTR)
      return {errc::internal, system_message()};
  }
}

result<void> connection::open(const http_url& url, clock::time_point deadline) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (auto failure = ::getaddrinfo(url.host.c_str(), url.port.c_str(), &hints, &found);
      failure != 0)
    return {errc::unreachable, ::gai_strerror(failure)};
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner{found, &::freeaddrinfo};
  result<void> outcome{errc::unreachable, "the host has no address"};
  for (; found != nullptr; found = found->ai_next) {
    outcome = open(*found, deadline);
    if (outcome || outcome.error().code == errc::timeout)
      break;
  }
  return outcome;
}

result<void> connection::open(const addrinfo& where, clock::time_point deadline) {
  close();
  socket_
    = ::socket(where.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, where.ai_protocol);
  if (socket_ < 0)
    return {errc::unreachable, system_message()};
  int on = 1;
  ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(socket_, where.ai_addr, where.ai_addrlen) == 0)
    return {};
  if (errno != EINPROGRESS)
    return {errc::unreachable, system_message()};
  if (auto ready = wait(POLLOUT, deadline); !ready)
    return ready;
  socklen_t size = sizeof errno;
  int failure = 0;
  if (::getsockopt(socket_, SOL_SOCKET, SO_ERROR, &failure, &size) != 0)
    failure = errno;
  if (failure != 0)
    return {errc::unreachable, std::system_category().message(failure)};
  return {};
}

result<void> connection::write(std::string_view bytes, clock::time_point deadline) {
  while (!bytes.empty()) {
    auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      return {}; // it has closed, perhaps after a reply that says why
    } else if (errno != EAGAIN && errno != EINTR) {
      return {errc::unreachable, system_message()};
    } else if (auto ready = wait(POLLOUT, deadline); !ready) {
      return ready;
    }
  }
  return {};
}

result<std::string_view> connection::read(clock::time_point deadline) {
  for (;;) {
    if (clock::now() >= deadline) // also of a peer that never lets us wait
      return {errc::timeout, "no answer in time"};
    auto size = ::recv(socket_, buffer_.data(), buffer_.size(), 0);
    if (size >= 0)
      return std::string_view{buffer_.data(), static_cast<std::size_t>(size)};
    if (errno != EAGAIN && errno != EINTR)
      return {errc::unreachable, system_message()};
    if (auto ready = wait(POLLIN, deadline); !ready)
      return std::move(ready).error();
  }
}

std::string request_text(
  const http_url& url, std::string_view method, const header_list& headers, std::string_view body) {
  auto host = url.host.find(':') == std::string::npos ? url.host : "[" + url.host + "]";
  std::string text{method};
  text += " " + url.path + " HTTP/1.1\r\nhost: " + host;
  if (url.port != "80")
    text += ":" + url.port;
  text += "\r\nconnection: close\r\n";
  for (const auto& [name, value] : headers)
    text += name + ": " + value + "\r\n";
  if (!body.empty() || method == "POST" || method == "PUT" || method == "PATCH")
    text += "content-length: " + std::to_string(body.size()) + "\r\n";
  text += "\r\n";
  text += body;
  return text;
}

bool on_one_line(std::string_view text) {
  return text.find_first_of(std::string_view{"\r\n\0", 3}) == std::string_view::npos;
}

// `renew` after each piece says when the next is due; `on_piece` says whether to go on.
result<http_reply> exchange_over(
  connection& peer, reply_reader& reader, clock::time_point deadline,
  const std::function<clock::time_point()>& renew,
  const std::function<bool(http_reply&)>& on_piece) {
  for (;;) {
    auto data = peer.read(deadline);
    if (!data)
      return std::move(data).error();
    auto state = data->empty() ? reader.end() : reader.feed(*data);
    if (state == reply_reader::status::too_long)
      return {errc::too_long, "the reply is too large"};
    if (state == reply_reader::status::malformed && data->empty())
      return {errc::unreachable, "the connection ended before the reply did"};
    if (state == reply_reader::status::malformed)
      return {errc::internal, "the reply is not HTTP"};
    if (!on_piece(reader.reply()) || state == reply_reader::status::complete)
      return std::move(reader.reply());
    deadline = renew();
  }
}

result<http_reply> perform(
  const http_url& url, std::string_view method, const header_list& headers, std::string_view body,
  std::chrono::milliseconds timeout, std::size_t max_body, bool per_silence,
  const std::function<bool(http_reply&)>& on_piece) {
  auto doing = std::string{method} + " http://" + url.host + ":" + url.port + url.path;
  for (const auto& [name, value] : headers)
    if (!on_one_line(name) || !on_one_line(value))
      return {errc::invalid_argument, doing + ": a header has a line end in it"};
  auto deadline = clock::now() + timeout;
  auto renew = [&] { return per_silence ? clock::now() + timeout : deadline; };
  connection peer;
  auto done = peer.open(url, deadline);
  if (done)
    done = peer.write(request_text(url, method, headers, body), renew());
  if (!done)
    return std::move(done).error().while_doing(doing);
  reply_reader reader{max_reply_header, max_body, method == "HEAD"};
  auto reply = exchange_over(peer, reader, renew(), renew, on_piece);
  if (!reply)
    return std::move(reply).error().while_doing(doing);
  return reply;
}

} // namespace

result<http_url> parse_url(std::string_view url) {
  error malformed{
    errc::invalid_argument,
    "\"" + std::string{url} + "\" is not of the form http://HOST:PORT/PATH"};
  constexpr std::string_view scheme = "http://";
  auto visible = [](char c) { return c > 0x20 && c < 0x7f; };
  if (!url.starts_with(scheme) || !std::all_of(url.begin(), url.end(), visible))
    return malformed;
  url.remove_prefix(scheme.size());
  url = url.substr(0, url.find('#'));
  http_url parsed;
  auto path = std::min(url.find_first_of("/?"), url.size());
  if (path < url.size())
    parsed.path = (url[path] == '?' ? "/" : "") + std::string{url.substr(path)};
  auto authority = url.substr(0, path);
  if (authority.find('@') != std::string_view::npos)
    return malformed;
  auto port = authority.rfind(':');
  if (authority.starts_with('[')) { // an IPv6 address has colons of its own
    auto end = authority.find(']');
    if (end == std::string_view::npos || (end + 1 < authority.size() && authority[end + 1] != ':'))
      return malformed;
    parsed.host = authority.substr(1, end - 1);
    port = end + 1 < authority.size() ? end + 1 : std::string_view::npos;
  } else {
    parsed.host = authority.substr(0, port);
    if (parsed.host.find(':') != std::string::npos)
      return malformed;
  }
  if (port != std::string_view::npos) {
    parsed.port = authority.substr(port + 1);
    auto digit = [](char c) { return c >= '0' && c <= '9'; };
    if (
      parsed.port.empty() || parsed.port.size() > 5
      || !std::all_of(parsed.port.begin(), parsed.port.end(), digit) || std::stoul(parsed.port) == 0
      || std::stoul(parsed.port) > 65535)
      return malformed;
  }
  if (parsed.host.empty())
    return malformed;
  return parsed;
}

result<http_reply> fetch(
  const http_url& url, std::string_view method, const header_list& headers, std::string_view body,
  std::chrono::milliseconds timeout) {
  return perform(
    url, method, headers, body, timeout, max_reply_body, false, [](http_reply&) { return true; });
}

result<http_reply> fetch_stream(
  const http_url& url, std::string_view method, const header_list& headers, std::string_view body,
  std::chrono::milliseconds timeout, const std::function<bool(std::string_view)>& on_data) {
  auto hand_on = [&](http_reply& reply) {
    auto piece = std::exchange(reply.body, {});
    return piece.empty() || on_data(piece);
  };
  constexpr auto unbounded = std::numeric_limits<std::size_t>::max();
  return perform(url, method, headers, body, timeout, unbounded, true, hand_on);
}

} // namespace llumnix::net
