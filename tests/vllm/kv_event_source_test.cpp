#include "integrations/vllm/kv_event_source.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

namespace llumnix {
namespace {

using namespace std::chrono_literals;

std::string sequence_frame(std::uint64_t number) {
  std::string frame;
  for (int shift = 56; shift >= 0; shift -= 8)
    frame.push_back(static_cast<char>(number >> shift));
  return frame;
}

/// [0, [["BlockRemoved", [name]]]], for a name below 128.
std::string payload_of(std::uint64_t name) {
  std::string made = "\x92";
  made.push_back('\0');
  made += "\x91\x92\xac"
          "BlockRemoved\x91";
  made.push_back(static_cast<char>(name));
  return made;
}

void send(zmq::socket_t& to, const std::vector<std::string>& frames) {
  for (std::size_t i = 0; i < frames.size(); ++i)
    to.send(
      zmq::buffer(frames[i]),
      i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
}

bool readable(zmq::socket_t& socket, std::chrono::milliseconds patience) {
  zmq::pollitem_t item{socket.handle(), 0, ZMQ_POLLIN, 0};
  return zmq::poll(&item, 1, patience) == 1;
}

/// What a source called, in order: the name in each batch, or -1 for a loss.
class listener {
public:
  kv_event_callbacks callbacks() {
    return {
      [this](kv_event_batch batch) {
        note(
          batch.events.size() == 1 && batch.events[0].hashes.size() == 1
            ? static_cast<int>(batch.events[0].hashes[0])
            : -2);
      },
      [this] { note(-1); }};
  }
  /// Waits until so much was called as is expected, and says what.
  std::vector<int> wait_for(std::size_t count) {
    std::unique_lock lock{mutex_};
    changed_.wait_for(lock, 10s, [&] { return calls_.size() >= count; });
    return calls_;
  }

private:
  void note(int what) {
    std::lock_guard lock{mutex_};
    calls_.push_back(what);
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> calls_;
};

/// The publishing half of an engine. An XPUB, so that it knows when somebody listens.
class publisher {
public:
  explicit publisher(const std::string& endpoint = "tcp://127.0.0.1:*", bool bind = true)
    : socket_{context_, zmq::socket_type::xpub} {
    socket_.set(zmq::sockopt::linger, 0);
    if (bind)
      socket_.bind(endpoint);
    else
      socket_.connect(endpoint);
  }
  std::string endpoint() const { return socket_.get(zmq::sockopt::last_endpoint); }
  void await_listener() {
    REQUIRE(readable(socket_, 10s));
    zmq::message_t subscription;
    REQUIRE(socket_.recv(subscription));
  }
  void publish(std::uint64_t sequence, const std::string& topic = "kv") {
    send(socket_, {topic, sequence_frame(sequence), payload_of(sequence)});
  }
  void publish_frames(const std::vector<std::string>& frames) { send(socket_, frames); }

private:
  zmq::context_t context_;
  zmq::socket_t socket_;
};

/// The replaying half: answers each question with what `answer` gives, frame lists without the
/// asker's name.
class replayer {
public:
  using answers = std::vector<std::vector<std::string>>;

  explicit replayer(std::function<answers(std::uint64_t)> answer)
    : socket_{context_, zmq::socket_type::router} {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.bind("tcp://127.0.0.1:*");
    endpoint_ = socket_.get(zmq::sockopt::last_endpoint);
    thread_ = std::thread{[this, answer = std::move(answer)] { run(answer); }};
  }
  ~replayer() {
    ended_ = true;
    thread_.join();
  }
  std::string endpoint() const { return endpoint_; }

private:
  void run(const std::function<answers(std::uint64_t)>& answer) {
    while (!ended_) {
      if (!readable(socket_, 10ms))
        continue;
      std::vector<std::string> question;
      for (bool more = true; more;) {
        zmq::message_t frame;
        more = socket_.recv(frame) && frame.more();
        question.push_back(frame.to_string());
      }
      std::uint64_t from = 0;
      if (question.size() == 3 && question[1].empty())
        for (unsigned char byte : question[2])
          from = from << 8 | byte;
      for (auto frames : answer(from)) {
        frames.insert(frames.begin(), question[0]);
        send(socket_, frames);
      }
    }
  }
  zmq::context_t context_;
  zmq::socket_t socket_;
  std::string endpoint_;
  std::atomic<bool> ended_{false};
  std::thread thread_;
};

const std::string end_sequence = sequence_frame(~std::uint64_t{0});

/// All numbers from the one asked for to `last`, as vLLM 0.32 says them.
replayer::answers all_up_to(std::uint64_t from, std::uint64_t last) {
  replayer::answers all;
  for (auto i = from; i <= last; ++i)
    all.push_back({"", "kv", sequence_frame(i), payload_of(i)});
  all.push_back({"", "", end_sequence, ""});
  return all;
}

std::unique_ptr<kv_event_source> started(kv_event_source_options options, listener& by) {
  auto source = kv_event_source::start(std::move(options), by.callbacks());
  REQUIRE(source);
  return std::move(*source);
}

} // namespace

TEST_CASE("a source does not start at what is no endpoint") {
  publisher taken;
  struct row {
    const char* what;
    kv_event_source_options options;
  };
  for (const auto& [what, options] :
       {row{"nothing", {}}, row{"no scheme", {.endpoint = "127.0.0.1:1"}},
        row{"no port", {.endpoint = "tcp://127.0.0.1"}},
        row{"a scheme of this process only", {.endpoint = "inproc://a"}},
        row{"replays from nowhere", {.endpoint = "tcp://127.0.0.1:1", .replay_endpoint = "tcp://"}},
        row{"replays without scheme", {.endpoint = "tcp://127.0.0.1:1", .replay_endpoint = "a:1"}},
        row{"a port that is taken", {.endpoint = taken.endpoint(), .bind = true}}}) {
    CAPTURE(what);
    auto source = kv_event_source::start(options, {});
    REQUIRE_FALSE(source);
    CHECK(source.error().code == errc::invalid_argument);
  }
}

TEST_CASE("a source without an engine stops at once") {
  listener heard;
  auto before = std::chrono::steady_clock::now();
  for (int i = 0; i < 3; ++i)
    started({.endpoint = "tcp://127.0.0.1:1"}, heard);
  CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds{5});
  CHECK(heard.wait_for(0).empty());
}

TEST_CASE("batches are handed over in order, of the topic asked for") {
  publisher engine;
  listener heard;
  auto source = started({.endpoint = engine.endpoint(), .topic = "kv"}, heard);
  engine.await_listener();
  engine.publish(0, "other");
  engine.publish(0, "kv");
  engine.publish(1, "kv@engine");
  engine.publish(2);
  CHECK(heard.wait_for(3) == std::vector{0, 1, 2});
  CHECK(source->counters().batches == 3);
  CHECK(source->counters().lost == 0);
}

TEST_CASE("a source may listen for its engine") {
  listener heard;
  auto source = started({.endpoint = "tcp://127.0.0.1:*", .bind = true}, heard);
  publisher engine{source->endpoint(), false};
  engine.await_listener();
  engine.publish(0);
  CHECK(heard.wait_for(1) == std::vector{0});
}

TEST_CASE("what is missing is told, where nobody replays") {
  publisher engine;
  listener heard;
  auto source = started({.endpoint = engine.endpoint()}, heard);
  engine.await_listener();
  for (auto sequence : {5, 6, 9, 10}) // joined late, which is no loss
    engine.publish(static_cast<std::uint64_t>(sequence));
  CHECK(heard.wait_for(5) == std::vector{5, 6, -1, 9, 10});
  engine.publish(3); // counts anew
  engine.publish(4);
  engine.publish(4); // and again
  CHECK(heard.wait_for(10) == std::vector{5, 6, -1, 9, 10, -1, 3, 4, -1, 4});
  CHECK(source->counters().lost == 3);
}

TEST_CASE("messages that make no sense are losses") {
  publisher engine;
  listener heard;
  auto source = started({.endpoint = engine.endpoint()}, heard);
  engine.await_listener();
  std::vector<int> expected;
  std::uint64_t sequence = 0;
  for (const auto& frames : std::vector<std::vector<std::string>>{
         {"kv"},
         {"kv", ""},
         {"kv", "1234567", payload_of(1)},
         {"kv", "123456789", payload_of(1)},
         {"kv", end_sequence, payload_of(1)},
         {"kv", sequence_frame(1), payload_of(1), ""},
         {"kv", sequence_frame(1), payload_of(1), "", "", "", ""}}) {
    engine.publish(sequence);
    engine.publish_frames(frames);
    expected.push_back(static_cast<int>(sequence++));
    expected.push_back(-1);
  }
  engine.publish(sequence);
  engine.publish_frames({"kv", sequence_frame(sequence + 1), "\xc1"});
  engine.publish(sequence + 2);
  expected.insert(expected.end(), {7, -1, 9});
  CHECK(heard.wait_for(expected.size()) == expected);
  CHECK(source->counters().malformed == 8);
}

TEST_CASE("what is missing is replayed, in either form of answer") {
  replayer newer{[](std::uint64_t from) { return all_up_to(from, 9); }};
  replayer older{[](std::uint64_t from) {
    auto all = all_up_to(from, 9);
    for (auto& frames : all)
      frames.erase(frames.begin() + 1);
    return all;
  }};
  for (const auto& endpoint : {newer.endpoint(), older.endpoint()}) {
    publisher engine;
    listener heard;
    auto source = started({.endpoint = engine.endpoint(), .replay_endpoint = endpoint}, heard);
    engine.await_listener();
    engine.publish(2); // joined late: all from the start
    engine.publish(3); // among what was replayed
    engine.publish(9);
    engine.publish(10);
    CHECK(heard.wait_for(11) == std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
    CHECK(source->counters().lost == 0);
    CHECK(source->counters().replays == 1);
    CHECK(source->counters().failed_replays == 0);
  }
}

TEST_CASE("a replay that does not reach back is a loss, and what it has is used") {
  replayer half{[](std::uint64_t) { return all_up_to(3, 4); }};
  publisher engine;
  listener heard;
  auto source = started({.endpoint = engine.endpoint(), .replay_endpoint = half.endpoint()}, heard);
  engine.await_listener();
  engine.publish(0);
  engine.publish(6);
  CHECK(heard.wait_for(6) == std::vector{0, -1, 3, 4, -1, 6});
}

TEST_CASE("a replay that makes no sense, or never ends, is a loss") {
  struct row {
    const char* what;
    std::function<replayer::answers(std::uint64_t)> answer;
  };
  for (const auto& [what, answer] :
       {row{"no answer", [](std::uint64_t) { return replayer::answers{}; }},
        row{
          "no end",
          [](std::uint64_t) {
            return replayer::answers{{"", sequence_frame(1), ""}};
          }},
        row{"one frame", [](std::uint64_t) { return replayer::answers{{""}}; }},
        row{
          "five frames",
          [](std::uint64_t) {
            return replayer::answers{{"", "", "", "", ""}};
          }},
        row{
          "no number",
          [](std::uint64_t) {
            return replayer::answers{{"", "x", "y"}};
          }},
        row{"going back", [](std::uint64_t) {
              return replayer::answers{{"", sequence_frame(0), ""}};
            }}}) {
    CAPTURE(what);
    replayer bad{answer};
    publisher engine;
    listener heard;
    auto source = started(
      {.endpoint = engine.endpoint(), .replay_endpoint = bad.endpoint(), .replay_patience = 500ms},
      heard);
    engine.await_listener();
    engine.publish(0);
    engine.publish(2);
    engine.publish(4); // too early to ask again
    CHECK(heard.wait_for(5) == std::vector{0, -1, 2, -1, 4});
    CHECK(source->counters().replays == 1);
    CHECK(source->counters().failed_replays == 1);
  }
}

TEST_CASE("a source that waits for a replay stops at once") {
  replayer mute{[](std::uint64_t) { return replayer::answers{}; }};
  publisher engine;
  listener heard;
  auto source = started(
    {.endpoint = engine.endpoint(), .replay_endpoint = mute.endpoint(), .replay_patience = 60s},
    heard);
  engine.await_listener();
  engine.publish(0);
  engine.publish(2);
  heard.wait_for(1);
  auto deadline = std::chrono::steady_clock::now() + 10s;
  while (source->counters().replays == 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  REQUIRE(source->counters().replays == 1);
  auto before = std::chrono::steady_clock::now();
  source.reset();
  CHECK(std::chrono::steady_clock::now() - before < 5s);
}

TEST_CASE("an engine that comes back is heard again, after a loss") {
  auto engine = std::make_unique<publisher>();
  auto endpoint = engine->endpoint();
  listener heard;
  auto source = started({.endpoint = endpoint}, heard);
  engine->await_listener();
  engine->publish(0);
  CHECK(heard.wait_for(1) == std::vector{0});
  engine.reset();
  CHECK(heard.wait_for(2) == std::vector{0, -1}); // told at once, not with the next batch
  engine = std::make_unique<publisher>(endpoint);
  engine->await_listener();
  engine->publish(1); // as if nothing had been
  CHECK(heard.wait_for(3) == std::vector{0, -1, 1});
}

} // namespace llumnix
