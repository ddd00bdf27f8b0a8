#pragma once

#include "transport/kv_device.hpp"

#include <memory>

namespace llumnix {

/// The form that `cuda_device` has on machines without CUDA: its memory is the host's, but the
/// addresses it gives out are closed to the CPU, as a GPU's are. Who touches them stops the
/// process; only the device itself knows where the bytes can be reached. Its copies are over when
/// they have begun.
std::shared_ptr<kv_device> make_host_device();

} // namespace llumnix
