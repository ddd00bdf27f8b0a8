#include "transport/ucx/door_socket.hpp"

#include "transport/ucx/ucx_address.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <unistd.h>

namespace llumnix::ucx {

namespace {

error system_error(errc code, std::string_view doing) {
  return {code, std::string{doing} + ": " + std::strerror(errno)};
}

} // namespace

owned_descriptor::~owned_descriptor() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
}

result<void> socket_watch::open() {
  events_ = owned_descriptor{::epoll_create1(EPOLL_CLOEXEC)};
  if (!events_)
    return system_error(errc::internal, "epoll");
  return {};
}

void socket_watch::add(int socket) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  ::epoll_ctl(events_.get(), EPOLL_CTL_ADD, socket, &event);
}

bool socket_watch::stirred() {
  std::array<epoll_event, 64> events;
  return ::epoll_wait(events_.get(), events.data(), events.size(), 0) > 0;
}

result<door_socket> door_socket::connect(const sockaddr_storage& where, socket_watch& watch) {
  owned_descriptor made{
    ::socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP)};
  if (!made)
    return system_error(errc::unreachable, "make a socket");
  if (
    ::connect(made.get(), reinterpret_cast<const sockaddr*>(&where), size_of(where)) != 0
    && errno != EINPROGRESS)
    return system_error(errc::unreachable, "connect");
  watch.add(made.get());
  return door_socket{std::move(made)};
}

bool door_socket::say(std::span<const std::byte> words) {
  auto sent = ::send(socket_.get(), words.data(), words.size(), MSG_NOSIGNAL);
  return sent == static_cast<ssize_t>(words.size());
}

result<bool> door_socket::fill(std::size_t bytes) {
  while (heard_.size() < bytes) {
    auto had = heard_.size();
    heard_.resize(bytes);
    auto got = ::recv(socket_.get(), heard_.data() + had, bytes - had, 0);
    heard_.resize(had + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got == 0)
      return error{errc::unreachable, "hung up"};
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
      return false;
    if (got < 0)
      return error{errc::unreachable, std::strerror(errno)};
  }
  return true;
}

} // namespace llumnix::ucx
