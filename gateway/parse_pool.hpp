#pragma once

#include "gateway/body_reader.hpp"

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace llumnix {

/// A few threads that read large bodies, so that the I/O loops meanwhile go on with everything
/// else. Jobs begin in the order in which they came. From any thread but its own.
class parse_pool {
public:
  struct options {
    std::size_t threads = 2;
    std::size_t waiting_max = 64; ///< jobs that have not begun
  };
  /// Runs on one of the threads, with that thread's reader; throws nothing.
  using job = std::function<void(body_reader&)>;

  /// `config` and `words` outlive the pool.
  parse_pool(const gateway_config& config, const tokenizer& words, options bounds);
  /// Drops what has not begun and waits for what runs.
  ~parse_pool();
  parse_pool(const parse_pool&) = delete;
  parse_pool& operator=(const parse_pool&) = delete;

  /// The job's number, never 0; or 0 when too many wait, and the job is dropped.
  std::uint64_t submit(job work);
  /// Drops the job if it has not begun; else false.
  bool withdraw(std::uint64_t number);
  /// The same, but a job that runs is waited for.
  void withdraw_and_wait(std::uint64_t number);

private:
  struct task {
    std::uint64_t number = 0;
    job work;
  };
  void run(body_reader& reader);
  job take_out(std::uint64_t number);

  const options bounds_;
  std::mutex mutex_; ///< guards all but the readers
  std::condition_variable came_;
  std::condition_variable done_;
  std::deque<task> waiting_;
  std::vector<std::uint64_t> running_;
  std::uint64_t last_ = 0;
  bool ending_ = false;
  std::deque<body_reader> readers_; ///< one for each thread
  std::vector<std::thread> threads_;
};

} // namespace llumnix
