#include "net/read_pace.hpp"

#include <algorithm>
#include <charconv>
#include <ctime>
#include <fcntl.h>
#include <string_view>
#include <unistd.h>

namespace llumnix::net {

namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr double behind = 0.55;   // of a processor wanted: above it the pause grows
constexpr double at_ease = 0.4;   // below it the pause shrinks
constexpr milliseconds first{10}; // pauses below are not worth a timer

nanoseconds time_run() {
  timespec ran{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ran);
  return std::chrono::seconds{ran.tv_sec} + nanoseconds{ran.tv_nsec};
}

/// The number that `text` begins with, taken off its front.
std::int64_t take_number(std::string_view& text) {
  std::int64_t value = 0;
  while (text.starts_with(' '))
    text.remove_prefix(1);
  auto end = std::from_chars(text.data(), text.data() + text.size(), value).ptr;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

} // namespace

thread_demand::~thread_demand() {
  if (file_ >= 0)
    ::close(file_);
}

nanoseconds thread_demand::operator()() {
  if (file_ == -2)
    file_ = ::open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  char buffer[96];
  auto size = file_ < 0 ? -1 : ::pread(file_, buffer, sizeof buffer, 0);
  if (size <= 0)
    return time_run();
  std::string_view text{buffer, static_cast<std::size_t>(size)};
  auto ran = take_number(text);
  return nanoseconds{ran + take_number(text)};
}

void read_pace::update(nanoseconds now, nanoseconds demand) {
  auto passed = now - last_;
  auto wanted = demand - last_demand_;
  bool begun = last_.count() >= 0;
  last_ = now;
  last_demand_ = demand;
  if (!begun || passed.count() <= 0)
    return;
  auto share = static_cast<double>(wanted.count()) / static_cast<double>(passed.count());
  if (share > behind)
    pause_ = std::clamp(pause_ * 3 / 2, std::min(first, longest_), longest_);
  else if (share < at_ease)
    pause_ = pause_ > first ? pause_ * 2 / 3 : milliseconds{0};
}

} // namespace llumnix::net
