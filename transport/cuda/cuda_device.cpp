#include "transport/cuda/cuda_device.hpp"

#include "runtime/base/assert.hpp"
#include "transport/cuda/paged_copy.hpp"

#include <spdlog/fmt/fmt.h>

#include <type_traits>
#include <vector>

namespace llumnix {

namespace {

/// From this mean size of a copy's pieces on the copy engines carry them: on an H200 they are slower
/// than the kernel at 256 KiB and faster at 1 MiB (docs/transport.md).
constexpr std::uint64_t copy_engine_min = 1 << 20;

error failure(cudaError_t status, std::string_view doing) {
  auto code = status == cudaErrorMemoryAllocation ? errc::out_of_blocks : errc::internal;
  return {code, fmt::format("{}: {}", doing, cudaGetErrorString(status))};
}

struct destroy {
  void operator()(cudaStream_t x) const { cudaStreamDestroy(x); }
  void operator()(cudaEvent_t x) const { cudaEventDestroy(x); }
};
using stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, destroy>;
using event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, destroy>;

/// Over with the event that stands behind it in its stream.
class cuda_copy final : public kv_device::copy {
public:
  explicit cuda_copy(event behind) : behind_{std::move(behind)} {}
  ~cuda_copy() override {
    if (behind_)
      cudaEventSynchronize(behind_.get());
  }
  /// A GPU that reports an error runs nothing of this process any more.
  state look() override {
    auto status = behind_ ? cudaEventQuery(behind_.get()) : cudaErrorUnknown;
    if (status == cudaErrorNotReady)
      return state::under_way;
    return status == cudaSuccess ? state::done : state::failed;
  }

private:
  event behind_; ///< null: it could not be ordered
};

result<cudaDeviceProp> find_device(int number) {
  int count = 0;
  if (auto status = cudaGetDeviceCount(&count); status != cudaSuccess)
    return error{errc::unsupported, std::string{"no CUDA: "} + cudaGetErrorString(status)};
  if (number < 0 || number >= count)
    return error{errc::unsupported, fmt::format("no GPU {}: there are {}", number, count)};
  cudaDeviceProp found;
  if (auto status = cudaGetDeviceProperties(&found, number); status != cudaSuccess)
    return failure(status, "ask for a GPU's properties");
  return found;
}

class cuda_device final : public kv_device {
public:
  explicit cuda_device(int number) : number_{number} {}

  result<void> start() {
    use();
    for (auto* made : {&out_, &in_}) {
      cudaStream_t raw = nullptr;
      if (auto status = cudaStreamCreateWithFlags(&raw, cudaStreamNonBlocking);
          status != cudaSuccess)
        return failure(status, "make a CUDA stream");
      made->reset(raw);
    }
    return {};
  }

  bool holds(std::span<const std::byte> memory) const override {
    auto ours = [&](const std::byte& x) {
      cudaPointerAttributes found{};
      return cudaPointerGetAttributes(&found, &x) == cudaSuccess
             && found.type == cudaMemoryTypeDevice && found.device == number_;
    };
    return !memory.empty() && ours(memory.front()) && ours(memory.back());
  }

  result<std::shared_ptr<std::byte>> make_memory(std::uint64_t bytes) override {
    if (bytes == 0)
      return error{errc::invalid_argument, "memory of no bytes"};
    use();
    void* raw = nullptr;
    if (auto status = cudaMalloc(&raw, bytes); status != cudaSuccess)
      return failure(status, "allocate memory of a GPU");
    std::shared_ptr<std::byte> made{static_cast<std::byte*>(raw), [](auto* x) { cudaFree(x); }};
    auto status = cudaMemset(raw, 0, bytes);
    if (status == cudaSuccess)
      status = cudaDeviceSynchronize();
    if (status != cudaSuccess)
      return failure(status, "clear memory of a GPU");
    return made;
  }

  result<std::shared_ptr<std::byte>> make_staging(std::uint64_t bytes) override {
    use();
    void* raw = nullptr;
    if (auto status = cudaHostAlloc(&raw, bytes, cudaHostAllocPortable); status != cudaSuccess)
      return failure(status, "allocate pinned memory");
    return std::shared_ptr<std::byte>{
      static_cast<std::byte*>(raw), [](auto* x) { cudaFreeHost(x); }};
  }

  std::unique_ptr<copy> gather(
    std::span<const std::byte> memory, std::span<const kv_piece> pieces,
    std::span<std::byte> staging) override {
    LLUMNIX_ASSERT(within(pieces, memory.size(), staging.size()));
    return begin(
      cuda::direction::gather, const_cast<std::byte*>(memory.data()), pieces, staging.data(),
      out_.get());
  }

  std::unique_ptr<copy> scatter(
    std::span<std::byte> memory, std::span<const kv_piece> pieces,
    std::span<const std::byte> staging) override {
    LLUMNIX_ASSERT(within(pieces, memory.size(), staging.size()));
    return begin(
      cuda::direction::scatter, memory.data(), pieces, const_cast<std::byte*>(staging.data()),
      in_.get());
  }

private:
  /// CUDA's calls go to the device that their thread has chosen.
  void use() const { cudaSetDevice(number_); }

  std::unique_ptr<copy> begin(
    cuda::direction which, std::byte* memory, std::span<const kv_piece> pieces, std::byte* staging,
    cudaStream_t on) {
    use();
    cudaEvent_t raw = nullptr;
    auto status = cudaEventCreateWithFlags(&raw, cudaEventDisableTiming);
    event behind{raw};
    std::vector<cuda::piece> parts;
    parts.reserve(pieces.size());
    std::uint64_t staged = 0;
    for (const auto& x : pieces) {
      LLUMNIX_ASSERT(staged + x.bytes <= UINT32_MAX);
      parts.push_back(
        {x.at, static_cast<std::uint32_t>(staged), static_cast<std::uint32_t>(x.bytes)});
      staged += x.bytes;
    }
    auto by = staged >= copy_engine_min * parts.size() ? cuda::carrier::copy_engine
                                                       : cuda::carrier::kernel;
    if (status == cudaSuccess)
      status = cuda::copy_pieces(which, by, memory, staging, parts.data(), parts.size(), on);
    if (status == cudaSuccess)
      status = cudaEventRecord(behind.get(), on);
    if (status == cudaSuccess)
      return std::make_unique<cuda_copy>(std::move(behind));
    cudaStreamSynchronize(on); // whatever was ordered of it is over then
    return std::make_unique<cuda_copy>(nullptr);
  }

  const int number_;
  stream out_, in_;
};

std::string version_name(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

} // namespace

result<std::shared_ptr<kv_device>> make_cuda_device(int number) {
  if (auto found = find_device(number); !found)
    return std::move(found).error();
  auto made = std::make_shared<cuda_device>(number);
  if (auto started = made->start(); !started)
    return std::move(started).error();
  return std::shared_ptr<kv_device>{std::move(made)};
}

result<std::string> describe_cuda_device(int number) {
  auto found = find_device(number);
  if (!found)
    return std::move(found).error();
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return fmt::format(
    "{}, driver {}, runtime {}", found->name, version_name(driver), version_name(runtime));
}

} // namespace llumnix
