#pragma once

#include "gateway/body_reader.hpp"
#include "gateway/large_bodies.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace llumnix {

/// The requests of one I/O loop for models that no engine is known to serve, while the engines are
/// asked once more. Watches their clients meanwhile: one that leaves is forgotten.
class model_waits {
public:
  static constexpr std::size_t most = 256;

  model_waits();
  ~model_waits();
  model_waits(const model_waits&) = delete;
  model_waits& operator=(const model_waits&) = delete;

  bool full() const { return waits_.size() >= most; }
  std::size_t size() const { return waits_.size(); }
  /// Not when full. The number is for `take`.
  std::uint64_t add(client_call&& call, relayable_request&& wanted);
  /// Nothing if its client has left.
  std::optional<std::pair<client_call, relayable_request>> take(std::uint64_t number);
  /// Forgets all and hands them back, to be answered.
  std::vector<client_call> take_all();

private:
  struct waiting;

  std::unordered_map<std::uint64_t, std::unique_ptr<waiting>> waits_;
  std::uint64_t last_ = 0;
};

} // namespace llumnix
