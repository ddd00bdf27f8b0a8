#pragma once

#include "runtime/engine/engine.hpp"
#include "runtime/engine/moving.hpp"
#include "transport/kv_transport.hpp"

#include <memory>
#include <utility>

namespace llumnix {

/// An engine's KV memory at the transport, for as long as anybody holds this; the engine lives on
/// until then.
class kv_region {
public:
  /// Null where the engine exports no KV, or the transport does not take it.
  static std::shared_ptr<kv_region>
  make(std::shared_ptr<kv_transport> transport, std::shared_ptr<stepped_engine> engine) {
    auto* moving = engine ? engine->moving() : nullptr;
    if (!transport || !moving || moving->kv_memory().empty())
      return nullptr;
    auto added = transport->add_region(moving->kv_memory());
    if (!added)
      return nullptr;
    return std::make_shared<kv_region>(std::move(transport), std::move(engine), *added);
  }
  kv_region(
    std::shared_ptr<kv_transport> transport, std::shared_ptr<stepped_engine> engine,
    kv_transport::region_id id)
    : transport_{std::move(transport)}, engine_{std::move(engine)}, id_{id} {}
  kv_region(const kv_region&) = delete;
  kv_region& operator=(const kv_region&) = delete;
  ~kv_region() { transport_->forget(id_); }

  kv_transport& transport() const { return *transport_; }
  kv_transport::region_id id() const { return id_; }
  std::string address() const { return transport_->address(id_); }

private:
  std::shared_ptr<kv_transport> transport_;
  std::shared_ptr<stepped_engine> engine_;
  kv_transport::region_id id_;
};

} // namespace llumnix
