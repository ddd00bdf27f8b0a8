#include "actors/gateway_actor.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "runtime/base/log.hpp"
#include "tests/virtual/scripted_index.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

/// GATEWAY alone, that asks an index, and one instance.
struct asking_gateway : stage {
  explicit asking_gateway(const std::string& policy) {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    config.life = {"head", 1};
    config.scheduling.policy = policy;
    config.scheduling.cache_aware_min_tokens = 3;
    config.counters = std::make_shared<node_counters>();
    config.index = policy == "cache-aware" ? &index : nullptr;
    gateway = system->spawn(make_gateway, config);
    instance_metadata metadata;
    metadata.instance_id = "a";
    metadata.instance_type = "neutral";
    peer_up_msg up;
    up.card.self.life = config.life;
    up.card.instances.push_back(
      {metadata, "scripted", caf::actor_cast<llumlet_actor>(listener(submitted))});
    caf::anon_send(gateway, up);
    view_change_msg view;
    view.put.push_back({metadata, config.life, "scripted", instance_state::ready});
    caf::anon_send(gateway, view);
  }
  ~asking_gateway() {
    caf::anon_send_exit(gateway, caf::exit_reason::user_shutdown);
    gateway = nullptr;
    run();
  }

  void admit(std::uint64_t number, std::size_t prompt) {
    admission word;
    word.request.stream = {"head", 1, 0, number};
    word.request.text_id = "r" + std::to_string(number);
    word.request.prompt.assign(prompt, 7);
    caf::anon_send(gateway, stream_words_msg{{std::move(word)}});
    run();
  }

  scripted_index index;
  gateway_actor_config config;
  gateway_actor gateway;
  std::vector<submit_msg> submitted;
};

} // namespace

TEST_CASE("what look-ups take and find is counted by the gateway that asks for them") {
  asking_gateway there{"cache-aware"};
  const auto& seen = *there.config.prefixes;
  there.admit(1, 100);
  there.pass(3ms);
  there.index.tell(prefix_holders{holder_naming::instance, {{"a", 64}, {"nobody", 96}}});
  there.run();
  CHECK(there.submitted.size() == 1);
  there.admit(2, 100);
  there.index.tell(error{errc::unreachable, "the store is down"});
  there.run();
  there.admit(3, 2); // too short to be looked up
  CHECK(there.submitted.size() == 3);
  CHECK(seen.query_ms.sum() == 3);
  CHECK(seen.query_ms.count(0) == 1); // the failure, at once
  CHECK(seen.match_ms.count(0) == 1);
  CHECK(seen.hit_percent.sum() == 64);
  CHECK(seen.hit_percent.count(0) == 2);
  CHECK(seen.best_percent.sum() == 64); // of instances that are known
  CHECK(seen.best_percent.count(0) == 0);
}

TEST_CASE("a policy that does not look at prefixes has nothing to tell of them") {
  asking_gateway there{"load-balance"};
  there.admit(1, 100);
  CHECK(there.submitted.size() == 1);
  CHECK(there.config.prefixes->hit_percent.count(0) == 0);
  CHECK(there.config.prefixes->match_ms.count(0) == 0);
}

} // namespace llumnix::testing
