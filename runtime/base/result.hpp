#pragma once

#include "runtime/base/assert.hpp"
#include "runtime/base/error.hpp"

#include <utility>
#include <variant>

namespace llumnix {

/// A `T` or the `error` that stood in its way; shaped like C++23's `std::expected`.
template <class T>
class [[nodiscard]] result {
public:
  result(T value) : state_{std::in_place_index<0>, std::move(value)} {}
  result(llumnix::error failure) : state_{std::in_place_index<1>, std::move(failure)} {}
  result(errc code, std::string context) : result{llumnix::error{code, std::move(context)}} {}

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(value()); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  T& value() & {
    LLUMNIX_ASSERT(has_value());
    return std::get<0>(state_);
  }
  const T& value() const& {
    LLUMNIX_ASSERT(has_value());
    return std::get<0>(state_);
  }

  llumnix::error& error() & {
    LLUMNIX_ASSERT(!has_value());
    return std::get<1>(state_);
  }
  const llumnix::error& error() const& {
    LLUMNIX_ASSERT(!has_value());
    return std::get<1>(state_);
  }
  llumnix::error&& error() && { return std::move(this->error()); }

private:
  std::variant<T, llumnix::error> state_;
};

/// Success without a value, or an `error`.
template <>
class [[nodiscard]] result<void> {
public:
  result() = default;
  result(llumnix::error failure) : failure_{std::move(failure)}, failed_{true} {}
  result(errc code, std::string context) : result{llumnix::error{code, std::move(context)}} {}

  bool has_value() const { return !failed_; }
  explicit operator bool() const { return has_value(); }

  llumnix::error& error() & {
    LLUMNIX_ASSERT(failed_);
    return failure_;
  }
  const llumnix::error& error() const& {
    LLUMNIX_ASSERT(failed_);
    return failure_;
  }
  llumnix::error&& error() && { return std::move(this->error()); }

private:
  llumnix::error failure_;
  bool failed_ = false;
};

} // namespace llumnix
