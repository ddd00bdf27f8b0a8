#pragma once

#include "runtime/base/time.hpp"
#include "transport/ucx/ucx_handles.hpp"

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace llumnix::ucx {

/// The one thread that calls UCX. It turns: UCX's progress, tasks from other threads, the owner's
/// work; and sleeps only after a turn in which nothing moved.
class ucx_thread {
public:
  /// The owner's part. All of it runs on the thread.
  struct duties {
    /// Looks at what progress has brought; true when anything was done.
    std::function<bool(time_point now)> work;
    /// When to be called again at the latest.
    std::function<time_point()> wake_at;
    /// Whether something is under way, worth a little spinning.
    std::function<bool()> busy;
    /// Whether a device copies: nothing wakes us when it is done, so it is looked at again and
    /// again, at once at first and then from nap to nap.
    std::function<bool()> copying;
    /// Once, at the end: `true` when the thread may go.
    std::function<bool()> finished;
  };

  ucx_thread() = default;
  ~ucx_thread();
  ucx_thread(const ucx_thread&) = delete;
  ucx_thread& operator=(const ucx_thread&) = delete;

  /// Wakes for what `sockets` tells too, a descriptor that is read in `work`.
  result<void> start(ucp_worker_h worker, int sockets, duties what, nanoseconds spin);
  /// Runs `task` on the thread soon; dropped after `stop`.
  void post(std::function<void()> task);
  /// Turns on until the duties are finished, then joins. The tasks posted before have run.
  void stop();

private:
  void run();
  bool run_tasks();
  void sleep(time_point until, nanoseconds most);

  ucp_worker_h worker_ = nullptr;
  duties duties_;
  nanoseconds spin_{0};
  int worker_events_ = -1;
  int socket_events_ = -1;
  int task_events_ = -1;
  std::mutex mutex_;
  std::vector<std::function<void()>> tasks_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

} // namespace llumnix::ucx
