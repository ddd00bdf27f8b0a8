#include "apps/signal_queue.hpp"

#include <csignal>
#include <stdexcept>
#include <sys/signalfd.h>
#include <unistd.h>

namespace llumnix {

signal_queue::signal_queue() {
  sigset_t ours;
  sigemptyset(&ours);
  for (int number : {SIGINT, SIGTERM, SIGCHLD})
    sigaddset(&ours, number);
  struct sigaction hangup {};
  ::sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN)
    sigaddset(&ours, SIGHUP);
  ::signal(SIGCHLD, SIG_DFL); // a caller that ignores it would leave us no exit status
  ::signal(SIGPIPE, SIG_IGN);
  ::sigprocmask(SIG_BLOCK, &ours, nullptr);
  fd_ = ::signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd_ < 0)
    throw std::runtime_error{"signalfd failed"};
}

signal_queue::~signal_queue() {
  ::close(fd_);
}

int signal_queue::take() {
  int stops = 0;
  signalfd_siginfo info;
  while (::read(fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
    if (info.ssi_signo != SIGCHLD)
      ++stops;
  return stops;
}

} // namespace llumnix
