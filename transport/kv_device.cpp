#include "transport/kv_device.hpp"

#include <thread>

namespace llumnix {

bool finish(kv_device::copy& one) {
  for (;;) {
    switch (one.look()) {
      case kv_device::copy::state::done: return true;
      case kv_device::copy::state::failed: return false;
      case kv_device::copy::state::under_way: std::this_thread::yield();
    }
  }
}

} // namespace llumnix
