#include "transport/ucx/ucx_gate.hpp"

#include "runtime/base/log.hpp"
#include "transport/ucx/ucx_address.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <netinet/in.h>
#include <optional>
#include <string>
#include <system_error>

namespace llumnix::ucx {

namespace {

constexpr log::logger kv_log{"kv"};
/// As many at once as older kernels' memory for a filter takes; the longest there makes room.
constexpr std::size_t guests_max = 64;

// In a TCP header, and in those of IP before it.
constexpr std::uint32_t flags_at = 13;
constexpr std::uint32_t syn = 0x02;
constexpr std::uint32_t ack = 0x10;
constexpr std::uint32_t source_at_4 = 12;
constexpr std::uint32_t source_at_6 = 8;

constexpr std::uint32_t all = 0xFFFF'FFFF; ///< bytes of a packet that is taken
constexpr std::uint32_t ip_header = static_cast<std::uint32_t>(SKF_NET_OFF);

/// Where a socket listens, if it does.
std::optional<sockaddr_storage> listens_at(int descriptor) {
  int listens = 0;
  socklen_t size = sizeof listens;
  if (::getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0)
    return std::nullopt;
  sockaddr_storage at{};
  size = sizeof at;
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&at), &size) != 0)
    return std::nullopt;
  return at;
}

/// UCX does not tell its socket; it is the one that listens there.
int find_listener(const sockaddr_storage& where) {
  for (auto descriptor : listening_sockets(where.ss_family))
    if (auto at = listens_at(descriptor);
        at && words_of(*at) == words_of(where) && port_in(*at) == port_in(where))
      return descriptor;
  return -1;
}

} // namespace

address_words words_of(const sockaddr_storage& where) {
  if (where.ss_family == AF_INET)
    return {ntohl(reinterpret_cast<const sockaddr_in&>(where).sin_addr.s_addr)};
  address_words words(4);
  std::memcpy(words.data(), &reinterpret_cast<const sockaddr_in6&>(where).sin6_addr, 16);
  for (auto& word : words)
    word = ntohl(word);
  return words;
}

std::set<int> listening_sockets(sa_family_t family) {
  std::set<int> found;
  std::error_code none;
  for (const auto& one : std::filesystem::directory_iterator{"/proc/self/fd", none}) {
    auto descriptor = std::atoi(one.path().filename().c_str());
    auto at = listens_at(descriptor);
    if (
      at && at->ss_family == family
      && std::ranges::any_of(words_of(*at), [](std::uint32_t word) { return word != 0; }))
      found.insert(descriptor);
  }
  return found;
}

std::vector<sock_filter> only_from(const std::set<address_words>& callers) {
  std::vector<sock_filter> program{
    BPF_STMT(BPF_LD | BPF_B | BPF_ABS, flags_at),
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, syn | ack),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, syn, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, all),
  };
  for (const auto& who : callers) {
    auto source = ip_header + (who.size() == 1 ? source_at_4 : source_at_6);
    auto rest = static_cast<std::uint8_t>(2 * who.size()); // to behind this caller
    for (auto word : who) {
      rest = static_cast<std::uint8_t>(rest - 2);
      program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, source));
      program.push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, word, 0, static_cast<std::uint8_t>(rest + 1)));
      source += 4;
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, all));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  return program;
}

result<void> ucx_gate::shut(const sockaddr_storage& where) {
  auto found = find_listener(where);
  if (found < 0)
    return error{errc::internal, "UCX's listener was not found among the process's sockets"};
  return shut(found);
}

result<void> ucx_gate::shut(int listener) {
  listener_ = listener;
  auto done = attach();
  if (!done)
    listener_ = -1;
  return done;
}

result<void> ucx_gate::attach() {
  std::set<address_words> callers;
  for (const auto& one : guests_)
    callers.insert(one.who);
  auto code = only_from(callers);
  sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::setsockopt(listener_, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0)
    return error{errc::internal, std::string{"attach a socket filter: "} + std::strerror(errno)};
  return {};
}

bool ucx_gate::expects(const address_words& who) const {
  return std::ranges::any_of(guests_, [&](const guest& x) { return x.who == who; });
}

void ucx_gate::let_in(const sockaddr_storage& who, time_point until) {
  admit(words_of(who), until);
}

void ucx_gate::keep_in(const sockaddr_storage& who, time_point until) {
  auto words = words_of(who);
  auto found = std::ranges::find_if(guests_, [&](const guest& x) { return x.who == words; });
  if (found == guests_.end())
    return admit(std::move(words), until);
  found->until = std::max(found->until, until);
}

void ucx_gate::admit(address_words who, time_point until) {
  auto known = expects(who) && guests_.size() < guests_max;
  if (guests_.size() == guests_max)
    guests_.pop_front();
  guests_.push_back({std::move(who), until});
  if (!known && listener_ >= 0)
    if (auto done = attach(); !done)
      kv_log.warn("gate", "a peer may not get through: {}", done.error().context);
}

void ucx_gate::came(const sockaddr_storage& who) {
  auto words = words_of(who);
  auto found = std::ranges::find_if(guests_, [&](const guest& x) { return x.who == words; });
  if (found == guests_.end())
    return;
  guests_.erase(found);
  if (!expects(words))
    shut_again();
}

bool ucx_gate::work(time_point now) {
  auto left = std::erase_if(guests_, [&](const guest& x) { return now >= x.until; });
  if (left > 0)
    shut_again();
  return left > 0;
}

void ucx_gate::shut_again() {
  if (listener_ >= 0)
    if (auto done = attach(); !done)
      kv_log.warn("gate", "a peer may still get through: {}", done.error().context);
}

time_point ucx_gate::wake_at() const {
  auto at = time_point::max();
  for (const auto& one : guests_)
    at = std::min(at, one.until);
  return at;
}

} // namespace llumnix::ucx
