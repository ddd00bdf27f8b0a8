#include "runtime/migration/handover.hpp"
#include "runtime/serving/byte_tokenizer.hpp"
#include "runtime/serving/step_batch.hpp"
#include "runtime/serving/stream_table.hpp"

#include <doctest/doctest.h>

namespace llumnix {

namespace {

using namespace std::chrono_literals;
using verdict = handover::claim_verdict;

/// Writes down what the table asks for.
struct spy_port final : stream_port {
  std::vector<inference_request> placed;
  std::vector<std::vector<instance_id>> excluded;
  std::vector<std::string> aborted; ///< "instance/stream/epoch"
  std::vector<std::uint32_t> credits;
  std::vector<std::uint64_t> asked;
  std::vector<std::uint64_t> withdrawn;
  std::vector<stream_end> ended;

  void place(inference_request request, bool, std::vector<instance_id> exclude) override {
    placed.push_back(std::move(request));
    excluded.push_back(std::move(exclude));
  }
  void abort(const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch) override {
    aborted.push_back(owner.instance + "/" + std::to_string(stream) + "/" + std::to_string(epoch));
  }
  void withdraw(std::uint64_t stream, std::uint32_t) override { withdrawn.push_back(stream); }
  void grant(const stream_owner&, std::uint64_t, std::uint32_t, std::uint32_t credit) override {
    credits.push_back(credit);
  }
  void ask_holds(const stream_owner&, std::uint64_t stream, std::uint32_t) override {
    asked.push_back(stream);
  }
  void closed(const stream_end& end) override { ended.push_back(end); }
};

struct spy_sink final : response_sink {
  std::string text;
  std::vector<token_id> tokens;
  finish_reason finish = finish_reason::none;
  errc failure = errc::ok;
  int flushes = 0;
  stream_update last; ///< its numbers; its views end with the call
  std::string stop_match;
  void on_update(const stream_update& update) override {
    text += update.text;
    tokens.insert(tokens.end(), update.tokens.begin(), update.tokens.end());
    finish = update.finish;
    last = update;
    stop_match = update.stop_match;
  }
  void on_failure(std::uint32_t, const error& why) override { failure = why.code; }
  void flush() override { ++flushes; }
};

struct table_rig {
  byte_tokenizer words;
  spy_port port;
  spy_sink sink;
  gateway_config config = [] {
    gateway_config x;
    x.credit_window = 8;
    x.max_placements = 3;
    return x;
  }();
  stream_table table{config, {"head", 1, 0, 0}, words, port};
  time_point now{};
  stream_owner a{{"engine-a", 1}, "a"};
  stream_owner b{{"engine-b", 1}, "b"};

  std::uint64_t open(stream_options options = {}) {
    inference_request request;
    request.text_id = "r";
    request.prompt = {72, 105};
    request.sampling.max_tokens = 100;
    return table.open(std::move(request), std::move(options), sink, now);
  }
  void batch(
    const stream_owner& from, std::uint64_t stream, std::uint32_t epoch, std::uint32_t start,
    std::vector<token_id> tokens, finish_reason finish = finish_reason::none) {
    step_batch bytes;
    bytes.add(
      {.stream = stream,
       .epoch = epoch,
       .start = start,
       .tokens = std::move(tokens),
       .logprobs = {},
       .finish = finish});
    table.on_batch(from.life, from.instance, bytes.bytes(), now);
  }
  /// Of a hand-over that began under `epoch`.
  handover::head head(std::uint64_t stream, std::uint32_t epoch) const {
    return {{0, 1}, {"head", 1, 0, stream}, epoch};
  }
  verdict claim(
    std::uint64_t stream, std::uint32_t epoch, const stream_owner& who, std::uint32_t start = 0) {
    return table.on_claim({head(stream, epoch), who, start}, now).verdict;
  }
  verdict reclaim(
    std::uint64_t stream, std::uint32_t epoch, const stream_owner& who, std::uint32_t start = 0) {
    return table.on_reclaim({head(stream, epoch), who, start}, now).verdict;
  }
};

} // namespace

TEST_CASE_FIXTURE(table_rig, "a stream is placed, told its tokens, and closed") {
  auto stream = open();
  REQUIRE(port.placed.size() == 1);
  CHECK(port.placed[0].credit == 8);
  table.on_placed(stream, 0, a, now);
  batch(a, stream, 0, 0, {'h', 'e'});
  batch(a, stream, 0, 2, {'y'}, finish_reason::length);
  CHECK(sink.text == "hey");
  CHECK(sink.finish == finish_reason::length);
  CHECK(sink.flushes == 2);
  CHECK(sink.last.output_tokens == 3);
  CHECK(table.size() == 0);
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].outcome == "length");
  CHECK(port.aborted.empty());
}

TEST_CASE_FIXTURE(table_rig, "a stream's end says when it was placed and when its tokens came") {
  auto stream = open();
  now += 3ms;
  table.on_placed(stream, 0, a, now);
  now += 40ms;
  batch(a, stream, 0, 0, {'h'});
  now += 8ms;
  batch(a, stream, 0, 1, {'e'});
  now += 12ms;
  batch(a, stream, 0, 2, {'y'});
  now += 5ms;
  batch(a, stream, 0, 3, {}, finish_reason::stop); // which is no token
  REQUIRE(port.ended.size() == 1);
  const auto& times = port.ended[0].times;
  CHECK(times.placed == 3ms);
  CHECK(times.first_token == 43ms);
  CHECK(times.last_token == 63ms);
  CHECK(times.ttft_ms() == 43);
  CHECK(times.ttft_of_placement_ms() == 40);
  CHECK(times.tpot_ms(3) == 10);
  CHECK(times.tpot_ms(1) == std::nullopt);
}

TEST_CASE_FIXTURE(table_rig, "times of a stream without a token, and of one placed again") {
  auto stream = open();
  now += 3ms;
  SUBCASE("withdrawn") {
    table.cancel(stream, now);
    CHECK(port.ended.at(0).times.first_token == std::nullopt);
    CHECK(port.ended.at(0).times.ttft_ms() == std::nullopt);
    CHECK(port.ended.at(0).times.tpot_ms(7) == std::nullopt);
  }
  SUBCASE("placed anew before its first token") {
    table.on_placed(stream, 0, a, now);
    now += 100ms;
    table.on_node_lost(a.life, now);
    now += 7ms;
    table.on_placed(stream, 1, b, now);
    now += 20ms;
    batch(b, stream, 1, 0, {'h'}, finish_reason::length);
    CHECK(port.ended.at(0).times.placed == 110ms);
    CHECK(port.ended.at(0).times.ttft_of_placement_ms() == 20);
    CHECK(port.ended.at(0).placements == 2);
  }
  SUBCASE("its first token overtook the news: from when it was asked for") {
    batch(a, stream, 0, 0, {'h'});
    now += 1ms;
    table.on_placed(stream, 0, a, now);
    table.cancel(stream, now);
    CHECK(port.ended.at(0).times.placed == 0ms);
    CHECK(port.ended.at(0).times.first_token == 3ms);
  }
}

TEST_CASE_FIXTURE(table_rig, "tokens may overtake the news of their placement") {
  auto stream = open();
  batch(a, stream, 0, 0, {'h'});
  table.on_placed(stream, 0, a, now);
  batch(a, stream, 0, 1, {'i'});
  CHECK(sink.text == "hi");
}

TEST_CASE_FIXTURE(
  table_rig,
  "a lost owner means a replay from the last delivered token; its late tokens are refused") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  batch(a, stream, 0, 0, {'o', 'n'});
  table.on_node_lost(b.life, now);
  CHECK(port.placed.size() == 1);
  table.on_node_lost(a.life, now);
  REQUIRE(port.placed.size() == 2);
  CHECK(port.placed[1].epoch == 1);
  CHECK(port.placed[1].output == std::vector<token_id>{'o', 'n'});
  batch(a, stream, 0, 2, {'X'});
  CHECK(port.aborted == std::vector<std::string>{"a/1/0"});
  table.on_placed(stream, 1, b, now);
  batch(b, stream, 1, 2, {'e'});
  batch(a, stream, 1, 3, {'X'}); // right epoch, wrong speaker
  batch(b, stream, 2, 3, {'X'}); // an epoch nobody gave out
  batch(b, stream, 1, 3, {'!'}, finish_reason::stop);
  CHECK(sink.text == "one!");
  CHECK(sink.finish == finish_reason::stop);
}

TEST_CASE_FIXTURE(table_rig, "nothing is told twice and nothing is left out") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  batch(a, stream, 0, 0, {'a', 'b', 'c'});
  batch(a, stream, 0, 1, {'b', 'c', 'd'});
  CHECK(sink.text == "abcd");
  batch(a, stream, 0, 0, {'a'});
  CHECK(sink.text == "abcd");
  batch(a, stream, 0, 6, {'g'}); // 4 and 5 are missing: computed again
  CHECK(sink.text == "abcd");
  REQUIRE(port.placed.size() == 2);
  CHECK(port.placed[1].output.size() == 4);
  CHECK(port.aborted == std::vector<std::string>{"a/1/0"});
}

TEST_CASE_FIXTURE(table_rig, "refusals move on, final ones fail, and placements are bounded") {
  auto stream = open();
  SUBCASE("a full instance is avoided") {
    table.on_refused(stream, 0, "a", {errc::queue_full, ""}, now);
    REQUIRE(port.placed.size() == 2);
    CHECK(port.excluded[1] == std::vector<instance_id>{"a"});
    table.on_refused(stream, 0, "a", {errc::queue_full, ""}, now); // said twice
    CHECK(port.placed.size() == 2);
    table.on_refused(stream, 1, "b", {errc::queue_full, ""}, now);
    table.on_refused(stream, 2, "c", {errc::queue_full, ""}, now);
    CHECK(port.placed.size() == 3);
    CHECK(sink.failure == errc::no_instance);
    CHECK(port.ended[0].outcome == "failed");
  }
  SUBCASE("what can never fit is not tried elsewhere") {
    table.on_refused(stream, 0, "a", {errc::too_long, ""}, now);
    CHECK(port.placed.size() == 1);
    CHECK(sink.failure == errc::too_long);
  }
  SUBCASE("no instance in time") {
    table.on_unplaceable(stream, 0, {errc::no_instance, ""}, now);
    CHECK(sink.failure == errc::no_instance);
    CHECK(table.size() == 0);
  }
}

TEST_CASE_FIXTURE(table_rig, "a request is ended where it is, by whatever owns it") {
  const error why{errc::cancelled, "aborted"};
  auto stream = open();
  table.end_requests({"r"}, {"a"}, why); // it is nowhere yet
  table.on_placed(stream, 0, a, now);
  batch(a, stream, 0, 0, {'a', 'b'});
  table.end_requests({"q", "s"}, {"a"}, why);
  table.end_requests({"r"}, {"b"}, why);
  table.end_requests({}, {"a"}, why);
  table.end_requests({"r"}, {}, why);
  CHECK(table.size() == 1);
  CHECK(claim(stream, 0, b, 2) == verdict::granted);
  table.end_requests({"r"}, {"a"}, why); // it has moved
  CHECK(table.size() == 1);
  table.end_requests({"q", "r"}, {"a", "b"}, why);
  CHECK(table.size() == 0);
  CHECK(port.aborted.back() == "b/1/1");
  CHECK(sink.failure == errc::cancelled);
  REQUIRE(port.ended.size() == 1);
  CHECK(port.ended[0].outcome == "cancelled");
}

TEST_CASE_FIXTURE(table_rig, "credit follows what the client took") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  batch(a, stream, 0, 0, {1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(port.credits.empty());
  table.consumed(stream, 3, now);
  CHECK(port.credits.empty());
  table.consumed(stream, 1, now);
  CHECK(port.credits == std::vector<std::uint32_t>{12});
  table.on_node_lost(a.life, now);
  CHECK(port.placed[1].credit == 12);
}

TEST_CASE_FIXTURE(table_rig, "an unbounded stream needs no credit") {
  stream_options options;
  options.bounded = false;
  open(options);
  CHECK(port.placed[0].credit == inference_request::no_limit);
}

TEST_CASE_FIXTURE(table_rig, "a stop string ends the stream at its engine too") {
  stream_options options;
  options.stop = {"yz"};
  auto stream = open(options);
  table.on_placed(stream, 0, a, now);
  batch(a, stream, 0, 0, {'x', 'y', 'z', 'q'});
  CHECK(sink.text == "x");
  CHECK(sink.tokens == std::vector<token_id>{'x', 'y', 'z'});
  CHECK(sink.finish == finish_reason::stop);
  CHECK(sink.stop_match == "yz");
  CHECK(sink.last.output_tokens == 3);
  CHECK(port.aborted == std::vector<std::string>{"a/1/0"});
}

TEST_CASE_FIXTURE(table_rig, "a stream is listed as moving while its owner hands it over") {
  auto state = [&] { return table.list(now).at(0).state; };
  auto stream = open();
  CHECK(state() == "queued");
  table.on_placed(stream, 0, a, now);
  CHECK(state() == "prefilling");
  table.on_moving(stream, 0, true); // what waits may move, too
  CHECK(state() == "moving");
  table.on_moving(stream, 0, false);
  CHECK(state() == "prefilling");
  batch(a, stream, 0, 0, {'x'});
  CHECK(state() == "running");
  table.on_moving(stream, 0, true);
  batch(a, stream, 0, 1, {'y'}); // its owner goes on meanwhile
  CHECK(state() == "moving");
  SUBCASE("until another takes it over") {
    CHECK(claim(stream, 0, b, 2) == verdict::granted);
    CHECK(state() == "running");
    table.on_moving(stream, 0, true); // late
    CHECK(state() == "running");
    table.on_moving(stream, 1, true); // on it goes
    table.on_moving(stream, 0, false);
    CHECK(state() == "moving");
  }
  SUBCASE("until its owner takes it back") {
    CHECK(reclaim(stream, 0, a, 2) == verdict::granted);
    CHECK(state() == "running");
  }
  SUBCASE("until its owner is lost") {
    table.on_node_lost(a.life, now);
    CHECK(state() == "replaying");
  }
  SUBCASE("until it is over") {
    batch(a, stream, 0, 2, {'z'}, finish_reason::length);
    CHECK(table.list(now).empty());
    table.on_moving(stream, 0, false);
  }
}

TEST_CASE_FIXTURE(table_rig, "a client that leaves is heard of wherever its request is") {
  SUBCASE("waiting for an instance") {
    table.cancel(open(), now);
    CHECK(port.withdrawn.size() == 1);
  }
  SUBCASE("running") {
    auto stream = open();
    table.on_placed(stream, 0, a, now);
    table.cancel(stream, now);
    CHECK(port.aborted == std::vector<std::string>{"a/1/0"});
    batch(a, stream, 0, 0, {'x'});
    CHECK(sink.text.empty());
    CHECK(port.aborted.size() == 2);
  }
  SUBCASE("on its way to an instance") {
    auto stream = open();
    table.cancel(stream, now);
    table.on_placed(stream, 0, a, now);
    CHECK(port.aborted == std::vector<std::string>{"a/1/0"});
  }
  CHECK(table.size() == 0);
  CHECK(port.ended.at(0).outcome == "cancelled");
}

TEST_CASE_FIXTURE(table_rig, "a silent owner is asked, and believed") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  now += 999ms;
  table.sweep(now);
  CHECK(port.asked.empty());
  now += 1ms;
  table.sweep(now);
  CHECK(port.asked == std::vector<std::uint64_t>{stream});
  table.on_holds_answer(a, stream, 0, true, now);
  CHECK(port.placed.size() == 1);
  now += 1s;
  table.sweep(now);
  CHECK(port.asked.size() == 2);
  table.on_holds_answer(a, stream, 0, false, now);
  CHECK(port.placed.size() == 2);
  table.on_holds_answer(a, stream, 0, false, now); // of an earlier epoch
  CHECK(port.placed.size() == 2);
  table.on_holds_answer(a, stream, 1, false, now); // it has no owner yet
  CHECK(port.placed.size() == 2);
}

TEST_CASE_FIXTURE(table_rig, "a NO of whoever owned the same epoch before does no harm") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  CHECK(claim(stream, 0, b) == verdict::granted);
  now += 1s;
  table.sweep(now);
  CHECK(port.asked.size() == 1); // b, under epoch 1
  table.on_abandon({head(stream, 0), b}, now);
  CHECK(reclaim(stream, 0, a) == verdict::granted); // the same epoch
  table.on_holds_answer(b, stream, 1, false, now);
  CHECK(port.placed.size() == 1);
  auto earlier = a;
  earlier.life.incarnation = 0;
  table.on_holds_answer(earlier, stream, 1, false, now);
  CHECK(port.placed.size() == 1);
  table.on_holds_answer(a, stream, 1, true, now);
  CHECK(port.placed.size() == 1);
  table.on_holds_answer(a, stream, 1, false, now);
  REQUIRE(port.placed.size() == 2);
  CHECK(port.placed[1].epoch == 2);
}

TEST_CASE_FIXTURE(table_rig, "lives that are over claim nothing, however late they are heard") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  auto life = [&](std::uint64_t incarnation) {
    return stream_owner{{"engine-b", incarnation}, "b"};
  };
  auto last = life(7);
  table.on_node_lost(last.life, now);
  SUBCASE("nothing is back") {
    CHECK(claim(stream, 0, last) == verdict::superseded);
    CHECK(reclaim(stream, 0, last) == verdict::superseded);
    CHECK(claim(stream, 0, life(6)) == verdict::superseded);
    CHECK(claim(stream, 0, life(8)) == verdict::granted);
  }
  SUBCASE("the next life is there") {
    table.on_node_back(life(8).life);
    CHECK(claim(stream, 0, last) == verdict::superseded);
    CHECK(reclaim(stream, 0, last) == verdict::superseded);
    CHECK(claim(stream, 0, life(8)) == verdict::granted);
  }
  SUBCASE("the same life is back") {
    table.on_node_back(last.life);
    CHECK(claim(stream, 0, life(6)) == verdict::superseded);
    CHECK(claim(stream, 0, last) == verdict::granted);
  }
  SUBCASE("the same life is back, and lost again") {
    table.on_node_back(last.life);
    table.on_node_lost(last.life, now);
    CHECK(claim(stream, 0, last) == verdict::superseded);
  }
  SUBCASE("news of an earlier life come late") {
    table.on_node_lost(life(5).life, now);
    CHECK(claim(stream, 0, last) == verdict::superseded);
  }
  SUBCASE("there is no life before the first one") {
    stream_owner first{{"engine-c", 0}, "c"};
    table.on_node_lost(first.life, now);
    CHECK(claim(stream, 0, first) == verdict::superseded);
    table.on_node_back(first.life);
    CHECK(reclaim(stream, 0, first) == verdict::granted);
  }
  CHECK(port.placed.size() == 1);
}

TEST_CASE_FIXTURE(table_rig, "4096 nodes are remembered as lost, those heard of last") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  auto lose = [&](int first, int end) {
    for (int node = first; node < end; ++node)
      table.on_node_lost({"node-" + std::to_string(node), 1}, now);
  };
  stream_owner c{{"engine-c", 1}, "c"};
  table.on_node_lost(b.life, now);
  table.on_node_lost(c.life, now);
  lose(0, 4094);
  table.on_node_lost(b.life, now); // known, and heard of last
  lose(4094, 4095);
  CHECK(claim(stream, 0, b) == verdict::superseded);
  CHECK(claim(stream, 0, {{"node-0", 1}, "n"}) == verdict::superseded);
  CHECK(claim(stream, 0, c) == verdict::granted);
}

TEST_CASE_FIXTURE(table_rig, "a stream that was let go and is taken by nobody is replayed") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  CHECK(claim(stream, 0, b) == verdict::granted);
  table.on_abandon({head(stream, 0), b}, now);
  now += 499ms;
  table.sweep(now);
  CHECK(port.placed.size() == 1);
  now += 1ms;
  table.sweep(now);
  REQUIRE(port.placed.size() == 2);
  CHECK(port.placed[1].epoch == 2);
  CHECK(port.aborted == std::vector<std::string>{"b/1/1"});
}

TEST_CASE_FIXTURE(table_rig, "a gap of a stream that moved is waited for, not for ever") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  CHECK(claim(stream, 0, b, 2) == verdict::granted);
  batch(b, stream, 1, 2, {'c'});
  CHECK(sink.text.empty());
  SUBCASE("what was missing comes") {
    batch(a, stream, 0, 0, {'a', 'b'});
    CHECK(sink.text == "abc");
    now += 2s;
    table.sweep(now);
    CHECK(port.placed.size() == 1);
  }
  SUBCASE("it does not") {
    now += 1999ms;
    table.sweep(now);
    CHECK(port.placed.size() == 1);
    now += 1ms;
    table.sweep(now);
    REQUIRE(port.placed.size() == 2);
    CHECK(port.placed[1].epoch == 2);
    CHECK(port.placed[1].output.empty());
    CHECK(port.aborted == std::vector<std::string>{"b/1/1"}); // it may wait for credit
  }
}

TEST_CASE("a sink that cancels another stream while the table sweeps does no harm") {
  /// As a request of several choices: one failed, the others are wanted no longer.
  struct cancelling_sink final : response_sink {
    stream_table* table = nullptr;
    std::uint64_t other = 0;
    void on_update(const stream_update&) override {}
    void on_failure(std::uint32_t, const error&) override { table->cancel(other, time_point{}); }
    void flush() override {}
  };
  table_rig x;
  x.config.max_placements = 1;
  stream_table table{x.config, {"head", 1, 0, 0}, x.words, x.port};
  cancelling_sink sink;
  sink.table = &table;
  auto given_up = table.open({}, {}, sink, x.now);
  sink.other = table.open({}, {}, sink, x.now);
  table.on_placed(given_up, 0, x.a, x.now);
  table.on_placed(sink.other, 0, x.a, x.now);
  table.on_claim({x.head(given_up, 0), x.b, 0}, x.now);
  table.on_abandon({x.head(given_up, 0), x.b}, x.now);
  table.sweep(x.now + 1s); // one is given up, the other one silent
  CHECK(table.size() == 0);
}

TEST_CASE_FIXTURE(table_rig, "bytes that make no sense do no harm") {
  auto stream = open();
  table.on_placed(stream, 0, a, now);
  table.on_batch(a.life, a.instance, {'x', 'y'}, now);
  batch(a, stream, 0, 0, {'o', 'k'});
  CHECK(sink.text == "ok");
}

TEST_CASE_FIXTURE(table_rig, "a gateway that forgot is asked again") {
  auto stream = open();
  table.place_again(now);
  REQUIRE(port.placed.size() == 2);
  CHECK(port.placed[1].epoch == 0);
  table.on_placed(stream, 0, a, now);
  table.place_again(now);
  CHECK(port.placed.size() == 2);
}

} // namespace llumnix
