#include "apps/memory_file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace llumnix {

result<memory_file> memory_file::make(std::string_view text) {
  auto failed = [](const char* what) {
    return error{errc::internal, std::string{what} + ": " + std::strerror(errno)};
  };
  memory_file made;
  made.fd_ = ::memfd_create("llumnix-settings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (made.fd_ < 0)
    return failed("memfd_create");
  while (!text.empty()) {
    auto count = ::write(made.fd_, text.data(), text.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return failed("writing to a memory file");
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  if (::fcntl(made.fd_, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0)
    return failed("sealing a memory file");
  return made;
}

memory_file::memory_file(memory_file&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}

memory_file& memory_file::operator=(memory_file&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

memory_file::~memory_file() {
  if (fd_ >= 0)
    ::close(fd_);
}

} // namespace llumnix
