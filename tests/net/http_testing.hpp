#pragma once

#include "net/http_server.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <arpa/inet.h>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace llumnix::net::testing {

using namespace std::chrono_literals;
using clock = std::chrono::steady_clock;

/// Longer than anything that works takes, also under sanitizers on a busy machine.
inline constexpr auto patience = 20s;

/// Asks again and again until `holds` or patience ends.
inline bool eventually(const std::function<bool()>& holds) {
  for (auto end = clock::now() + patience; clock::now() < end; ::poll(nullptr, 0, 1))
    if (holds())
      return true;
  return holds();
}

/// A client that says exactly what it is told to, byte for byte.
class raw_client {
public:
  /// `receive_buffer` bounds what the kernel takes for it, in bytes; 0 for as it likes.
  explicit raw_client(const http_server& server, int receive_buffer = 0) {
    auto address = server.address();
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port
      = htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    ::inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer > 0)
      ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    int on = 1; // pieces go out as they are sent
    ::setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    REQUIRE(::connect(socket_, reinterpret_cast<sockaddr*>(&where), sizeof where) == 0);
  }
  /// The other end of a connection that was accepted.
  explicit raw_client(int socket) : socket_{socket} {}
  raw_client(raw_client&& other) noexcept
    : socket_{std::exchange(other.socket_, -1)}, seen_{std::move(other.seen_)} {}
  raw_client& operator=(raw_client&&) = delete;
  ~raw_client() { leave(); }

  void leave() {
    if (socket_ >= 0)
      ::close(std::exchange(socket_, -1));
  }

  /// Says that nothing more will be sent, and still reads.
  void finish_sending() { ::shutdown(socket_, SHUT_WR); }

  /// False if the server has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0)
        return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }

  /// Reads until `text` has come, and returns everything up to its end; what follows stays for
  /// later.
  std::string until(std::string_view text) {
    auto end = clock::now() + patience;
    while (seen_.find(text) == std::string::npos && more(end)) {
    }
    auto at = seen_.find(text);
    auto size = at == std::string::npos ? seen_.size() : at + text.size();
    auto taken = seen_.substr(0, size);
    seen_.erase(0, size);
    return taken;
  }

  /// Reads one reply with a content-length.
  std::string reply() {
    auto head = until("\r\n\r\n");
    auto at = head.find("content-length: ");
    if (at == std::string::npos)
      return head;
    auto size = std::stoul(head.substr(at + 16));
    auto end = clock::now() + patience;
    while (seen_.size() < size && more(end)) {
    }
    head += seen_.substr(0, size);
    seen_.substr(std::min(size, seen_.size()))
      .swap(seen_); // keeps no memory, for tests that count it
    return head;
  }

  /// Reads to the end; `closed()` tells whether the server has ended it.
  std::string rest() {
    auto end = clock::now() + patience;
    while (more(end)) {
    }
    return std::exchange(seen_, {});
  }
  bool closed() const { return closed_; }
  int socket() const { return socket_; }

private:
  bool more(clock::time_point end) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(end - clock::now()).count();
    pollfd state{socket_, POLLIN, 0};
    if (closed_ || left <= 0 || ::poll(&state, 1, static_cast<int>(left)) <= 0)
      return false;
    char buffer[16384];
    auto size = ::recv(socket_, buffer, sizeof buffer, 0);
    closed_ = size <= 0;
    if (size > 0)
      seen_.append(buffer, static_cast<std::size_t>(size));
    return size > 0;
  }

  int socket_ = -1;
  bool closed_ = false;
  std::string seen_;
};

/// Counts what an exchange tells.
struct counting_watcher : exchange_watcher {
  void on_gone() override { ++gone; }
  void on_drained() override { ++drained; }
  std::atomic<int> gone{0};
  std::atomic<int> drained{0};
};

/// A server whose "/hold..." requests wait for the test to answer, while all others are echoed.
class held_server {
public:
  explicit held_server(http_server_options options = {}) {
    auto made = http_server::make(options);
    REQUIRE(made.has_value());
    server = std::move(*made);
    server->start([this](std::uint32_t) { return std::make_unique<handler>(*this); });
  }
  ~held_server() { server.reset(); }

  /// Waits for a request of that path and runs `act` on its exchange, on its loop.
  void with(const std::string& path, const std::function<void(exchange&)>& act) {
    auto held = take(path);
    on_loop([&] { act(*held); });
  }
  /// The exchange of that path, once it has come. Only to be used on the loop.
  std::shared_ptr<exchange> take(const std::string& path) {
    std::unique_lock lock{mutex_};
    REQUIRE(came_.wait_for(lock, patience, [&] { return held_.contains(path); }));
    return held_[path];
  }
  /// Lets go of what is held and of what was seen.
  void forget() {
    std::lock_guard lock{mutex_};
    held_.clear();
    seen_ = {};
  }
  void on_loop(const std::function<void()>& act) {
    std::promise<void> done;
    server->loop(0).post([&] {
      act();
      done.set_value();
    });
    REQUIRE(done.get_future().wait_for(patience) == std::future_status::ready);
  }
  std::size_t requests() {
    std::lock_guard lock{mutex_};
    return seen_.size();
  }
  http_request last() {
    std::lock_guard lock{mutex_};
    return seen_.empty() ? http_request{} : seen_.back();
  }

  std::unique_ptr<http_server> server;
  counting_watcher watcher; ///< of all that is held

private:
  struct handler : http_handler {
    explicit handler(held_server& to) : owner{to} {}
    void on_request(std::shared_ptr<exchange> client, http_request&& request) override {
      std::lock_guard lock{owner.mutex_};
      owner.seen_.push_back(request);
      if (request.path.starts_with("/hold")) {
        client->watch(&owner.watcher);
        owner.held_[request.path] = std::move(client);
        owner.came_.notify_all();
      } else {
        client->reply({200, {}, request.method + " " + request.path + " " + request.body});
      }
    }
    http_reply error_reply(int status, std::string_view message) override {
      return {status, {{"content-type", "text/plain"}}, std::string{message}};
    }
    held_server& owner;
  };

  std::mutex mutex_;
  std::condition_variable came_;
  std::map<std::string, std::shared_ptr<exchange>> held_;
  std::vector<http_request> seen_;
};

} // namespace llumnix::net::testing
