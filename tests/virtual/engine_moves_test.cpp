#include "actors/departure_actor.hpp"
#include "actors/engine_actor.hpp"
#include "runtime/engine/modeled_engine.hpp"
#include "runtime/serving/step_batch.hpp"
#include "scene.hpp"
#include "stage.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

/// ENGINE with a request of a gateway, and somebody who plays its DEPARTURE.
struct leaving_engine : stage {
  leaving_engine() {
    auto value = modeled_engine::make(small_engines().engine);
    REQUIRE(value);
    engine = system->spawn(
      make_engine, engine_actor_config{{"a", 1}, "a"},
      std::shared_ptr<stepped_engine>{std::move(*value)},
      caf::actor_cast<llumlet_actor>(listener(news)));
    node_card head;
    head.self.life = {"head", 1};
    head.hubs = {caf::actor_cast<stream_hub_actor>(listener(batches))};
    caf::anon_send(engine, peer_up_msg{head});
    departure = caf::actor_cast<departure_actor>(listener(pins));
    submit(0);
    order(departure_order_msg::pin{});
    REQUIRE(pins.size() == 1);
    REQUIRE(pins.front().request);
    order(source_side::freeze{});
  }
  ~leaving_engine() {
    caf::anon_send_exit(engine, caf::exit_reason::kill);
    engine = nullptr;
    departure = nullptr;
    run();
  }
  void submit(std::uint32_t epoch) {
    auto request = greedy("r", 1000);
    request.stream = stream;
    request.epoch = epoch;
    caf::anon_send(engine, submit_msg{request});
    pass(50ms);
  }
  void order(departure_order_msg::order what) {
    caf::anon_send(engine, departure_order_msg{departure, {{1, 2}, stream, 0}, std::move(what)});
    pass(50ms);
  }
  bool holds(std::uint32_t epoch) {
    bool answer = false;
    caf::scoped_actor self{*system};
    auto asked = self->request(engine, caf::infinite, holds_msg{{{"a", 1}, "a"}, stream, epoch});
    run();
    asked.receive(
      [&](const holds_answer_msg& msg) { answer = msg.holds; },
      [&](const caf::error& failure) { FAIL(caf::to_string(failure)); });
    return answer;
  }
  /// Tokens told to the hub under an epoch.
  std::size_t told(std::uint32_t epoch) {
    std::size_t count = 0;
    for (const auto& msg : batches)
      REQUIRE(read_step_batch(msg.batch, [&](const token_delta& delta) {
        count += delta.epoch == epoch ? delta.tokens.size() : 0;
      }));
    return count;
  }

  stream_ref stream{"head", 1, 0, 7};
  std::vector<engine_news_msg> news;
  std::vector<tokens_msg> batches;
  std::vector<pinned_msg> pins;
  engine_actor engine;
  departure_actor departure;
};

} // namespace

TEST_CASE("a frozen request tells nothing, and is held until it is dropped") {
  leaving_engine there;
  auto told = there.told(0);
  there.pass(1s);
  CHECK(there.told(0) == told);
  CHECK(there.holds(0));
  there.order(source_side::drop{});
  CHECK_FALSE(there.holds(0));
}

TEST_CASE("a request put back goes on under its new epoch") {
  leaving_engine there;
  there.order(source_side::thaw{3, std::nullopt});
  CHECK(there.holds(3));
  CHECK_FALSE(there.holds(0));
  there.pass(1s);
  CHECK(there.told(3) > 0);
}

TEST_CASE("dropping what has left does no harm to the same stream placed here anew") {
  leaving_engine there;
  there.submit(2); // its gateway replayed it, here of all places
  CHECK(there.holds(2));
  auto told = there.told(2);
  there.order(source_side::drop{}); // DEPARTURE hears late that the stream is not its any more
  there.order(source_side::unpin{});
  CHECK(there.holds(2));
  there.pass(1s);
  CHECK(there.told(2) > told);
  caf::anon_send(there.engine, abort_msg{{{"a", 1}, "a"}, there.stream, 2});
  there.run();
  CHECK_FALSE(there.holds(2));
  there.pass(1s);
  CHECK(there.news.back().status.num_running_requests == 0);
}
