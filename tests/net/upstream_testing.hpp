#pragma once

#include "http_testing.hpp"
#include "net/upstream_pool.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::net::testing {

/// A server that takes connections when the test says so, and does with them what the test says.
class raw_host {
public:
  explicit raw_host(int family = AF_INET, int backlog = 512) : family_{family} {
    socket_ = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 where{};
    socklen_t size = sizeof where;
    if (family == AF_INET) {
      auto& v4 = reinterpret_cast<sockaddr_in&>(where);
      v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      size = sizeof v4;
    } else {
      where.sin6_addr = in6addr_loopback;
    }
    where.sin6_family = static_cast<sa_family_t>(family);
    usable_ = ::bind(socket_, reinterpret_cast<sockaddr*>(&where), size) == 0
              && ::listen(socket_, backlog) == 0
              && ::getsockname(socket_, reinterpret_cast<sockaddr*>(&where), &size) == 0;
    port_ = ntohs(where.sin6_port);
  }
  raw_host(const raw_host&) = delete;
  raw_host& operator=(const raw_host&) = delete;
  ~raw_host() { close(); }

  bool usable() const { return usable_; }
  void close() {
    if (socket_ >= 0)
      ::close(std::exchange(socket_, -1));
  }
  std::string port() const { return std::to_string(port_); }
  std::string address() const { return (family_ == AF_INET ? "127.0.0.1:" : "[::1]:") + port(); }

  /// The next connection, once it has come.
  raw_client accept() {
    REQUIRE(waits(patience));
    ++accepted;
    auto socket = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return raw_client{socket};
  }
  /// Whether a connection that was not accepted is there, or comes in that time.
  bool waits(std::chrono::milliseconds time = 0ms) {
    pollfd state{socket_, POLLIN, 0};
    return ::poll(&state, 1, static_cast<int>(time.count())) > 0;
  }

  int accepted = 0;

private:
  int family_;
  int socket_ = -1;
  std::uint16_t port_ = 0;
  bool usable_ = false;
};

/// Ends a connection so that the other side gets an error instead of an end.
inline void reset(raw_client& peer) {
  linger how{1, 0};
  ::setsockopt(peer.socket(), SOL_SOCKET, SO_LINGER, &how, sizeof how);
  peer.leave();
}

/// Writes down what it hears, and can do something at each event.
class recorder : public upstream_watcher {
public:
  void on_head(const http_reply& head) override {
    auto text = "head " + std::to_string(head.status);
    for (const auto& [name, value] : head.headers)
      if (name.starts_with("x-"))
        text += " " + name + "=" + value;
    add(text);
  }
  void on_body(std::string_view piece) override {
    body_bytes += piece.size();
    if (gather) {
      std::lock_guard lock{mutex_};
      body_ += piece;
    }
    add("body");
  }
  void on_pause() override { add("pause"); }
  void on_end(const error& failure) override {
    add("end " + std::string{to_string(failure.code)});
    std::lock_guard lock{mutex_};
    failure_ = failure;
  }

  /// What was heard so far; equal neighbors are one.
  std::vector<std::string> events() {
    std::lock_guard lock{mutex_};
    return events_;
  }
  bool heard(std::string_view event) {
    return eventually([&] {
      std::lock_guard lock{mutex_};
      return std::find(events_.begin(), events_.end(), event) != events_.end();
    });
  }
  /// How it ended, once it has.
  errc outcome() {
    CHECK(eventually([&] {
      std::lock_guard lock{mutex_};
      return failure_.has_value();
    }));
    std::lock_guard lock{mutex_};
    return failure_ ? failure_->code : errc::internal;
  }
  std::string text() {
    std::lock_guard lock{mutex_};
    return failure_ ? failure_->context : "";
  }
  std::string body() {
    std::lock_guard lock{mutex_};
    return body_;
  }

  bool gather = true;                               ///< the body
  std::function<void(std::string_view event)> then; ///< on the loop, after each event
  std::atomic<std::size_t> body_bytes{0};
  std::atomic<bool> ended_within_send{false};
  bool sending = false; ///< only used on the loop

private:
  void add(const std::string& event) {
    if (sending)
      ended_within_send = true;
    {
      std::lock_guard lock{mutex_};
      if (events_.empty() || events_.back() != event)
        events_.push_back(event);
    }
    if (then)
      then(event);
  }

  std::mutex mutex_;
  std::vector<std::string> events_;
  std::optional<error> failure_;
  std::string body_;
};

/// A pool on the loop of a server.
class pool_on_loop {
public:
  explicit pool_on_loop(const upstream_options& options = {}) {
    on_loop([&] { pool = host_.server->make_upstream(0, options); });
  }
  ~pool_on_loop() {
    on_loop([&] { pool.reset(); });
  }

  void on_loop(const std::function<void()>& act) { host_.on_loop(act); }
  void send(upstream_request request, recorder& watcher, std::unique_ptr<upstream_call>& call) {
    on_loop([&] {
      watcher.sending = true;
      call = pool->send(std::move(request), watcher);
      watcher.sending = false;
    });
  }
  void send(const std::string& address, recorder& watcher, std::unique_ptr<upstream_call>& call) {
    upstream_request request;
    request.address = address;
    send(std::move(request), watcher, call);
  }
  void drop(std::unique_ptr<upstream_call>& call) {
    on_loop([&] { call.reset(); });
  }
  std::size_t connections() {
    std::size_t count = 0;
    on_loop([&] { count = pool->connections(); });
    return count;
  }
  bool comes_to(std::size_t count) {
    return eventually([&] { return connections() == count; });
  }

  std::unique_ptr<upstream_pool> pool; ///< only to be used on the loop

private:
  held_server host_;
};

/// One request: what its sender holds, and what is heard of it. Declared before the pool, so that
/// the pool goes first.
struct asking {
  recorder heard;
  std::unique_ptr<upstream_call> call;
};

/// What a recorder writes down.
using events = std::vector<std::string>;

inline const std::string ok = "HTTP/1.1 200 OK\r\n";
inline const std::string chunked = ok + "transfer-encoding: chunked\r\n\r\n";

inline std::string sized(std::size_t size) {
  return ok + "content-length: " + std::to_string(size) + "\r\n\r\n";
}

inline upstream_request post_to(const std::string& address, std::string body = {}) {
  upstream_request request;
  request.address = address;
  request.body = std::move(body);
  return request;
}

inline upstream_request
with_silence(const std::string& address, std::chrono::milliseconds silence) {
  auto request = post_to(address);
  request.silence = silence;
  return request;
}

/// Has one request answered, so that its connection is kept; returns the server's end of it.
inline raw_client keep_one(pool_on_loop& pool, raw_host& host) {
  asking first;
  pool.send(host.address(), first.heard, first.call);
  auto peer = host.accept();
  peer.until("\r\n\r\n");
  peer.send(sized(0));
  CHECK(first.heard.outcome() == errc::ok);
  return peer;
}

} // namespace llumnix::net::testing
