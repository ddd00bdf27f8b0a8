#include "transport/ucx/door_words.hpp"

#include "transport/ucx/ucx_greeting.hpp"
#include "transport/ucx/wire.hpp"

#include <spdlog/fmt/fmt.h>

#include <type_traits>

namespace llumnix::ucx {

namespace {

/// "llumnix", then the version.
constexpr std::uint64_t door_sign = 0x01'78'69'6E'6D'75'6C'6C;

// One list of fields for both directions.
template <class F, class T>
void words(F& f, T& x) {
  if constexpr (requires { x.port; })
    f(x.port);
  if constexpr (requires { x.nonce; })
    f(x.nonce);
  if constexpr (requires { x.life; })
    f(x.life);
  if constexpr (requires { x.of; })
    f(x.of);
}

template <class T>
std::vector<std::byte> write_words(const T& x) {
  writer out;
  out.bytes.reserve(T::bytes);
  if constexpr (std::is_same_v<T, door_greeting>)
    out(door_sign);
  words(out, x);
  return std::move(out.bytes);
}

} // namespace

std::vector<std::byte> encode(const door_greeting& x) {
  return write_words(x);
}

std::vector<std::byte> encode(const door_call& x) {
  return write_words(x);
}

std::vector<std::byte> encode(const door_answer& x) {
  return write_words(x);
}

template <class T>
std::optional<T> decode_as(std::span<const std::byte> bytes) {
  reader in{bytes};
  auto sign = door_sign;
  if constexpr (std::is_same_v<T, door_greeting>)
    in(sign);
  T x;
  words(in, x);
  return in.finished() && sign == door_sign ? std::optional{x} : std::nullopt;
}

template std::optional<door_greeting> decode_as(std::span<const std::byte>);
template std::optional<door_call> decode_as(std::span<const std::byte>);
template std::optional<door_answer> decode_as(std::span<const std::byte>);

proof proof_of_caller(
  const std::string& cluster_key, const token& caller_nonce, const door_greeting& door) {
  return prove(cluster_key, "llumnix kv caller", caller_nonce, door.nonce, door.life);
}

proof proof_of_door(
  const std::string& cluster_key, const token& caller_nonce, const door_greeting& door,
  std::uint16_t port) {
  return prove(
    cluster_key, fmt::format("llumnix kv door {}", port), caller_nonce, door.nonce, door.life);
}

} // namespace llumnix::ucx
