#include "gateway/parse_pool.hpp"

#include <algorithm>

namespace llumnix {

parse_pool::parse_pool(const gateway_config& config, const tokenizer& words, options bounds)
  : bounds_{bounds} {
  for (std::size_t i = 0; i < bounds_.threads; ++i) {
    auto& reader = readers_.emplace_back(config, words);
    threads_.emplace_back([this, &reader] { run(reader); });
  }
}

parse_pool::~parse_pool() {
  {
    std::deque<task> dropped; // outside of the lock
    std::lock_guard lock{mutex_};
    ending_ = true;
    dropped.swap(waiting_);
  }
  came_.notify_all();
  for (auto& thread : threads_)
    thread.join();
}

std::uint64_t parse_pool::submit(job work) {
  std::uint64_t number = 0;
  {
    std::lock_guard lock{mutex_};
    if (waiting_.size() >= bounds_.waiting_max)
      return 0;
    number = ++last_;
    waiting_.push_back({number, std::move(work)});
  }
  came_.notify_one();
  return number;
}

bool parse_pool::withdraw(std::uint64_t number) {
  job dropped; // outside of the lock
  std::lock_guard lock{mutex_};
  dropped = take_out(number);
  return dropped != nullptr;
}

void parse_pool::withdraw_and_wait(std::uint64_t number) {
  job dropped;
  std::unique_lock lock{mutex_};
  dropped = take_out(number);
  done_.wait(
    lock, [&] { return std::find(running_.begin(), running_.end(), number) == running_.end(); });
}

parse_pool::job parse_pool::take_out(std::uint64_t number) {
  auto found = std::find_if(
    waiting_.begin(), waiting_.end(), [&](const task& each) { return each.number == number; });
  if (found == waiting_.end())
    return nullptr;
  auto work = std::move(found->work);
  waiting_.erase(found);
  return work;
}

void parse_pool::run(body_reader& reader) {
  std::unique_lock lock{mutex_};
  for (;;) {
    came_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
    if (ending_)
      return;
    auto next = std::move(waiting_.front());
    waiting_.pop_front();
    running_.push_back(next.number);
    lock.unlock();
    next.work(reader);
    next.work = nullptr; // what it held goes before anybody is told that it is done
    lock.lock();
    std::erase(running_, next.number);
    done_.notify_all();
  }
}

} // namespace llumnix
