#pragma once

#include "transport/kv_device.hpp"

#include <memory>
#include <string>

namespace llumnix {

/// The GPU of that number: memory of cudaMalloc, pinned staging, and a stream for each direction.
/// What the streams of an engine write must be there before a window on it opens; after `done`
/// every stream sees what has landed. `unsupported` without a driver or such a GPU.
result<std::shared_ptr<kv_device>> make_cuda_device(int number = 0);

/// "NVIDIA H100 80GB HBM3, driver 13.0, runtime 13.0"; `unsupported` likewise.
result<std::string> describe_cuda_device(int number = 0);

} // namespace llumnix
