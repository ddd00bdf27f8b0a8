#include "integrations/vllm/event_index.hpp"
#include "integrations/vllm/kv_events.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <optional>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

namespace llumnix {
namespace {

using namespace std::chrono_literals;

constexpr std::uint32_t block = 4;

/// What a vLLM with KV events publishes.
class engine {
public:
  engine() : socket_{context_, zmq::socket_type::xpub} {
    socket_.set(zmq::sockopt::linger, 0);
    socket_.bind("tcp://127.0.0.1:*");
  }
  std::string endpoint() const { return socket_.get(zmq::sockopt::last_endpoint); }
  std::string port() const { return endpoint().substr(endpoint().rfind(':') + 1); }
  void await_listener() {
    zmq::pollitem_t item{socket_.handle(), 0, ZMQ_POLLIN, 0};
    REQUIRE(zmq::poll(&item, 1, 10s) == 1);
    zmq::message_t subscription;
    REQUIRE(socket_.recv(subscription));
  }
  /// It has computed a prompt of whole blocks, whose names begin with this one.
  void
  stored(std::uint64_t first, const std::vector<token_id>& tokens, const char* lora = nullptr) {
    nlohmann::json event{
      {"type", "BlockStored"},
      {"block_hashes", nlohmann::json::array()},
      {"parent_block_hash", nullptr},
      {"token_ids", tokens},
      {"block_size", block}};
    for (std::uint64_t i = 0; i < tokens.size() / block; ++i)
      event["block_hashes"].push_back(first + i);
    if (lora)
      event["lora_name"] = lora;
    auto bytes = nlohmann::json::to_msgpack({0.5, {event}});
    publish({bytes.begin(), bytes.end()});
  }
  void cleared() {
    publish(std::string{
      "\x92\x00\x91\x91\xb0"
      "AllBlocksCleared",
      21});
  }

private:
  void publish(const std::string& payload) {
    std::string number(8, '\0');
    number.back() = static_cast<char>(sequence_++);
    for (const auto& frame : {std::string{"kv"}, number})
      socket_.send(zmq::buffer(frame), zmq::send_flags::sndmore);
    socket_.send(zmq::buffer(payload), zmq::send_flags::none);
  }
  zmq::context_t context_;
  zmq::socket_t socket_;
  int sequence_ = 0;
};

using holders = std::vector<prefix_holder>;

holders find(event_index& index, const std::vector<token_id>& prompt, const char* model = "m") {
  std::optional<prefix_holders> answer;
  index.find(prompt, model, [&](result<prefix_holders> found) { answer = *found; });
  REQUIRE(answer);
  CHECK(answer->named_by == holder_naming::instance);
  return answer->list;
}

/// Asks until it says this.
bool finds(
  event_index& index, const std::vector<token_id>& prompt, const holders& expected,
  const char* model = "m") {
  for (auto end = std::chrono::steady_clock::now() + 10s; std::chrono::steady_clock::now() < end;
       std::this_thread::sleep_for(1ms))
    if (find(index, prompt, model) == expected)
      return true;
  return find(index, prompt, model) == expected;
}

std::vector<token_id> counting(token_id from, std::size_t size) {
  std::vector<token_id> made;
  for (std::size_t i = 0; i < size; ++i)
    made.push_back(from + static_cast<token_id>(i));
  return made;
}

} // namespace

TEST_CASE("a pattern stands for the endpoint of each engine") {
  struct row {
    std::string pattern, address;
    std::uint32_t rank;
    std::string endpoint; ///< empty: refused
  };
  for (const auto& [pattern, address, rank, endpoint] :
       {row{"tcp://{host}:5557", "10.0.0.5:8000", 0, "tcp://10.0.0.5:5557"},
        row{"tcp://{host}:5557", "10.0.0.5:8000", 3, "tcp://10.0.0.5:5560"},
        row{"tcp://{host}:5557", "[::1]:8000", 0, "tcp://[::1]:5557"},
        row{"tcp://{host}:{port}", "a:8000", 2, "tcp://a:8000"},
        row{"tcp://{host}:1{port}", "a:800", 0, "tcp://a:1800"},
        row{"tcp://{host}:557{rank}", "a:8000", 2, "tcp://a:5572"},
        row{"tcp://10.0.0.9:5557", "a:8000", 0, "tcp://10.0.0.9:5557"},
        row{"ipc:///run/kv-{port}-{rank}", "a:8000", 1, "ipc:///run/kv-8000-1"},
        row{"tcp://{host}:65535", "a:1", 1, {}}, row{"tcp://{host}:70000", "a:1", 0, {}},
        row{"tcp://{host}:0", "a:1", 0, {}}, row{"tcp://{host}", "a:1", 0, {}},
        row{"tcp://{host}:5557/", "a:1", 0, {}}, row{"tcp://{name}:1", "a:1", 0, {}},
        row{"tcp://{host", "a:1", 0, {}}, row{"http://{host}:1", "a:1", 0, {}},
        row{"ipc://", "a:1", 0, {}}, row{"", "a:1", 0, {}}}) {
    CAPTURE(pattern);
    auto made = engine_endpoint(pattern, {address, rank});
    CHECK(made.has_value() == !endpoint.empty());
    if (made)
      CHECK(*made == endpoint);
  }
}

TEST_CASE("what engines tell of their caches is found by their names") {
  engine one, other;
  event_index index{{.events = "tcp://{host}:{port}", .replay = {}}};
  index.add("b", {"127.0.0.1:" + one.port(), 0});
  index.add("a", {"127.0.0.1:" + other.port(), 0});
  one.await_listener();
  other.await_listener();
  auto prompt = counting(100, 12);
  CHECK(find(index, prompt).empty());
  one.stored(1, prompt);
  CHECK(finds(index, prompt, {{"b", 12}}));
  other.stored(50, counting(100, 8)); // names of its own
  CHECK(finds(index, prompt, {{"a", 8}, {"b", 12}}));
  auto longer = counting(100, 15);
  CHECK(find(index, longer) == holders{{"a", 8}, {"b", 12}});
  CHECK(find(index, counting(100, 3)).empty()); // no whole block
  CHECK(find(index, counting(101, 12)).empty());
  one.cleared();
  CHECK(finds(index, prompt, {{"a", 8}}));
  auto counted = index.counters();
  CHECK(counted.engines == 2);
  CHECK(counted.blocks == 2);
  CHECK(counted.batches == 3);
  CHECK(counted.malformed == 0);
  index.remove("a");
  index.remove("nobody");
  CHECK(find(index, prompt).empty());
  CHECK(index.counters().engines == 1);
}

TEST_CASE(
  "an engine that takes another's name starts with nothing, and one that is lost has nothing") {
  event_index index{{.events = "tcp://{host}:{port}", .replay = {}}};
  auto prompt = counting(1, 8);
  engine second;
  {
    engine first;
    index.add("a", {"127.0.0.1:" + first.port(), 0});
    first.await_listener();
    first.stored(1, prompt);
    CHECK(finds(index, prompt, {{"a", 8}}));
  }
  CHECK(finds(index, prompt, {})); // its connection broke
  index.add("a", {"127.0.0.1:" + second.port(), 0});
  second.await_listener();
  second.stored(7, prompt);
  CHECK(finds(index, prompt, {{"a", 8}}));
  index.add("a", {"127.0.0.1:1", 0}); // nobody is there
  CHECK(find(index, prompt).empty());
}

TEST_CASE("LoRAs have blocks of their own") {
  engine one;
  event_index index{{.events = "tcp://{host}:{port}", .replay = {}}};
  index.add("a", {"127.0.0.1:" + one.port(), 0});
  one.await_listener();
  auto prompt = counting(1, 8);
  one.stored(1, prompt);
  one.stored(9, counting(1, 4), "sql");
  CHECK(finds(index, prompt, {{"a", 4}}, "sql"));
  CHECK(find(index, prompt, "m") == holders{{"a", 8}});
}

TEST_CASE("an endpoint that is none leaves its engine unknown, and the others as they are") {
  engine one;
  event_index index{{.events = "tcp://{host}:{port}", .replay = {}}};
  index.add("bad", {"127.0.0.1", 0});
  index.add("a", {"127.0.0.1:" + one.port(), 0});
  one.await_listener();
  CHECK(index.counters().engines == 1);
}

} // namespace llumnix
