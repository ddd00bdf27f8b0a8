#include "transport/cuda/host_device.hpp"

#include "runtime/base/assert.hpp"

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <sys/mman.h>
#include <unistd.h>

namespace llumnix {

namespace {

/// What the device's memory is made of: pages that are mapped twice, where the CPU may not touch
/// them and where it may.
struct pages {
  std::uint64_t bytes = 0;
  std::byte* closed = nullptr;
  std::byte* open = nullptr;
};

error failure(const char* doing) {
  return {errc::internal, std::string{doing} + ": " + std::strerror(errno)};
}

result<pages> map_twice(std::uint64_t bytes) {
  auto file = ::memfd_create("kv of a host device", MFD_CLOEXEC);
  if (file < 0)
    return failure("memfd_create");
  pages made{bytes};
  auto map = [&](int protection) -> std::byte* {
    auto* at = ::mmap(nullptr, bytes, protection, MAP_SHARED, file, 0);
    return at == MAP_FAILED ? nullptr : static_cast<std::byte*>(at);
  };
  if (::ftruncate(file, static_cast<off_t>(bytes)) == 0) {
    made.closed = map(PROT_NONE);
    made.open = map(PROT_READ | PROT_WRITE);
  }
  auto why = failure("map the memory of a host device");
  ::close(file);
  if (made.closed != nullptr && made.open != nullptr)
    return made;
  for (auto* at : {made.closed, made.open})
    if (at != nullptr)
      ::munmap(at, bytes);
  return why;
}

class over final : public kv_device::copy {
public:
  state look() override { return state::done; }
};

class host_device final : public kv_device {
public:
  bool holds(std::span<const std::byte> memory) const override {
    return all_->reach(memory) != nullptr;
  }

  result<std::shared_ptr<std::byte>> make_memory(std::uint64_t bytes) override {
    if (bytes == 0)
      return error{errc::invalid_argument, "memory of no bytes"};
    auto made = map_twice(bytes);
    if (!made)
      return std::move(made).error();
    std::lock_guard lock{all_->mutex};
    all_->by_address.emplace(made->closed, *made);
    return std::shared_ptr<std::byte>{made->closed, [all = all_](std::byte* at) { all->drop(at); }};
  }

  result<std::shared_ptr<std::byte>> make_staging(std::uint64_t bytes) override {
    constexpr std::align_val_t page{4096};
    return std::shared_ptr<std::byte>{
      static_cast<std::byte*>(::operator new(bytes, page)),
      [](std::byte* at) { ::operator delete(at, page); }};
  }

  std::unique_ptr<copy> gather(
    std::span<const std::byte> memory, std::span<const kv_piece> pieces,
    std::span<std::byte> staging) override {
    LLUMNIX_ASSERT(within(pieces, memory.size(), staging.size()));
    auto* open = all_->reach(memory);
    LLUMNIX_ASSERT(open != nullptr);
    llumnix::gather({open, memory.size()}, pieces, staging);
    return std::make_unique<over>();
  }

  std::unique_ptr<copy> scatter(
    std::span<std::byte> memory, std::span<const kv_piece> pieces,
    std::span<const std::byte> staging) override {
    LLUMNIX_ASSERT(within(pieces, memory.size(), staging.size()));
    auto* open = all_->reach(memory);
    LLUMNIX_ASSERT(open != nullptr);
    llumnix::scatter({open, memory.size()}, pieces, staging);
    return std::make_unique<over>();
  }

private:
  /// Outlives the device with the last piece of its memory.
  struct allocations {
    mutable std::mutex mutex;
    std::map<const std::byte*, pages> by_address;

    /// Where the CPU finds the bytes; null when they are not ours.
    std::byte* reach(std::span<const std::byte> memory) const {
      std::lock_guard lock{mutex};
      auto next = by_address.upper_bound(memory.data());
      if (next == by_address.begin())
        return nullptr;
      const auto& [at, found] = *std::prev(next);
      auto offset = static_cast<std::uint64_t>(memory.data() - at);
      if (!inside(offset, memory.size(), found.bytes))
        return nullptr;
      return found.open + offset;
    }
    void drop(std::byte* at) {
      std::unique_lock lock{mutex};
      auto gone = by_address.extract(at).mapped();
      lock.unlock();
      ::munmap(gone.closed, gone.bytes);
      ::munmap(gone.open, gone.bytes);
    }
  };
  std::shared_ptr<allocations> all_ = std::make_shared<allocations>();
};

} // namespace

std::shared_ptr<kv_device> make_host_device() {
  return std::make_shared<host_device>();
}

} // namespace llumnix
