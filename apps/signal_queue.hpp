#pragma once

namespace llumnix {

/// SIGINT, SIGTERM, SIGHUP and SIGCHLD of this process as something to wait for. Make it before any
/// thread exists: the signals are blocked from then on. SIGPIPE is ignored. A SIGHUP that `nohup`
/// ignored stays ignored.
class signal_queue {
public:
  signal_queue();
  signal_queue(const signal_queue&) = delete;
  signal_queue& operator=(const signal_queue&) = delete;
  ~signal_queue();

  /// Readable when a signal waits.
  int fd() const { return fd_; }
  /// Takes all that wait; returns how many of them ask this process to stop.
  int take();

private:
  int fd_ = -1;
};

} // namespace llumnix
