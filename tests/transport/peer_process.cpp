#include "tests/transport/peer_process.hpp"

#include "tests/transport/test_device.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace llumnix::testing {

peer_process::peer_process(const options& how) {
  auto beside = std::filesystem::read_symlink("/proc/self/exe").replace_filename(peer_program());
  std::string words[] = {
    beside,
    std::to_string(how.port),
    how.same_host ? "1" : "0",
    how.cluster_key,
    std::to_string(how.bytes),
    std::to_string(how.seed),
    how.device ? "device" : "host"};
  char* arguments[8] = {};
  for (std::size_t i = 0; i < 7; ++i)
    arguments[i] = words[i].data();
  int to[2], from[2];
  REQUIRE(::pipe2(to, O_CLOEXEC) == 0);
  REQUIRE(::pipe2(from, O_CLOEXEC) == 0);
  process_ = ::fork();
  if (process_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(to[0], 0);
    ::dup2(from[1], 1);
    ::execv(arguments[0], arguments);
    ::_exit(127);
  }
  REQUIRE(process_ > 0);
  ::close(to[0]);
  ::close(from[1]);
  in_ = to[1];
  out_ = from[0];
  auto first = line();
  REQUIRE(first.starts_with("address "));
  address_ = first.substr(8);
  auto text = "open " + std::to_string(key.high) + " " + std::to_string(key.low) + "\n";
  REQUIRE(::write(in_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  REQUIRE(line() == "opened");
}

peer_process::~peer_process() {
  kill();
  ::close(in_);
  ::close(out_);
}

std::uint16_t peer_process::port() const {
  // ucx/2/<ip>/<port>/...
  auto at = address_.find('/', 6) + 1;
  return static_cast<std::uint16_t>(std::stoi(address_.substr(at)));
}

void peer_process::close_window() {
  auto text = "close " + std::to_string(key.high) + " " + std::to_string(key.low) + "\n";
  REQUIRE(::write(in_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

std::string peer_process::line(std::chrono::milliseconds patience) {
  auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    if (auto end = unread_.find('\n'); end != std::string::npos) {
      auto found = unread_.substr(0, end);
      unread_.erase(0, end + 1);
      return found;
    }
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      until - std::chrono::steady_clock::now());
    pollfd ready{out_, POLLIN, 0};
    REQUIRE_MESSAGE(
      (left.count() > 0 && ::poll(&ready, 1, static_cast<int>(left.count())) > 0),
      "the peer says nothing");
    char bytes[1024];
    auto got = ::read(out_, bytes, sizeof bytes);
    if (got <= 0)
      return {};
    unread_.append(bytes, static_cast<std::size_t>(got));
  }
}

void peer_process::stand_still() {
  ::kill(process_, SIGSTOP);
  int status = 0;
  REQUIRE(::waitpid(process_, &status, WUNTRACED) == process_);
  REQUIRE(WIFSTOPPED(status));
}

void peer_process::go_on() {
  ::kill(process_, SIGCONT);
}

void peer_process::kill() {
  if (process_ <= 0)
    return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
  process_ = -1;
}

} // namespace llumnix::testing
