#pragma once

#include "runtime/base/result.hpp"

#include <string>
#include <string_view>

namespace llumnix {

/// A text that only a child which inherits it can read: a file in memory, without a name. For what
/// must not show in a command line, where every user of the machine can see it.
class memory_file {
public:
  /// Holds `text` for good; nobody can change it. `internal` when the system refuses.
  static result<memory_file> make(std::string_view text);

  memory_file() = default;
  memory_file(memory_file&& other) noexcept;
  memory_file& operator=(memory_file&& other) noexcept;
  ~memory_file();

  int fd() const { return fd_; }
  /// Where a process that has inherited `fd` opens it.
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

private:
  int fd_ = -1;
};

} // namespace llumnix
