#include "transport/ucx/ucx_messages.hpp"

#include "transport/ucx/wire.hpp"

#include <type_traits>
#include <utility>

namespace llumnix::ucx {

namespace {

constexpr std::uint8_t version = 1;

// One list of fields for both directions.
template <class F, class T>
void fields(F& f, T& x) {
  using type = std::remove_const_t<T>;
  if constexpr (requires { x.client_link; })
    f(x.client_link);
  if constexpr (requires { x.server_link; })
    f(x.server_link);
  if constexpr (requires { x.request; })
    f(x.request);
  if constexpr (requires { x.nonce; })
    f(x.nonce);
  if constexpr (requires { x.of; })
    f(x.of);
  if constexpr (requires { x.why; })
    f(x.why);
  if constexpr (requires { x.key; })
    f(x.key), f(x.region);
  if constexpr (requires { x.checksum; })
    f(x.checksum);
  if constexpr (std::is_same_v<type, hello>)
    f(x.wanted);
  if constexpr (std::is_same_v<type, read_request>)
    f(x.pieces);
  if constexpr (std::is_same_v<type, lease_grant>)
    f(x.process), f(x.memory), f(x.secret_at), f(x.secret);
  if constexpr (requires { x.bytes; })
    f(x.bytes);
}

template <std::size_t Kind = 0>
std::optional<message> decode_kind(std::size_t kind, reader& in) {
  if constexpr (Kind < std::variant_size_v<message>) {
    if (kind != Kind)
      return decode_kind<Kind + 1>(kind, in);
    std::variant_alternative_t<Kind, message> x;
    fields(in, x);
    if (in.finished())
      return message{std::move(x)};
  }
  return std::nullopt;
}

} // namespace

std::vector<std::byte> encode(const message& x) {
  writer out;
  out.bytes.reserve(128);
  out(static_cast<std::uint8_t>(x.index()));
  out(version);
  std::visit([&](const auto& one) { fields(out, one); }, x);
  return std::move(out.bytes);
}

std::optional<message> decode(std::span<const std::byte> bytes) {
  if (bytes.size() < 2 || std::to_integer<std::uint8_t>(bytes[1]) != version)
    return std::nullopt;
  reader in{bytes.subspan(2)};
  return decode_kind(std::to_integer<std::size_t>(bytes[0]), in);
}

} // namespace llumnix::ucx
