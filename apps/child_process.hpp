#pragma once

#include "runtime/base/result.hpp"

#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace llumnix {

/// A program to run as a child that cannot outlive this process.
struct child_command {
  std::string program;                ///< a path
  std::vector<std::string> arguments; ///< argv, its first item included
  bool quiet = false;                 ///< its output is dropped; else both streams go to stderr
  bool announces = false;             ///< gets `--ready-fd N` and writes one line there
  int inherited_fd = -1;              ///< a descriptor that stays open in it; -1: none
};

/// A running child in a process group of its own, so that ^C at the terminal reaches only its
/// parent. The kernel kills it when the thread that started it ends, however that happens. Start
/// children before any thread exists.
class child_process {
public:
  /// Fails with `internal` when the system has no room for another process.
  static result<child_process> start(const child_command& command);

  child_process() = default;
  child_process(child_process&& other) noexcept;
  child_process& operator=(child_process&& other) noexcept;
  ~child_process();

  pid_t pid() const { return pid_; }
  bool running() const { return pid_ > 0; }
  /// Where its announcement can be read, without blocking; -1 once that has ended.
  int announcement_fd() const { return announcement_fd_; }
  /// Reads what is there; a whole line is returned once, without its end.
  std::optional<std::string> read_announcement();
  /// Sends a signal if it still runs.
  void signal(int number) const;
  /// The wait status once the child has ended; asked again it says nothing. Never blocks.
  std::optional<int> reap();

private:
  void close_announcement();

  pid_t pid_ = -1;
  int announcement_fd_ = -1;
  std::string announced_;
};

/// "signal 9", "exit 1".
std::string describe_exit(int wait_status);

/// The path of a program on PATH; empty if there is none.
std::string find_program(const std::string& name);

} // namespace llumnix
