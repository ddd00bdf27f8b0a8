#pragma once

#include "runtime/scheduling/scheduling_desk.hpp"

#include <caf/all.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

/// What gateways of other makes ask of SCHEDULER, by way of `scheduler_desk`. Stays in its process.
namespace llumnix {

/// The answer to a question that may be lost with the actor that has it: whoever asked hears of
/// that, too.
class answer_once {
public:
  explicit answer_once(schedule_answer told) : told_{std::move(told)} {}
  answer_once(const answer_once&) = delete;
  answer_once& operator=(const answer_once&) = delete;
  ~answer_once() {
    if (told_)
      give(error{errc::draining, "scheduler not ready"});
  }
  void give(result<std::vector<chosen_instance>> answer) {
    std::exchange(told_, nullptr)(std::move(answer));
  }

private:
  schedule_answer told_;
};

/// Which instances for this request of a foreign gateway?
struct schedule_msg {
  placement_query query;
  std::optional<prefix_holders> holders; ///< of the prompt's beginning; nothing: nobody was asked
  std::string gateway;
  std::shared_ptr<answer_once> answer;
};

/// What was told and waits to be heard. From any thread.
class news_in_waiting {
public:
  explicit news_in_waiting(std::size_t most) : most_{most} {}
  /// The share of news that is waiting, until it is let go of; null where there is no room. What
  /// is larger than all the room there is gets it if nothing else waits.
  static std::shared_ptr<const void>
  enter(const std::shared_ptr<news_in_waiting>& room, std::size_t count) {
    auto before = room->waiting_.fetch_add(count);
    if (before > 0 && before + count > room->most_) {
      room->waiting_.fetch_sub(count);
      return nullptr;
    }
    return {room.get(), [room, count](const void*) { room->waiting_.fetch_sub(count); }};
  }

private:
  std::size_t most_;
  std::atomic<std::size_t> waiting_{0};
};

/// A request of a foreign gateway has ended.
struct end_request_msg {
  std::string request;
  std::string gateway;
  std::vector<request_place> at;
  std::shared_ptr<const void> share; ///< of `news_in_waiting`
};

/// How requests of foreign gateways came along.
struct progress_msg {
  std::vector<request_progress> news;
  std::shared_ptr<const void> share; ///< of `news_in_waiting`
};

/// Foreign gateways that keep a connection, and those that have lost theirs.
struct gateways_msg {
  std::vector<std::string> up, down;
};

} // namespace llumnix

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::schedule_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::end_request_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::progress_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::gateways_msg)
