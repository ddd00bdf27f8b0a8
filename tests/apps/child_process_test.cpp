#include "apps/child_process.hpp"
#include "apps/memory_file.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace llumnix {

namespace {

child_process shell(const std::string& script, bool announces = false) {
  auto child = child_process::start(
    {.program = "/bin/sh",
     .arguments = {"sh", "-c", script, "sh"},
     .quiet = true,
     .announces = announces});
  REQUIRE(child.has_value());
  return std::move(*child);
}

/// Waits for the end of a child with the kernel's help, then takes its status.
std::string end_of(child_process& child) {
  siginfo_t info;
  REQUIRE(::waitid(P_PID, static_cast<id_t>(child.pid()), &info, WEXITED | WNOWAIT) == 0);
  auto status = child.reap();
  REQUIRE(status.has_value());
  CHECK_FALSE(child.running());
  CHECK_FALSE(child.reap().has_value());
  return describe_exit(*status);
}

} // namespace

TEST_CASE("the end of a child is described by its exit code or its signal") {
  auto quits = shell("exit 3");
  CHECK(end_of(quits) == "exit 3");
  auto dies = shell("kill -9 $$");
  CHECK(end_of(dies) == "signal 9");
  auto runs = shell("exec sleep 600");
  CHECK_FALSE(runs.reap().has_value());
  runs.signal(SIGTERM);
  CHECK(end_of(runs) == "signal 15");
}

TEST_CASE("a program that does not exist ends with 127") {
  auto child
    = child_process::start({.program = "/no/such/program", .arguments = {"x"}, .quiet = true});
  REQUIRE(child.has_value());
  CHECK(end_of(*child) == "exit 127");
}

TEST_CASE("a child announces itself once, by a whole line") {
  // The arguments `--ready-fd N` follow the script's own.
  auto child
    = shell("test \"$1\" = --ready-fd && printf 'on port 7\\nmore' >&\"$2\"; exec sleep 600", true);
  std::optional<std::string> line;
  while (!line && child.announcement_fd() >= 0) {
    pollfd readable{child.announcement_fd(), POLLIN, 0};
    REQUIRE(::poll(&readable, 1, 20'000) == 1);
    line = child.read_announcement();
  }
  CHECK(line == "on port 7");
  CHECK(child.announcement_fd() == -1);
  CHECK_FALSE(child.read_announcement().has_value());
}

TEST_CASE("a child that ends without a word closes its announcement") {
  auto child = shell("exit 1", true);
  pollfd readable{child.announcement_fd(), POLLIN, 0};
  REQUIRE(::poll(&readable, 1, 20'000) == 1);
  CHECK_FALSE(child.read_announcement().has_value());
  CHECK(child.announcement_fd() == -1);
  CHECK(end_of(child) == "exit 1");
}

TEST_CASE("a child has its own process group and is gone with its owner") {
  pid_t pid = -1;
  {
    auto child = shell("echo >&\"$2\"; exec sleep 600", true);
    pollfd readable{child.announcement_fd(), POLLIN, 0};
    REQUIRE(::poll(&readable, 1, 20'000) == 1);
    pid = child.pid();
    CHECK(::getpgid(pid) == pid);
  }
  CHECK(::kill(pid, 0) != 0);
}

TEST_CASE(
  "a child reads a memory file that it inherits, as often as it likes, and cannot change it") {
  auto file = memory_file::make("secret\n");
  REQUIRE(file.has_value());
  CHECK(::write(file->fd(), "x", 1) == -1);
  auto run = [&](const std::string& script, int inherited) {
    auto child = child_process::start(
      {.program = "/bin/sh",
       .arguments = {"sh", "-c", script, "sh", file->path()},
       .quiet = true,
       .inherited_fd = inherited});
    REQUIRE(child.has_value());
    return end_of(*child);
  };
  CHECK(
    run("for i in 1 2; do read line < $1 && test $line = secret || exit 1; done", file->fd())
    == "exit 0");
  CHECK(run("echo more >> $1", file->fd()) != "exit 0");
  CHECK(run("read line < $1", -1) != "exit 0"); // nobody else gets it
}

TEST_CASE("a memory file holds a large text") {
  std::string text(3u << 20, 'x');
  auto file = memory_file::make(text);
  REQUIRE(file.has_value());
  auto other = std::move(*file);
  CHECK(file->fd() == -1);
  CHECK(::lseek(other.fd(), 0, SEEK_END) == static_cast<off_t>(text.size()));
}

TEST_CASE("programs are found on PATH") {
  CHECK(find_program("sh").ends_with("/sh"));
  CHECK(find_program("no-such-program-anywhere") == "");
}

} // namespace llumnix
