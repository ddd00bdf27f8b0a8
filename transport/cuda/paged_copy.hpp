#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>

namespace llumnix::cuda {

/// A stretch of device memory and of the staging buffer.
struct piece {
  std::uint64_t at = 0;     ///< offset in the memory
  std::uint32_t staged = 0; ///< offset in the staging buffer
  std::uint32_t bytes = 0;
};

enum class direction { gather, scatter };

/// What carries the bytes: one kernel for hundreds of pieces, or the GPU's copy engines, which
/// leave its processors alone but cost a call for each piece.
enum class carrier { kernel, copy_engine };

/// Orders the pieces to be copied on `stream`: out of `memory` into `staging`, or back. `staging`
/// is pinned. After an error some of them may be under way.
cudaError_t copy_pieces(
  direction which, carrier by, std::byte* memory, std::byte* staging, const piece* pieces,
  std::size_t count, cudaStream_t stream);

} // namespace llumnix::cuda
