#include "transport/cuda/paged_copy.hpp"

#include <algorithm>

static_assert(CUDART_VERSION >= 12010, "kernel parameters beyond 4 KiB need CUDA 12.1");

namespace llumnix::cuda {

namespace {

constexpr unsigned threads = 256;
constexpr std::size_t pieces_max = 512;          // of one launch
constexpr std::uint32_t slice_bytes = 32u << 10; // what a block of threads copies at a time
constexpr unsigned slices_max = 64;              // blocks of threads for one piece

/// Travels with the launch: no memory of ours has to live until the kernel has run.
struct piece_table {
  piece of[pieces_max];
};

/// Four accesses of each thread are under way at once: the staging buffer is a bus away.
template <class Lane>
__device__ void copy_lanes(const Lane* __restrict__ from, Lane* __restrict__ to, unsigned count) {
  constexpr unsigned ahead = 4;
  unsigned i = threadIdx.x;
  for (; i + (ahead - 1) * threads < count; i += ahead * threads) {
    Lane held[ahead];
#pragma unroll
    for (unsigned k = 0; k < ahead; ++k)
      held[k] = from[i + k * threads];
#pragma unroll
    for (unsigned k = 0; k < ahead; ++k)
      to[i + k * threads] = held[k];
  }
  for (; i < count; i += threads)
    to[i] = from[i];
}

/// By one block of threads: whole lanes where both sides allow it, single bytes around them, and
/// never a byte of the neighbours'.
template <class Lane>
__device__ void copy_around(const std::byte* from, std::byte* to, unsigned bytes) {
  constexpr unsigned width = sizeof(Lane);
  auto past = static_cast<unsigned>(reinterpret_cast<std::uintptr_t>(from) % width);
  auto head = min((width - past) % width, bytes);
  auto lanes = (bytes - head) / width;
  auto tail = head + lanes * width;
  if (threadIdx.x < head)
    to[threadIdx.x] = from[threadIdx.x];
  copy_lanes(reinterpret_cast<const Lane*>(from + head), reinterpret_cast<Lane*>(to + head), lanes);
  if (threadIdx.x < bytes - tail)
    to[tail + threadIdx.x] = from[tail + threadIdx.x];
}

__device__ void copy_slice(const std::byte* from, std::byte* to, unsigned bytes) {
  auto differ = reinterpret_cast<std::uintptr_t>(from) ^ reinterpret_cast<std::uintptr_t>(to);
  if (differ % sizeof(uint4) == 0)
    copy_around<uint4>(from, to, bytes);
  else if (differ % sizeof(std::uint64_t) == 0)
    copy_around<std::uint64_t>(from, to, bytes);
  else if (differ % sizeof(std::uint32_t) == 0)
    copy_around<std::uint32_t>(from, to, bytes);
  else
    copy_around<std::byte>(from, to, bytes);
}

/// A piece for each x of the grid, in slices that its y share.
template <direction which>
__global__ void __launch_bounds__(threads)
  paged_copy(std::byte* memory, std::byte* staging, const __grid_constant__ piece_table table) {
  const auto& one = table.of[blockIdx.x];
  auto* inside = memory + one.at;
  auto* staged = staging + one.staged;
  for (std::uint64_t at = std::uint64_t{blockIdx.y} * slice_bytes; at < one.bytes;
       at += std::uint64_t{gridDim.y} * slice_bytes) {
    auto left = one.bytes - static_cast<unsigned>(at);
    auto bytes = min(slice_bytes, left);
    if constexpr (which == direction::gather)
      copy_slice(inside + at, staged + at, bytes);
    else
      copy_slice(staged + at, inside + at, bytes);
  }
}

cudaError_t by_kernel(
  direction which, std::byte* memory, std::byte* staging, const piece* pieces, std::size_t count,
  cudaStream_t stream) {
  piece_table table;
  for (std::size_t first = 0; first < count; first += pieces_max) {
    auto some = std::min(pieces_max, count - first);
    std::copy_n(pieces + first, some, table.of);
    std::uint32_t longest = 0;
    for (std::size_t i = 0; i < some; ++i)
      longest = std::max(longest, table.of[i].bytes);
    auto slices = std::clamp(longest / slice_bytes + (longest % slice_bytes != 0), 1u, slices_max);
    void* arguments[] = {&memory, &staging, &table};
    auto* kernel = which == direction::gather ? &paged_copy<direction::gather>
                                              : &paged_copy<direction::scatter>;
    auto status = cudaLaunchKernel(
      reinterpret_cast<const void*>(kernel), dim3{static_cast<unsigned>(some), slices},
      dim3{threads}, arguments, 0, stream);
    if (status != cudaSuccess)
      return status;
  }
  return cudaSuccess;
}

cudaError_t by_copy_engine(
  direction which, std::byte* memory, std::byte* staging, const piece* pieces, std::size_t count,
  cudaStream_t stream) {
  for (std::size_t i = 0; i < count; ++i) {
    auto* inside = memory + pieces[i].at;
    auto* staged = staging + pieces[i].staged;
    auto status
      = which == direction::gather
          ? cudaMemcpyAsync(staged, inside, pieces[i].bytes, cudaMemcpyDeviceToHost, stream)
          : cudaMemcpyAsync(inside, staged, pieces[i].bytes, cudaMemcpyHostToDevice, stream);
    if (status != cudaSuccess)
      return status;
  }
  return cudaSuccess;
}

} // namespace

cudaError_t copy_pieces(
  direction which, carrier by, std::byte* memory, std::byte* staging, const piece* pieces,
  std::size_t count, cudaStream_t stream) {
  auto* carry = by == carrier::kernel ? &by_kernel : &by_copy_engine;
  return carry(which, memory, staging, pieces, count, stream);
}

} // namespace llumnix::cuda
