#pragma once

#include "transport/ucx/ucx_messages.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

/// How the fields of what peers say to each other are written.
namespace llumnix::ucx {

/// Appends numbers, little-endian.
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

/// Takes them off again. What is too short or out of its bounds spoils it for good.
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

} // namespace llumnix::ucx
