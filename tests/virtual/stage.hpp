#pragma once

#include "actors/protocol/type_ids.hpp"

#include <caf/all.hpp>
#include <caf/test/dsl.hpp>

#include <chrono>
#include <memory>
#include <vector>

namespace llumnix::testing {

using namespace std::chrono_literals;

/// One process on virtual time, with actors that write down what they are told.
struct stage {
  stage() {
    register_types(config);
    config.set("scheduler.policy", caf::atom("testing"));
    system = std::make_unique<caf::actor_system>(config);
  }

  void run() { scheduler().run(); }
  void pass(std::chrono::milliseconds time) {
    scheduler().advance_time(time);
    run();
  }
  caf::scheduler::test_coordinator& scheduler() {
    return dynamic_cast<caf::scheduler::test_coordinator&>(system->scheduler());
  }

  /// An actor that keeps each message of a type, and takes no notice of others.
  template <class Message>
  caf::actor listener(std::vector<Message>& heard) {
    return system->spawn([&heard](caf::event_based_actor* self) -> caf::behavior {
      self->set_default_handler( // `caf::drop` would tell the sender, who may end of it
        [](caf::scheduled_actor*, caf::message_view&) -> caf::result<caf::message> {
          return caf::message{};
        });
      return {[&heard](const Message& msg) { heard.push_back(msg); }};
    });
  }

  caf::actor_system_config config;
  std::unique_ptr<caf::actor_system> system;
};

} // namespace llumnix::testing
