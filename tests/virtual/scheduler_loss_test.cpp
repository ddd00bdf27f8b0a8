#include "actors/gateway_actor.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "runtime/base/log.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

const node_life head{"head", 1};

/// GATEWAY with one instance, and a SCHEDULER on another node that takes its time.
struct waiting_gateway : stage {
  explicit waiting_gateway(std::chrono::milliseconds wait = 5s) {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    config.life = head;
    config.knobs.wait_for_instance = wait;
    config.scheduling.policy = "load-balance";
    config.counters = std::make_shared<node_counters>();
    gateway = system->spawn(make_gateway, config);
    instance_metadata metadata;
    metadata.instance_id = "a";
    metadata.instance_type = "neutral";
    peer_up_msg up;
    up.card.self.life = head;
    up.card.instances.push_back(
      {metadata, "scripted", caf::actor_cast<llumlet_actor>(listener(submitted))});
    caf::anon_send(gateway, up);
    view_change_msg view;
    view.put.push_back({metadata, head, "scripted", instance_state::ready});
    caf::anon_send(gateway, view);
    join("brain", 3);
  }
  ~waiting_gateway() {
    caf::anon_send_exit(gateway, caf::exit_reason::user_shutdown);
    gateway = nullptr;
    slow = nullptr;
    asked.clear();
    run();
  }

  /// A node with a SCHEDULER comes.
  void join(const std::string& node, std::uint64_t incarnation) {
    peer_up_msg up;
    up.card.self.life = {node, incarnation};
    slow = system->spawn([this](caf::event_based_actor* self) -> caf::behavior {
      return {
        [this, self](const place_msg& question) {
          auto promise = self->make_response_promise<placements_msg>();
          asked.push_back({question, promise});
          return promise;
        },
        [](const running_msg&) {},
        [this](std::uint64_t which) { deliver(asked.at(which)); }};
    });
    up.card.scheduler.push_back(caf::actor_cast<scheduler_actor>(slow));
    caf::anon_send(gateway, up);
    run();
  }
  void lose(const std::string& node, std::uint64_t incarnation) {
    caf::anon_send(gateway, peer_down_msg{{node, incarnation}});
    run();
  }
  void admit(std::uint64_t number) {
    admission word;
    word.request.stream = {"head", 1, 0, number};
    word.request.text_id = "r" + std::to_string(number);
    word.request.prompt.assign(3, 7);
    caf::anon_send(gateway, stream_words_msg{{std::move(word)}});
    run();
  }
  /// The SCHEDULER answers what it was asked as the n-th question.
  void answer(std::uint64_t n) {
    caf::anon_send(slow, n);
    run();
  }

  struct open_question {
    place_msg question;
    caf::typed_response_promise<placements_msg> promise;
  };
  static void deliver(open_question& open) {
    placements_msg placed;
    for (const auto& question : open.question.questions)
      placed.placed.push_back({question.stream, question.epoch, {head, "a"}, {}});
    open.promise.deliver(std::move(placed));
  }

  caf::actor slow;
  gateway_actor_config config;
  gateway_actor gateway;
  std::vector<submit_msg> submitted;
  std::vector<open_question> asked;
};

} // namespace

TEST_CASE("what a scheduler was asked whose node is gone is placed by the view at once") {
  waiting_gateway x;
  x.admit(1);
  x.admit(2);
  REQUIRE(x.asked.size() == 2);
  CHECK(x.submitted.empty());
  x.lose("brain", 2); // an earlier life
  CHECK(x.submitted.empty());
  x.lose("brain", 3);
  REQUIRE(x.submitted.size() == 2);
  CHECK(x.submitted[0].request.text_id == "r1");
  CHECK(x.config.counters->placements_by_view == 2);
  x.answer(0); // it was only cut off
  x.pass(2000ms);
  CHECK(x.submitted.size() == 2);
}

TEST_CASE("a question that was put to the next scheduler is not lost with the first one's silence") {
  waiting_gateway x;
  x.admit(1);
  x.answer(0);
  REQUIRE(x.submitted.size() == 1);
  x.admit(2);
  x.lose("other", 1); // no business of ours
  CHECK(x.submitted.size() == 1);
  x.answer(1);
  CHECK(x.submitted.size() == 2);
  CHECK(x.config.counters->placements_by_view == 0);
  x.admit(3); // silent for too long
  x.pass(999ms);
  CHECK(x.submitted.size() == 2);
  x.pass(1ms);
  CHECK(x.submitted.size() == 3);
  CHECK(x.config.counters->placements_by_view == 1);
}

TEST_CASE("a request is not given up while a scheduler is asked about it") {
  waiting_gateway x{0ms};
  x.admit(1);
  x.pass(500ms);
  CHECK(x.config.counters->unplaceable == 0);
  x.answer(0);
  CHECK(x.submitted.size() == 1);
  x.admit(2);
  x.pass(1000ms); // it does not answer in its own time
  CHECK(x.submitted.size() == 2);
  CHECK(x.config.counters->placements_by_view == 1);
  CHECK(x.config.counters->unplaceable == 0);
}

TEST_CASE("a scheduler of the own node that hangs is not waited for without end") {
  waiting_gateway x{100ms};
  x.join(head.node, head.incarnation); // it is asked first, and without a time limit
  x.admit(1);
  for (int i = 0; i < 50; ++i)
    x.pass(100ms);
  CHECK(x.config.counters->unplaceable == 0);
  for (int i = 0; i < 3; ++i)
    x.pass(100ms);
  CHECK(x.config.counters->unplaceable == 1);
  CHECK(x.submitted.empty());
}

} // namespace llumnix::testing
