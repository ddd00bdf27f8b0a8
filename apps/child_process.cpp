#include "apps/child_process.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

namespace llumnix {

namespace {

/// What the child does between fork and exec: only calls that are safe there. Never returns.
[[noreturn]] void
become(const child_command& command, char* const* arguments, int ready_fd, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) // it ended before the line above; nobody would kill us
    ::_exit(127);
  ::setpgid(0, 0);
  int nothing = ::open("/dev/null", O_RDWR);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(command.quiet ? nothing : STDERR_FILENO, STDOUT_FILENO);
  ::close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
  for (int kept : {ready_fd, command.inherited_fd})
    if (kept >= 0)
      ::fcntl(kept, F_SETFD, 0);
  for (int number = 1; number < NSIG; ++number) // no handler of ours may run here
    ::signal(number, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execv(command.program.c_str(), arguments);
  constexpr std::string_view failed = "llumnix: a child program cannot be executed\n";
  [[maybe_unused]] auto written = ::write(STDERR_FILENO, failed.data(), failed.size());
  ::_exit(127);
}

} // namespace

result<child_process> child_process::start(const child_command& command) {
  int ends[2] = {-1, -1};
  if (command.announces && ::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
    return {errc::internal, std::string{"pipe: "} + std::strerror(errno)};
  auto arguments = command.arguments;
  if (command.announces) {
    ::fcntl(ends[1], F_SETFL, 0); // the child's end may block
    arguments.insert(arguments.end(), {"--ready-fd", std::to_string(ends[1])});
  }
  std::vector<char*> argv;
  for (auto& each : arguments)
    argv.push_back(each.data());
  argv.push_back(nullptr);
  auto parent = ::getpid();
  sigset_t all, before;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, &before); // until the child has dropped our handlers
  auto pid = ::fork();
  if (pid == 0)
    become(command, argv.data(), ends[1], parent);
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  if (ends[1] >= 0)
    ::close(ends[1]);
  child_process child;
  child.announcement_fd_ = ends[0];
  if (pid < 0)
    return {errc::internal, std::string{"fork: "} + std::strerror(errno)};
  child.pid_ = pid;
  return child;
}

child_process::child_process(child_process&& other) noexcept
  : pid_{std::exchange(other.pid_, -1)},
    announcement_fd_{std::exchange(other.announcement_fd_, -1)},
    announced_{std::move(other.announced_)} {}

child_process& child_process::operator=(child_process&& other) noexcept {
  std::swap(pid_, other.pid_);
  std::swap(announcement_fd_, other.announcement_fd_);
  announced_.swap(other.announced_);
  return *this;
}

child_process::~child_process() {
  close_announcement();
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
}

std::optional<std::string> child_process::read_announcement() {
  char chunk[4096];
  while (announcement_fd_ >= 0) {
    auto count = ::read(announcement_fd_, chunk, sizeof chunk);
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0 && errno == EAGAIN)
      return std::nullopt;
    if (count <= 0) {
      close_announcement();
      return std::nullopt;
    }
    announced_.append(chunk, static_cast<std::size_t>(count));
    if (auto end = announced_.find('\n'); end != std::string::npos) {
      close_announcement();
      return announced_.substr(0, end);
    }
  }
  return std::nullopt;
}

void child_process::signal(int number) const {
  if (pid_ > 0)
    ::kill(pid_, number);
}

std::optional<int> child_process::reap() {
  int status = 0;
  if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_)
    return std::nullopt;
  pid_ = -1;
  return status;
}

void child_process::close_announcement() {
  if (announcement_fd_ >= 0)
    ::close(std::exchange(announcement_fd_, -1));
}

std::string describe_exit(int wait_status) {
  if (WIFSIGNALED(wait_status))
    return "signal " + std::to_string(WTERMSIG(wait_status));
  return "exit " + std::to_string(WEXITSTATUS(wait_status));
}

std::string find_program(const std::string& name) {
  auto* variable = std::getenv("PATH");
  std::string_view rest = variable != nullptr ? variable : "/usr/bin:/bin";
  while (!rest.empty()) {
    auto folder = rest.substr(0, rest.find(':'));
    auto path = std::string{folder} + "/" + name;
    if (!folder.empty() && ::access(path.c_str(), X_OK) == 0)
      return path;
    rest.remove_prefix(std::min(rest.size(), folder.size() + 1));
  }
  return {};
}

} // namespace llumnix
