#include "actors/role_specs.hpp"
#include "runtime/base/log.hpp"
#include "tests/virtual/stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {

namespace {

const node_life head{"head", 1};
const std::string address = "127.0.0.1:8001";

llumlet_actor_config without_engine() {
  return {{}, head, describe_http_engine(engine_at(address), "scripted", 1.5), {}, {}};
}

engine_news_msg news(bool healthy, std::int32_t update, std::int32_t running = 0) {
  engine_news_msg msg;
  msg.status.schedulable = healthy;
  msg.status.update_id = update;
  msg.status.num_running_requests = running;
  return msg;
}

peer_up_msg cms_of(const std::string& node, const caf::actor& cms) {
  peer_up_msg up;
  up.card.self.life = {node, 1};
  up.card.cms.push_back(caf::actor_cast<cms_actor>(cms));
  return up;
}

/// Asks an actor on the stage, and waits for the answer.
template <class Answer, class Question>
Answer ask(stage& x, const caf::actor& whom, Question question) {
  auto answer = std::make_shared<std::optional<Answer>>();
  x.system->spawn([=](caf::event_based_actor* self) {
    self->request(whom, caf::infinite, question).then([=](const Answer& found) {
      *answer = found;
    });
  });
  x.run();
  REQUIRE(answer->has_value());
  return **answer;
}

} // namespace

TEST_CASE("an engine behind HTTP is described by its address") {
  using row = std::tuple<const char*, const char*, int>; // address, host, port
  for (auto [place, host, port] :
       {row{"127.0.0.1:8001", "127.0.0.1", 8001}, row{"gpu-1:80", "gpu-1", 80},
        row{"[::1]:9", "::1", 9}}) {
    CAPTURE(place);
    auto x = describe_http_engine(engine_at(place), "vllm 0.9.1", 12.5);
    CHECK(x.instance_id == place);
    CHECK(x.unit_id == place);
    CHECK(x.ip == host);
    CHECK(x.node_id == host);
    CHECK(x.api_server_port == port);
    CHECK(x.backend_type == "vllm 0.9.1");
    CHECK(x.instance_type == "neutral");
    CHECK(x.data_parallel_size == 1);
    CHECK(x.utc_create == 12.5);
    CHECK(x.kvt_port == 0);
  }
}

TEST_CASE("a llumlet without an engine tells what it is told, and nothing by itself") {
  stage x;
  auto llumlet = x.system->spawn(make_llumlet, without_engine());
  std::vector<status_msg> heard;
  caf::anon_send(llumlet, cms_of("head", x.listener(heard)));
  x.run();
  CHECK(heard.empty());

  x.pass(1000ms);
  caf::anon_send(llumlet, news(true, 1, 4));
  x.run();
  REQUIRE(heard.size() == 1);
  CHECK(heard[0].from == head);
  CHECK(heard[0].status.instance_id == address);
  CHECK(heard[0].status.schedulable);
  CHECK(heard[0].status.num_running_requests == 4);
  auto first = heard[0].status.timestamp_ms;

  CHECK(heard[0].engine.empty()); // nobody knows what it is

  auto known = news(false, 2);
  known.engine = "vLLM 0.32.0 (token ids)";
  caf::anon_send(llumlet, known);
  x.run();
  REQUIRE(heard.size() == 2);
  CHECK(heard[1].engine == known.engine);
  CHECK_FALSE(heard[1].status.schedulable);
  CHECK(heard[1].status.timestamp_ms == first + 1); // in the same millisecond

  for (int second = 0; second < 5; ++second)
    x.pass(1000ms);
  CHECK(heard.size() == 2); // nobody checked the engine: it grows stale

  std::vector<status_msg> late; // another CMS hears the last word, as old as it is
  caf::anon_send(llumlet, cms_of("other", x.listener(late)));
  x.run();
  REQUIRE(late.size() == 1);
  CHECK(late[0].engine == known.engine);
  CHECK(late[0].status.timestamp_ms == first + 1);
  CHECK_FALSE(late[0].status.schedulable);

  caf::anon_send(llumlet, peer_down_msg{{"other", 1}});
  caf::anon_send(llumlet, news(true, 3));
  x.run();
  CHECK(heard.size() == 3);
  CHECK(late.size() == 1);
  CHECK(heard[2].status.timestamp_ms == first + 5000);
  caf::anon_send_exit(llumlet, caf::exit_reason::user_shutdown);
  x.run();
}

TEST_CASE("a llumlet without an engine drops what is meant for one, and lives") {
  log::configure({.threshold = log::level::off, .json = false, .node = {}});
  stage x;
  auto llumlet = x.system->spawn(make_llumlet, without_engine());
  std::vector<refused_msg> refused;
  peer_up_msg hub;
  hub.card.self.life = head;
  hub.card.hubs.push_back(caf::actor_cast<stream_hub_actor>(x.listener(refused)));
  caf::anon_send(llumlet, hub);
  stream_ref stream{"head", 1, 0, 7};
  stream_owner owner{head, address};
  submit_msg submit;
  submit.request.stream = stream;
  caf::anon_send(llumlet, submit);
  caf::anon_send(llumlet, grant_msg{owner, stream, 0, 9});
  caf::anon_send(llumlet, abort_msg{owner, stream, 0});
  x.run();
  CHECK(refused.empty());
  auto actor = caf::actor_cast<caf::actor>(llumlet);
  for (const auto& asked : {owner, stream_owner{head, "another"}}) {
    auto answer = ask<holds_answer_msg>(x, actor, holds_msg{asked, stream, 3});
    CHECK_FALSE(answer.holds);
    CHECK(answer.epoch == 3);
    CHECK(answer.stream == stream);
    CHECK(answer.from == asked);
  }
  auto lines = ask<actor_stats_msg>(x, actor, stat_msg{}).actors;
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].name == "llumlet " + address);
  caf::anon_send_exit(llumlet, caf::exit_reason::user_shutdown);
  x.run();
}

TEST_CASE("a gateway without loops tells a hub where a relayed request may be sent") {
  stage x;
  gateway_actor_config config;
  config.life = head;
  config.scheduling.full_mode = false;
  config.counters = std::make_shared<node_counters>();
  auto gateway = x.system->spawn(make_gateway, config);
  std::vector<placed_msg> placed;
  std::vector<submit_msg> submitted;
  auto metadata = describe_http_engine(engine_at(address), "scripted", 1.5);
  peer_up_msg up;
  up.card.self.life = head;
  up.card.hubs.push_back(caf::actor_cast<stream_hub_actor>(x.listener(placed)));
  up.card.instances.push_back(
    {metadata, "scripted", caf::actor_cast<llumlet_actor>(x.listener(submitted))});
  caf::anon_send(gateway, up);
  view_change_msg view;
  view.put.push_back({metadata, head, "scripted", instance_state::ready});
  caf::anon_send(gateway, view);
  admission admit;
  admit.request.stream = {"head", 1, 0, relay_bit | 5};
  admit.request.text_id = "r1";
  admit.relayed = {10, 0};
  caf::anon_send(gateway, stream_words_msg{{admit}});
  x.run();
  REQUIRE(placed.size() == 1);
  CHECK(placed[0].stream == admit.request.stream);
  CHECK(placed[0].owner == stream_owner{head, address});
  CHECK(submitted.empty());

  admit.request.stream.stream = 6; // the same with a body is for the llumlet
  admit.relayed.reset();
  caf::anon_send(gateway, stream_words_msg{{admit}});
  x.run();
  CHECK(placed.size() == 2);
  CHECK(submitted.size() == 1);
  caf::anon_send_exit(gateway, caf::exit_reason::user_shutdown);
  x.run();
}

} // namespace llumnix::testing
