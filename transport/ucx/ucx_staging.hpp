#pragma once

#include "transport/kv_device.hpp"
#include "transport/staging_area.hpp"
#include "transport/ucx/ucx_handles.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace llumnix::ucx {

/// Pinned memory through which the bytes of one device pass in one direction. Its size is fixed:
/// whoever finds no room waits, and no connection has more than its share. Runs on the UCX thread.
class ucx_staging {
public:
  /// A part in use; it is free again with the end of this.
  class part {
  public:
    part(part&& other) noexcept
      : of_{std::exchange(other.of_, nullptr)},
        link_{other.link_},
        at_{other.at_},
        bytes_{other.bytes_} {}
    part& operator=(part&& other) noexcept {
      std::swap(of_, other.of_);
      std::swap(link_, other.link_);
      std::swap(at_, other.at_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~part() {
      if (of_)
        of_->give_back(*this);
    }
    std::span<std::byte> bytes() const { return {of_->memory_.get() + at_, bytes_}; }

  private:
    friend class ucx_staging;
    part(std::shared_ptr<ucx_staging> of, std::uint64_t link, std::uint64_t at, std::uint64_t bytes)
      : of_{std::move(of)}, link_{link}, at_{at}, bytes_{bytes} {}
    std::shared_ptr<ucx_staging> of_;
    std::uint64_t link_;
    std::uint64_t at_;
    std::uint64_t bytes_;
  };

  /// `memory` is of `make_staging`. UCX registers it as a whole, so that it does not do so with
  /// every chunk; the context outlives this.
  static result<std::shared_ptr<ucx_staging>>
  make(ucp_context_h context, std::shared_ptr<std::byte> memory, std::uint64_t bytes);
  ~ucx_staging();
  ucx_staging(const ucx_staging&) = delete;
  ucx_staging& operator=(const ucx_staging&) = delete;

  /// Whether that connection may have so many bytes more.
  bool may_take(std::uint64_t link, std::uint64_t bytes) const;
  /// For bytes of that connection, which may take them; nothing while there is no room.
  static std::optional<part>
  take(const std::shared_ptr<ucx_staging>& of, std::uint64_t link, std::uint64_t bytes);

private:
  ucx_staging(
    ucp_context_h context, ucp_mem_h handle, std::shared_ptr<std::byte> memory, std::uint64_t bytes)
    : context_{context}, handle_{handle}, memory_{std::move(memory)}, size_{bytes}, area_{bytes} {}
  void give_back(const part& x);

  ucp_context_h context_;
  ucp_mem_h handle_;
  std::shared_ptr<std::byte> memory_;
  std::uint64_t size_;
  staging_area area_;
  std::map<std::uint64_t, std::uint64_t> held_; ///< bytes, by the links that have some
};

} // namespace llumnix::ucx
