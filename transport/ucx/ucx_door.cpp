#include "transport/ucx/ucx_door.hpp"

#include "runtime/base/log.hpp"
#include "transport/ucx/ucx_address.hpp"
#include "transport/ucx/ucx_greeting.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <netinet/in.h>
#include <string>

namespace llumnix::ucx {

namespace {

constexpr log::logger kv_log{"kv"};
/// At once. One more sends off the one that has stood there longest: who knows what to say needs a
/// round trip.
constexpr std::size_t callers_max = 128;
constexpr std::size_t taken_max = 16; ///< in one turn
constexpr nanoseconds warn_every = std::chrono::seconds{10};

} // namespace

ucx_door::ucx_door(
  const ucx_settings& settings, const token& life, socket_watch& watch, ucx_gate& lanes)
  : settings_{settings}, life_{life}, watch_{watch}, lanes_{lanes} {}

result<void> ucx_door::open(const sockaddr_storage& where) {
  auto failed = [](const char* doing) {
    return error{errc::internal, std::string{doing} + " for KV peers: " + std::strerror(errno)};
  };
  listener_ = owned_descriptor{
    ::socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP)};
  if (!listener_)
    return failed("make a socket");
  int yes = 1;
  ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&where), size_of(where)) != 0)
    return failed("take a port");
  if (::listen(listener_.get(), SOMAXCONN) != 0)
    return failed("listen");
  sockaddr_storage got{};
  socklen_t size = sizeof got;
  if (::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&got), &size) != 0)
    return failed("ask for the port");
  port_ = port_in(got);
  watch_.add(listener_.get());
  return {};
}

void ucx_door::lead_to(const sockaddr_storage& listener) {
  leads_to_ = port_in(listener);
  if (auto shut = gate_.shut(listener); !shut)
    kv_log.warn(
      "gate", "strangers can reach UCX's own port, and end this process there: {}",
      shut.error().context);
}

void ucx_door::close() {
  callers_.clear();
  listener_ = {};
}

/// Greets who has come.
bool ucx_door::take(time_point now) {
  more_ = false;
  for (std::size_t taken = 0; listener_; ++taken) {
    if (taken == taken_max)
      return more_ = true;
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    owned_descriptor socket{::accept4(
      listener_.get(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_NONBLOCK | SOCK_CLOEXEC)};
    if (!socket) {
      more_ = errno != EAGAIN; // such as for want of descriptors
      return taken > 0;
    }
    watch_.add(socket.get());
    if (callers_.size() == callers_max)
      callers_.pop_front();
    caller made{
      door_socket{std::move(socket)},
      from,
      {random_token(), life_},
      now + settings_.connect_within};
    if (made.socket.say(encode(made.greeting)))
      callers_.push_back(std::move(made));
  }
  return false;
}

/// False once the caller is to go.
bool ucx_door::serve(caller& one, time_point now) {
  auto call = one.socket.hear<door_call>();
  if (!call || now >= one.until)
    return false;
  if (!*call)
    return true;
  const auto& [nonce, of] = **call;
  if (!same(of, proof_of_caller(settings_.cluster_key, nonce, one.greeting))) {
    if (now - warned_at_ >= warn_every) {
      kv_log.warn("stranger", "a peer that does not know the cluster's key was turned away");
      warned_at_ = now;
    }
    return false;
  }
  gate_.let_in(one.from, now + let_in_times * settings_.connect_within);
  lanes_.keep_in(one.from, now + let_in_times * settings_.connect_within);
  one.socket.say(encode(
    door_answer{leads_to_, proof_of_door(settings_.cluster_key, nonce, one.greeting, leads_to_)}));
  return false;
}

bool ucx_door::work(time_point now) {
  auto moved = gate_.work(now);
  if (watch_.stirred() || more_ || now >= wake_at()) {
    moved |= take(now);
    moved |= std::erase_if(callers_, [&](caller& one) { return !serve(one, now); }) > 0;
  }
  return moved;
}

time_point ucx_door::wake_at() const {
  return callers_.empty() ? gate_.wake_at() : std::min(callers_.front().until, gate_.wake_at());
}

} // namespace llumnix::ucx
