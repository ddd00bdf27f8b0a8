#include "transport/ucx/ucx_thread.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

namespace llumnix::ucx {

namespace {

// Wake-ups have been lost on some of UCX's transports: nobody sleeps longer than this.
constexpr std::chrono::milliseconds sleep_max_busy{50};
constexpr std::chrono::milliseconds sleep_max_idle{500};
constexpr int progress_max = 64; ///< in one turn
// A device copies a chunk in some tens of microseconds.
constexpr std::chrono::microseconds copy_spin{100};
constexpr std::chrono::microseconds copy_nap{50};

} // namespace

ucx_thread::~ucx_thread() {
  stop();
  if (task_events_ >= 0)
    ::close(task_events_);
}

result<void> ucx_thread::start(ucp_worker_h worker, int sockets, duties what, nanoseconds spin) {
  worker_ = worker;
  socket_events_ = sockets;
  duties_ = std::move(what);
  spin_ = spin;
  if (auto status = ucp_worker_get_efd(worker, &worker_events_); status != UCS_OK)
    return failure(status, "get UCX's event descriptor");
  task_events_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (task_events_ < 0)
    return error{errc::internal, std::string{"eventfd: "} + std::strerror(errno)};
  thread_ = std::thread{[this] { run(); }};
  return {};
}

void ucx_thread::post(std::function<void()> task) {
  std::unique_lock lock{mutex_};
  tasks_.push_back(std::move(task));
  auto first = tasks_.size() == 1;
  lock.unlock();
  if (first) {
    std::uint64_t one = 1;
    [[maybe_unused]] auto written = ::write(task_events_, &one, sizeof one);
  }
}

void ucx_thread::stop() {
  if (!thread_.joinable())
    return;
  post([this] { stopping_ = true; });
  thread_.join();
}

bool ucx_thread::run_tasks() {
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock{mutex_};
    tasks.swap(tasks_);
  }
  for (auto& task : tasks)
    task();
  return !tasks.empty();
}

void ucx_thread::run() {
  auto moved_at = std::chrono::steady_clock::now();
  for (;;) {
    bool moved = false;
    for (int i = 0; i < progress_max && ucp_worker_progress(worker_) != 0; ++i)
      moved = true;
    moved |= run_tasks();
    auto now = std::chrono::steady_clock::now();
    moved |= duties_.work(now);
    if (stopping_ && duties_.finished())
      return;
    if (moved) {
      moved_at = now;
      continue;
    }
    auto copying = duties_.copying();
    auto spin = copying ? std::max<nanoseconds>(spin_, copy_spin) : spin_;
    if (duties_.busy() && now - moved_at < spin)
      continue;
    if (auto status = ucp_worker_arm(worker_); status == UCS_OK)
      sleep(
        duties_.wake_at(), copying                       ? copy_nap
                           : duties_.busy() || stopping_ ? sleep_max_busy
                                                         : nanoseconds{sleep_max_idle});
  }
}

void ucx_thread::sleep(time_point until, nanoseconds most) {
  auto now = std::chrono::steady_clock::now();
  auto left = std::clamp(until > now ? until - now : nanoseconds{0}, nanoseconds{0}, most);
  auto seconds = std::chrono::floor<std::chrono::seconds>(left);
  timespec timeout{seconds.count(), (left - seconds).count()};
  std::array<pollfd, 3> events{
    {{worker_events_, POLLIN, 0}, {task_events_, POLLIN, 0}, {socket_events_, POLLIN, 0}}};
  ::ppoll(events.data(), events.size(), &timeout, nullptr);
  if (events[1].revents != 0) {
    std::uint64_t count = 0;
    [[maybe_unused]] auto got = ::read(task_events_, &count, sizeof count);
  }
}

} // namespace llumnix::ucx
