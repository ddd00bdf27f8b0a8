#include "actors/node_connector.hpp"

#include "actors/protocol/caf_error.hpp"
#include "config/load_config.hpp"

#include <caf/io/all.hpp>
#include <caf/io/basp_broker.hpp>
#include <caf/io/scribe.hpp>

#include <cerrno>
#include <cstring>
#include <netdb.h>
#include <poll.h>
#include <set>
#include <sys/socket.h>
#include <unistd.h>

namespace llumnix {

namespace {

constexpr std::chrono::milliseconds dial_deadline{500};
constexpr std::chrono::seconds handshake_deadline{2};

/// Waits until the socket is connected. 0 or an errno.
int await_connected(int socket) {
  pollfd poll_for{socket, POLLOUT, 0};
  if (::poll(&poll_for, 1, static_cast<int>(dial_deadline.count())) != 1)
    return ETIMEDOUT;
  int failure = 0;
  socklen_t size = sizeof failure;
  return ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &failure, &size) == 0 ? failure : errno;
}

result<int> dial(const std::string& address) {
  std::string host;
  std::uint16_t port = 0;
  if (!split_address(address, host, port))
    return {errc::invalid_argument, address + ": not HOST:PORT"};
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found))
    return {errc::unreachable, address + ": " + ::gai_strerror(failed)};
  std::string why = "no address";
  int connected = -1;
  for (auto* at = found; at && connected < 0; at = at->ai_next) {
    int socket
      = ::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
    if (socket < 0)
      continue;
    int failure = ::connect(socket, at->ai_addr, at->ai_addrlen) == 0 ? 0 : errno;
    if (failure == EINPROGRESS)
      failure = await_connected(socket);
    if (failure == 0) {
      connected = socket;
    } else {
      why = std::strerror(failure);
      ::close(socket);
    }
  }
  ::freeaddrinfo(found);
  if (connected < 0)
    return {errc::unreachable, address + ": " + why};
  return connected;
}

/// What both connectors do with a handshake's answer.
auto on_handshake(caf::typed_response_promise<dialled_msg> promise) {
  return
    [promise](caf::node_id&, caf::strong_actor_ptr& published, std::set<std::string>&) mutable {
      if (published)
        promise.deliver(dialled_msg{caf::actor_cast<node_actor>(published)});
      else
        promise.deliver(caf::error{caf::sec::no_actor_published_at_port});
    };
}

} // namespace

connector_actor::behavior_type make_dialler(connector_actor::pointer self) {
  return {[self](const dial_msg& msg) -> caf::result<dialled_msg> {
    auto socket = dial(msg.address);
    if (!socket)
      return to_caf(std::move(socket).error());
    auto promise = self->make_response_promise<dialled_msg>();
    auto& middleman = self->system().middleman();
    auto scribe = middleman.backend().new_scribe(*socket);
    self
      ->request(
        middleman.named_broker<caf::io::basp_broker>(caf::atom("BASP")), handshake_deadline,
        caf::connect_atom::value, std::move(scribe), std::uint16_t{0})
      .then(on_handshake(promise), [promise](caf::error& failure) mutable {
        promise.deliver(std::move(failure));
      });
    return promise;
  }};
}

connector_actor::behavior_type
make_middleman_connector(connector_actor::pointer self, caf::actor middleman) {
  return {[self, middleman](const dial_msg& msg) -> caf::result<dialled_msg> {
    std::string host;
    std::uint16_t port = 0;
    if (!split_address(msg.address, host, port))
      return to_caf({errc::invalid_argument, msg.address + ": not HOST:PORT"});
    auto promise = self->make_response_promise<dialled_msg>();
    self->request(middleman, handshake_deadline, caf::connect_atom::value, host, port)
      .then(on_handshake(promise), [promise](caf::error& failure) mutable {
        promise.deliver(std::move(failure));
      });
    return promise;
  }};
}

} // namespace llumnix
