#include "apps/redis_child.hpp"

#include <netinet/in.h>
#include <string_view>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

namespace llumnix {

namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

/// A TCP socket that closes itself.
struct tcp_socket {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  tcp_socket() = default;
  tcp_socket(const tcp_socket&) = delete;
  tcp_socket& operator=(const tcp_socket&) = delete;
  ~tcp_socket() { ::close(fd); }
};

} // namespace

std::uint16_t free_loopback_port() {
  tcp_socket probe;
  auto address = loopback(0);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(probe.fd, generic, size) != 0 || ::getsockname(probe.fd, generic, &size) != 0)
    return 0;
  return ntohs(address.sin_port);
}

child_command redis_command(const std::string& program, std::uint16_t port) {
  return {
    .program = program,
    .arguments
    = {"redis-server", "--bind", "127.0.0.1", "--port", std::to_string(port), "--save", "", "--appendonly", "no", "--daemonize", "no"},
    .quiet = true};
}

bool redis_answers(std::uint16_t port) {
  tcp_socket client;
  timeval patience{.tv_sec = 0, .tv_usec = 200'000};
  ::setsockopt(client.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  auto address = loopback(port);
  if (::connect(client.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return false;
  constexpr std::string_view ping = "PING\r\n", pong = "+PONG";
  if (
    ::send(client.fd, ping.data(), ping.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(ping.size()))
    return false;
  char answer[16];
  auto count = ::recv(client.fd, answer, sizeof answer, 0);
  return count > 0 && std::string_view{answer, static_cast<std::size_t>(count)}.starts_with(pong);
}

} // namespace llumnix
