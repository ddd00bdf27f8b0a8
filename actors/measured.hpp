#pragma once

#include "actors/protocol/console_messages.hpp"

#include <caf/all.hpp>

namespace llumnix {

/// A typed actor base that counts its messages and the time spent on them.
template <class Base>
class measured : public Base {
public:
  explicit measured(caf::actor_config& config) : Base(config), started_{this->clock().now()} {}

  caf::invoke_message_result consume(caf::mailbox_element& element) override {
    auto begin = this->clock().now();
    auto outcome = Base::consume(element);
    ++messages_;
    busy_ += this->clock().now() - begin;
    return outcome;
  }

  /// This actor's line in the directory.
  actor_stat stat(std::string name, std::string role) {
    using namespace std::chrono;
    auto up = this->clock().now() - started_;
    return {
      .id = this->id(),
      .name = std::move(name),
      .role = std::move(role),
      .mailbox = this->mailbox().size(),
      .messages = messages_,
      .busy_us = duration_cast<microseconds>(busy_).count(),
      .restarts = 0,
      .up_ms = duration_cast<milliseconds>(up).count(),
      .state = {}};
  }

private:
  caf::actor_clock::time_point started_;
  caf::actor_clock::duration_type busy_{0};
  std::uint64_t messages_ = 0;
};

/// What a role's state is given as `self`.
template <class Actor, class State>
using role_pointer = caf::stateful_actor<State, measured<typename Actor::base>>*;

/// A state whose first member would be initialised from the actor pointer is an aggregate (guides:
/// C++20 trap).
template <class State>
concept actor_state = !std::is_aggregate_v<State> && std::is_default_constructible_v<State>;

} // namespace llumnix
