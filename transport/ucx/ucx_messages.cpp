#include "transport/ucx/ucx_messages.hpp"

#include <cstring>
#include <type_traits>
#include <utility>

namespace llumnix::ucx {

namespace {

constexpr std::uint8_t version = 1;

class writer {
public:
  template <class Number>
  requires std::is_integral_v<Number>
  void operator()(Number x) {
    for (std::size_t i = 0; i < sizeof x; ++i)
      bytes.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(x) >> (8 * i)));
  }
  void operator()(const token& x) { (*this)(x.high), (*this)(x.low); }
  void operator()(const handover_id& x) { (*this)(x.high), (*this)(x.low); }
  void operator()(const proof& x) { bytes.insert(bytes.end(), x.begin(), x.end()); }
  void operator()(errc x) { (*this)(static_cast<std::uint8_t>(x)); }
  void operator()(const std::vector<kv_piece>& pieces) {
    (*this)(static_cast<std::uint16_t>(pieces.size()));
    for (const auto& piece : pieces)
      (*this)(piece.at), (*this)(static_cast<std::uint32_t>(piece.bytes));
  }
  std::vector<std::byte> bytes;
};

class reader {
public:
  explicit reader(std::span<const std::byte> bytes) : left_{bytes} {}

  template <class Number>
  requires std::is_integral_v<Number>
  void operator()(Number& x) {
    std::uint64_t value = 0;
    if (left_.size() < sizeof x) {
      good_ = false;
      return;
    }
    for (std::size_t i = 0; i < sizeof x; ++i)
      value |= std::to_integer<std::uint64_t>(left_[i]) << (8 * i);
    left_ = left_.subspan(sizeof x);
    if constexpr (std::is_same_v<Number, bool>)
      good_ = good_ && value <= 1;
    x = static_cast<Number>(value);
  }
  void operator()(token& x) { (*this)(x.high), (*this)(x.low); }
  void operator()(handover_id& x) { (*this)(x.high), (*this)(x.low); }
  void operator()(proof& x) {
    good_ = good_ && left_.size() >= x.size();
    if (!good_)
      return;
    std::memcpy(x.data(), left_.data(), x.size());
    left_ = left_.subspan(x.size());
  }
  void operator()(errc& x) {
    std::uint8_t code = 0;
    (*this)(code);
    good_ = good_ && code > 0 && code <= static_cast<std::uint8_t>(errc::bad_message);
    x = static_cast<errc>(code);
  }
  void operator()(std::vector<kv_piece>& pieces) {
    std::uint16_t count = 0;
    (*this)(count);
    good_ = good_ && count > 0 && count <= pieces_max && left_.size() == count * std::size_t{12};
    std::uint64_t sum = 0;
    for (std::uint16_t i = 0; good_ && i < count; ++i) {
      std::uint32_t bytes = 0;
      auto& piece = pieces.emplace_back();
      (*this)(piece.at), (*this)(bytes);
      piece.bytes = bytes;
      sum += bytes;
      good_ = bytes > 0 && sum <= chunk_bytes_max;
    }
  }

  bool finished() const { return good_ && left_.empty(); }

private:
  std::span<const std::byte> left_;
  bool good_ = true;
};

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
