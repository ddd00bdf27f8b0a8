#include "transport/ucx/ucx_knock.hpp"

#include "runtime/base/assert.hpp"
#include "transport/ucx/ucx_greeting.hpp"

namespace llumnix::ucx {

result<ucx_knock> ucx_knock::begin(const peer& at, socket_watch& watch) {
  auto where = socket_address(at.ip, at.port);
  LLUMNIX_ASSERT(where);
  auto socket = door_socket::connect(*where, watch);
  if (!socket)
    return std::move(socket).error();
  return ucx_knock{std::move(*socket)};
}

result<std::optional<std::uint16_t>>
ucx_knock::work(const std::string& cluster_key, const token& life) {
  using told = std::optional<std::uint16_t>;
  if (!door_) {
    auto greeting = socket_.hear<door_greeting>();
    if (!greeting)
      return std::move(greeting).error();
    if (!*greeting)
      return told{};
    door_ = **greeting;
    if (door_->life != life)
      return error{errc::unreachable, "that life of the peer is over"};
    if (!socket_.say(encode(door_call{nonce_, proof_of_caller(cluster_key, nonce_, *door_)})))
      return error{errc::unreachable, "hung up"};
  }
  auto answer = socket_.hear<door_answer>();
  if (!answer)
    return error{errc::unreachable, "hung up on us: its cluster has another key, or it is ending"};
  if (!*answer)
    return told{};
  if (!same((*answer)->of, proof_of_door(cluster_key, nonce_, *door_, (*answer)->port)))
    return error{errc::unreachable, "the peer does not know the cluster's key"};
  return told{(*answer)->port};
}

} // namespace llumnix::ucx
