#include "actors/protocol/caf_error.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/console_messages.hpp"
#include "actors/protocol/kv_messages.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "actors/protocol/type_ids.hpp"

#include <caf/all.hpp>
#include <caf/binary_deserializer.hpp>
#include <caf/binary_serializer.hpp>
#include <doctest/doctest.h>

namespace llumnix {

namespace {

struct registered : caf::actor_system_config {
  registered() { register_types(*this); }
};

/// Sends a value as a message through bytes. A type that is not registered comes back as an empty
/// message.
template <class T>
T over_the_wire(caf::actor_system& system, const T& value) {
  caf::scoped_execution_unit context{&system};
  std::vector<char> bytes;
  auto message = caf::make_message(value);
  caf::binary_serializer sink{&context, bytes};
  REQUIRE_FALSE(sink(message));
  caf::message back;
  caf::binary_deserializer source{&context, bytes};
  REQUIRE_FALSE(source(back));
  REQUIRE(back.size() == 1);
  return back.get_as<T>(0);
}

inference_request some_request() {
  inference_request x;
  x.stream = {"head", 3, 1, 42};
  x.epoch = 2;
  x.text_id = "r1";
  x.model = "m";
  x.prompt = {1, 2, 3};
  x.output = {512, 1023};
  x.sampling.temperature = 0.5;
  x.sampling.seed = 9;
  x.sampling.stop_token_ids = {7};
  x.sampling.eos = eos_rule::force;
  x.credit = 77;
  x.wishes = {250.f, {}, "s"};
  return x;
}

} // namespace

TEST_CASE("what leaders say survives the wire") {
  registered config;
  caf::actor_system system{config};
  leader_term term{7, {"head", 3}};
  auto claim = over_the_wire(system, claim_lease_msg{{{"head", 3}, 7, 9, std::chrono::seconds{3}}});
  CHECK(claim.claim.by == term.leader);
  CHECK(claim.claim.holds == 7);
  CHECK(claim.claim.seen == 9);
  CHECK(claim.claim.length == std::chrono::seconds{3});
  auto answer = over_the_wire(system, lease_msg{{term, std::chrono::milliseconds{5}}});
  CHECK(answer.answer.leader == term);
  CHECK(answer.answer.wait == std::chrono::milliseconds{5});
  CHECK(over_the_wire(system, release_lease_msg{term}).term == term);
  CHECK(over_the_wire(system, leader_msg{term}).term == term);
  migrate_msg order{{{"engine-0", 5}, "engine-0"}, {}, {}, "neutral_load", term, true};
  CHECK(over_the_wire(system, order).term == term);
  CHECK(over_the_wire(system, order).by_load);
  CHECK(over_the_wire(system, moves_msg{{}, term}).overtaken_by == term);
  handover::offer offer;
  offer.request = some_request();
  offer.moves = 4;
  CHECK(over_the_wire(system, offer).moves == 4);
  handover::claim_answer refused;
  refused.owner = order.to;
  CHECK(over_the_wire(system, refused).owner == order.to);
}

TEST_CASE("every message survives the wire") {
  registered config;
  caf::actor_system system{config};
  auto request = some_request();
  stream_owner owner{{"engine-0", 5}, "engine-0"};
  CHECK(over_the_wire(system, submit_msg{request}).request == request);
  CHECK(over_the_wire(system, abort_msg{owner, request.stream, 4}).owner == owner);
  CHECK(over_the_wire(system, grant_msg{owner, request.stream, 4, 9}).credit == 9);
  CHECK(over_the_wire(system, holds_msg{owner, request.stream, 4}).epoch == 4);
  CHECK(over_the_wire(system, holds_answer_msg{owner, request.stream, 4, true}).holds);
  CHECK(over_the_wire(system, holds_answer_msg{owner, request.stream, 4, true}).from == owner);
  CHECK(over_the_wire(system, tokens_msg{{"e", 1}, "i", {'a', '\0', 'b'}}).batch.size() == 3);
  CHECK(
    over_the_wire(system, refused_msg{request.stream, 1, "i", {errc::draining, "d"}}).why.code
    == errc::draining);
  CHECK(
    over_the_wire(system, unplaceable_msg{request.stream, 1, {errc::timeout, "t"}}).why.context
    == "t");
  CHECK(over_the_wire(system, release_msg{{"r", "s"}}).request_ids.size() == 2);
  running_msg running{{"g", 3}, {{"i", {"r", infer_type::decode, 7, 5, -1}}}};
  auto told = over_the_wire(system, running);
  CHECK(told.from == running.from);
  REQUIRE(told.requests.size() == 1);
  CHECK(told.requests[0].instance == "i");
  CHECK(told.requests[0].sent == running.requests[0].sent);
  place_msg place{{{request.stream, 1, {"r", 10, {"x"}}}, {request.stream, 2, {}}}, {"s"}};
  CHECK(over_the_wire(system, place).questions[0].query.exclude.size() == 1);
  CHECK(over_the_wire(system, place).questions[1].epoch == 2);
  place.questions[0].query.wishes = {{}, 7.5f, "s"};
  CHECK(over_the_wire(system, place).questions[0].query.wishes == place.questions[0].query.wishes);
  CHECK(over_the_wire(system, place).released == place.released);
  place.questions[0].hits = {true, 9, {{"i", 8}}};
  CHECK(over_the_wire(system, place).questions[0].hits.asked);
  CHECK(over_the_wire(system, place).questions[0].hits.prompt_tokens == 9);
  CHECK(
    over_the_wire(system, place).questions[0].hits.instances == place.questions[0].hits.instances);
  CHECK_FALSE(over_the_wire(system, place).questions[1].hits.asked);
  placed_msg placed{request.stream, 1, owner, {}};
  placed.reasons.ranking = {{"i", {0.5f, 7}}};
  placed.reasons.drops = {{filter_kind::metric, 2, 3, "j", 1, 1.5f, 1}};
  CHECK(over_the_wire(system, placed).reasons.ranking[0].values[1] == 7);
  CHECK(over_the_wire(system, placements_msg{{placed, {}}}).placed[0].owner == owner);
  CHECK(over_the_wire(system, placed).reasons.drops[0].filter == filter_kind::metric);
  CHECK(over_the_wire(system, placed).reasons.drops[0].count == 3);
  placed.reasons.drops[0].reserved = infer_type::decode;
  placed.reasons.ranked_by[2] = 9;
  placed.reasons.ranking[0].values[2] = 2.5f;
  placed.reasons.decided = {choice_cause::metric, "j", 9, 1.5f, 2.5f, 3};
  auto arrived = over_the_wire(system, placed).reasons;
  CHECK(arrived.drops[0].reserved == infer_type::decode);
  CHECK(arrived.ranked_by[2] == 9);
  CHECK(arrived.ranking[0].values[2] == 2.5f);
  CHECK(arrived.decided == placed.reasons.decided);
  CHECK_FALSE(arrived.predicted_ttft_ms.has_value());
  placed.reasons.predicted_ttft_ms = 40.5f;
  placed.reasons.predicted_tpot_ms = 8.25f;
  CHECK(over_the_wire(system, placed).reasons.predicted_ttft_ms == 40.5f);
  CHECK(over_the_wire(system, placed).reasons.predicted_tpot_ms == 8.25f);

  instance_status status;
  status.instance_id = "i";
  status.update_id = 7;
  status.waiting_requests = {"cmpl-a-0"};
  status.num_scheduled_prefill_tokens = 40;
  instance_metadata metadata;
  metadata.instance_id = "i";
  metadata.utc_create = 1.5;
  metadata.max_num_batched_tokens = 20;
  CHECK(over_the_wire(system, status_msg{{"e", 1}, status}).status == status);
  CHECK(over_the_wire(system, engine_news_msg{status}).status == status);
  CHECK(over_the_wire(system, subscribe_view_msg{{}, true}).paced);
  view_change_msg change{
    {{metadata, {"e", 1}, "modeled", instance_state::draining}}, {status}, {{"f", 2}}, {"gone"}};
  auto back = over_the_wire(system, change);
  CHECK(back.put.front().metadata == metadata);
  CHECK(back.put.front().state == instance_state::draining);
  CHECK(back.removed == change.removed);
  node_card card;
  card.self = {{"e", 1}, "127.0.0.1:1", {"llumlet"}};
  card.instances.push_back({metadata, "modeled", {}});
  card.instances.clear();
  card.starting = {"i"};
  CHECK(over_the_wire(system, peer_up_msg{card}).card.starting == card.starting);
  CHECK(over_the_wire(system, peer_up_msg{card}).card.self.address == "127.0.0.1:1");
  CHECK(over_the_wire(system, peer_down_msg{{"e", 1}}).life.incarnation == 1);
  CHECK(over_the_wire(system, goodbye_msg{{"e", 1}}).from == node_life{"e", 1});
  auto taken = over_the_wire(system, name_taken_msg{{"h", 1}, {{"e", 2}, "a:1", {"llumlet"}}});
  CHECK(taken.by.life == node_life{"e", 2});
  CHECK(taken.by.address == "a:1");
  CHECK(over_the_wire(system, dial_msg{"a:1"}).address == "a:1");
  CHECK(over_the_wire(system, listening_msg{"a:1"}).address == "a:1");
  CHECK(over_the_wire(system, inspect_msg{"why", "r"}).argument == "r");
  CHECK(over_the_wire(system, inspected_msg{"{}"}).json == "{}");
  CHECK(over_the_wire(system, event_msg{5, "placed", {{"a", "b"}}}).facts.size() == 1);
  CHECK(
    over_the_wire(system, streams_msg{3, {{"r", request.stream, "i", "running", 1, 2, 3, 4, "c"}}})
      .streams.front()
      .age_ms
    == 4);
  CHECK(over_the_wire(system, watch_kv_msg{{}, 3}).watch == 3);
  auto moving = over_the_wire(system, moving_msg{request.stream, 4, false});
  CHECK(moving.stream == request.stream);
  CHECK(moving.epoch == 4);
  CHECK_FALSE(moving.on);
  auto end = over_the_wire(system, end_streams_msg{{"r"}, {"i"}, "aborted"});
  CHECK(end.requests == std::vector<std::string>{"r"});
  CHECK(end.at == std::vector<instance_id>{"i"});
  CHECK(end.why == "aborted");
  auto receipt = over_the_wire(system, kv_heard_msg{{}, 3, 16});
  CHECK(receipt.watch == 3);
  CHECK(receipt.heard == 16);
  kv_changes_msg cached{"i", 3, 4, {}};
  cached.changes.cleared = true;
  cached.changes.block_tokens = 2;
  cached.changes.store(0, 0xFFFFFFFFFFFFFFFFull, std::vector<token_id>{1, 2});
  cached.changes.remove(7);
  auto heard = over_the_wire(system, cached);
  CHECK(heard.instance == "i");
  CHECK(heard.watch == 3);
  CHECK(heard.number == 4);
  CHECK(heard.changes.cleared);
  CHECK(heard.changes.block_tokens == 2);
  CHECK(heard.changes.runs == cached.changes.runs);
  CHECK(heard.changes.hashes == cached.changes.hashes);
  CHECK(heard.changes.tokens == cached.changes.tokens);
  actor_stats_msg stats{{{1, "n", "r", 2, 3, 4, 5, 6, {{"k", 7}}}}};
  CHECK(over_the_wire(system, stats).actors.front().state.front().second == 7);
}

TEST_CASE("our errors travel as themselves, CAF's become ours") {
  CHECK(
    from_caf(to_caf({errc::out_of_blocks, "none left"}))
    == error{errc::out_of_blocks, "none left"});
  CHECK(from_caf(caf::error{caf::sec::request_timeout}).code == errc::timeout);
  CHECK(from_caf(caf::error{caf::sec::request_receiver_down}).code == errc::unreachable);
  CHECK(from_caf(caf::error{caf::sec::runtime_error}).code == errc::internal);
}

} // namespace llumnix
