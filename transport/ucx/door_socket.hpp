#pragma once

#include "runtime/base/result.hpp"
#include "transport/ucx/door_words.hpp"

#include <cstddef>
#include <optional>
#include <span>
#include <sys/socket.h>
#include <utility>
#include <vector>

namespace llumnix::ucx {

/// A descriptor that is closed with its owner.
class owned_descriptor {
public:
  owned_descriptor() = default;
  explicit owned_descriptor(int descriptor) : descriptor_{descriptor} {}
  owned_descriptor(owned_descriptor&& other) noexcept
    : descriptor_{std::exchange(other.descriptor_, -1)} {}
  owned_descriptor& operator=(owned_descriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~owned_descriptor();

  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }

private:
  int descriptor_ = -1;
};

/// Sockets of our own that the UCX thread sleeps on beside UCX's. It is told of what is new alone:
/// whoever is woken reads all there is.
class socket_watch {
public:
  result<void> open();
  /// Until it is closed.
  void add(int socket);
  /// Readable when something has come.
  int descriptor() const { return events_.get(); }
  /// Whether something has come since the last time.
  bool stirred();

private:
  owned_descriptor events_;
};

/// A TCP connection on which a few words are exchanged, without ever waiting for them.
class door_socket {
public:
  explicit door_socket(owned_descriptor socket) : socket_{std::move(socket)} {}
  /// Begins to connect.
  static result<door_socket> connect(const sockaddr_storage& where, socket_watch& watch);

  /// False when the words do not go at once: then they never will.
  bool say(std::span<const std::byte> words);
  /// The next message, once all of it is there; an error when it never will be.
  template <class T>
  result<std::optional<T>> hear() {
    if (auto whole = fill(T::bytes); !whole)
      return std::move(whole).error();
    else if (!*whole)
      return std::optional<T>{};
    auto what = decode_as<T>(std::exchange(heard_, {}));
    if (!what)
      return error{errc::bad_message, "does not speak as a KV peer of this version"};
    return what;
  }

private:
  result<bool> fill(std::size_t bytes);

  owned_descriptor socket_;
  std::vector<std::byte> heard_;
};

} // namespace llumnix::ucx
