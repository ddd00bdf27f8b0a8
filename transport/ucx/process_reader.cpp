#include "transport/ucx/process_reader.hpp"

#include "runtime/base/assert.hpp"

#include <array>
#include <sys/uio.h>

namespace llumnix::ucx {

namespace {

void* remote(std::uint64_t address) {
  return reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
}

} // namespace

bool has_secret(std::uint32_t process, std::uint64_t at, const token& secret) {
  token found;
  iovec here{&found, sizeof found};
  iovec there{remote(at), sizeof found};
  auto got = process_vm_readv(static_cast<pid_t>(process), &here, 1, &there, 1, 0);
  return got == static_cast<ssize_t>(sizeof found) && found == secret;
}

bool read_process(
  std::uint32_t process, std::uint64_t memory, std::span<const kv_span> spans,
  std::span<std::byte> to) {
  LLUMNIX_ASSERT(spans.size() <= process_spans_max);
  std::array<iovec, process_spans_max> here;
  std::array<iovec, process_spans_max> there;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    here[i] = {to.data() + spans[i].to, spans[i].bytes};
    there[i] = {remote(memory + spans[i].from), spans[i].bytes};
  }
  auto got = process_vm_readv(
    static_cast<pid_t>(process), here.data(), spans.size(), there.data(), spans.size(), 0);
  return got >= 0 && static_cast<std::uint64_t>(got) == bytes_of(spans);
}

} // namespace llumnix::ucx
