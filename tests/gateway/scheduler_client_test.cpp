#include "gateway/scheduler_api/scheduler_client.hpp"
#include "net/http_server.hpp"
#include "tests/net/http_testing.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>

namespace llumnix::scheduler_api {
namespace {

using namespace std::chrono_literals;
using net::testing::eventually;

/// What the reference's programs said to each other.
nlohmann::json recorded(const std::string& name) {
  auto folder = std::filesystem::path{__FILE__}.parent_path().parent_path() / "support" / "wire";
  std::ifstream file{folder / (name + ".json")};
  REQUIRE(file.good());
  return nlohmann::json::parse(file)["items"];
}

std::string body_of(const nlohmann::json& message) {
  auto text = message["text"].get<std::string>();
  return text.substr(text.find("\r\n\r\n") + 4);
}

const std::string instance
  = R"({"version":1,"id":"pod-1_dp0","model":"m","infer_type":"neutral","endpoint":{"host":"10.0.0.5","port":8000},"aux_ip":"","aux_port":0,"dp_rank":0,"dp_size":1})";

std::string placed_at(const std::string& result) {
  return R"({"id":"r","scheduling_result":[)" + result + "]}";
}

} // namespace

TEST_CASE("bodies are the reference's, to the byte") {
  int questions = 0, releases = 0, items = 0;
  for (const auto* name : {"gateway_scheduler_full", "gateway_scheduler_lite"})
    for (const auto& item : recorded(name)) {
      auto what = item["what"].get<std::string>();
      if (!item.contains("request"))
        continue;
      auto sent = body_of(item["request"]);
      CAPTURE(sent);
      auto said = nlohmann::json::parse(sent);
      if (what == "/schedule") {
        asked_request request{said["id"], said["model"], said["gateway_id"]};
        auto prompt = said["prompt_token_ids"].get<std::vector<token_id>>();
        CHECK(render_question(request, said["prompt_num_tokens"], prompt) == sent);
        auto choice = read_choice(body_of(item["reply"]));
        REQUIRE(choice);
        CHECK(choice->role == "neutral");
        CHECK(choice->address.starts_with("127.0.0.1:24"));
        ++questions;
      } else if (what == "/release") {
        asked_request request{said["id"], said["model"], said["gateway_id"]};
        auto result = said["scheduling_result"];
        auto at = sent.find("\"scheduling_result\":[") + 21;
        told_choice choice;
        choice.text = sent.substr(at, sent.size() - at - 2);
        CHECK(render_release(request, choice, said["scheduling_stage"] == "decode") == sent);
        ++releases;
      } else if (what == "/report" && !said.empty()) {
        const auto& x = said[0];
        std::string text;
        append_progress(
          text, x["kind"].get<std::string>(), {x["id"], x["model"], x["gateway_id"]},
          {x["instance_id"], x["infer_type"], {}, {}}, x["num_tokens"]);
        CHECK("[" + text + "]" == sent);
        ++items;
      }
    }
  CHECK(questions == 6);
  CHECK(releases == 6);
  CHECK(items == 4);
}

TEST_CASE("a question without a gateway, a size or a prompt leaves them out") {
  CHECK(
    render_question({"r<1>", "m", ""}, 0, {})
    == R"({"id":"r\u003c1\u003e","model":"m","scheduling_mode":"neutral","scheduling_stage":"prefill","prompt_token_ids":null})");
}

TEST_CASE("choices that nobody could go by are refused") {
  struct row {
    std::string body;
    errc code;
    std::string address;
  };
  auto at = [](const std::string& endpoint) {
    return placed_at(R"({"id":"a","infer_type":"neutral","endpoint":)" + endpoint + "}");
  };
  for (const auto& [body, code, address] :
       {row{placed_at(instance), errc::ok, "10.0.0.5:8000"},
        row{at(R"({"host":"::1","port":7})"), errc::ok, "[::1]:7"},
        row{R"({"id":"r"})", errc::no_instance, {}},
        row{R"({"scheduling_result":null})", errc::no_instance, {}},
        row{"null", errc::no_instance, {}}, row{placed_at("null"), errc::bad_message, {}},
        row{placed_at(""), errc::no_instance, {}},
        row{placed_at(instance + "," + instance), errc::bad_message, {}},
        row{at(R"({"host":"a b","port":7})"), errc::bad_message, {}},
        row{at(R"({"host":"a","port":0})"), errc::bad_message, {}},
        row{at(R"({"host":"a","port":65536})"), errc::bad_message, {}},
        row{at(R"({"host":7,"port":7})"), errc::bad_message, {}},
        row{at(R"("a:7")"), errc::bad_message, {}}, row{placed_at("7"), errc::bad_message, {}},
        row{"", errc::bad_message, {}}, row{"[]", errc::bad_message, {}},
        row{placed_at(instance) + "x", errc::bad_message, {}},
        row{
          placed_at(
            R"({"pad":")" + std::string(70'000, 'x') + R"(","endpoint":{"host":"a","port":7}})"),
          errc::bad_message,
          {}}}) {
    CAPTURE(body);
    auto read = read_choice(body);
    CHECK((read ? errc::ok : read.error().code) == code);
    if (read)
      CHECK(read->address == address);
  }
}

namespace {

/// A scheduler that does what the test says.
struct fake_scheduler {
  struct handler : net::http_handler, net::web_socket_watcher {
    explicit handler(fake_scheduler& to) : owner{to} {}
    void on_request(std::shared_ptr<net::exchange> client, net::http_request&& request) override {
      std::lock_guard guard{owner.mutex};
      if (request.path == "/keepalive") {
        owner.token = std::string{request.header("authorization")};
        socket = owner.welcomes ? net::accept_web_socket(*client, request, *this, 4096) : nullptr;
        if (!socket)
          client->reply({404, {}, "no"});
        return;
      }
      owner.asked.push_back(request.path + " " + request.body);
      auto next = owner.replies.empty() ? net::http_reply{200, {}, placed_at(instance)}
                                        : owner.replies.front();
      if (!owner.replies.empty())
        owner.replies.pop_front();
      if (next.status == 0)
        kept.push_back(std::move(client));
      else
        client->reply(std::move(next));
    }
    void on_message(std::string_view message) override {
      std::lock_guard guard{owner.mutex};
      owner.gateway = std::string{message};
      socket->send(owner.greeting);
    }
    void on_pong() override {}
    void on_closed() override { socket.reset(); }
    void on_tick() override {
      if (owner.hangs_up.exchange(false))
        socket.reset();
    }
    void on_loop_end() override {
      socket.reset();
      kept.clear();
    }
    net::http_reply error_reply(int status, std::string_view) override { return {status, {}, {}}; }
    fake_scheduler& owner;
    std::unique_ptr<net::web_socket> socket;
    std::vector<std::shared_ptr<net::exchange>> kept;
  };

  explicit fake_scheduler(const std::string& listen = "127.0.0.1:0") {
    net::http_server_options options;
    options.listen = listen;
    auto made = net::http_server::make(options);
    REQUIRE(made.has_value());
    server = std::move(*made);
    server->start([this](std::uint32_t) { return std::make_unique<handler>(*this); });
  }
  std::vector<std::string> heard() {
    std::lock_guard guard{mutex};
    return asked;
  }
  void will(int status, std::string body = {}) {
    std::lock_guard guard{mutex};
    replies.push_back({status, {}, std::move(body)});
  }

  std::mutex mutex;
  std::string gateway, token, greeting = "ok";
  bool welcomes = true;
  std::atomic<bool> hangs_up{false};
  std::deque<net::http_reply> replies; ///< of the next requests; status 0: none
  std::vector<std::string> asked;
  std::unique_ptr<net::http_server> server;
};

/// A client on a loop of its own, ticked all the time.
struct asking {
  struct handler : net::http_handler {
    explicit handler(asking& to) : owner{to} {}
    void on_request(std::shared_ptr<net::exchange> client, net::http_request&&) override {
      client->reply({404, {}, {}});
    }
    void on_tick() override {
      if (owner.client)
        owner.client->tick();
    }
    net::http_reply error_reply(int status, std::string_view) override { return {status, {}, {}}; }
    asking& owner;
  };

  explicit asking(client_options options) {
    auto made = net::http_server::make({});
    REQUIRE(made.has_value());
    server = std::move(*made);
    pool = server->make_upstream(0, {});
    client.emplace(std::move(options), *pool, server->loop(0));
    server->start([this](std::uint32_t) { return std::make_unique<handler>(*this); });
  }
  ~asking() {
    server->stop();
    client.reset();
    pool.reset();
  }
  /// Waits for the answer.
  result<std::string> place(const std::string& id, std::uint32_t epoch = 0) {
    auto told = std::make_shared<std::promise<result<std::string>>>();
    client->place({id, epoch, "m", 10, {1, 2}}, [told](auto address) { told->set_value(address); });
    auto future = told->get_future();
    REQUIRE(future.wait_for(net::testing::patience) == std::future_status::ready);
    return future.get();
  }
  errc code_of(const result<std::string>& answer) {
    return answer ? errc::ok : answer.error().code;
  }
  bool ready() const { return client->ready(); }

  std::unique_ptr<net::http_server> server;
  std::unique_ptr<net::upstream_pool> pool;
  std::optional<scheduler_client> client;
};

client_options quick(const fake_scheduler& there) {
  client_options options;
  options.address = there.server->address();
  options.token = "secret";
  options.call_timeout = 300ms;
  options.dial_pause = 50ms;
  options.release_pause = 50ms;
  options.rest = 300ms;
  return options;
}

} // namespace

TEST_CASE("a scheduler is asked once it has said ok, under the name of the connection") {
  fake_scheduler there;
  asking us{quick(there)};
  REQUIRE(eventually([&] { return us.ready(); }));
  CHECK(there.token == "secret");
  auto gateway = nlohmann::json::parse(there.gateway);
  CHECK(gateway["host"] == "127.0.0.1");
  auto id = "127.0.0.1:" + std::to_string(gateway["port"].get<int>());
  CHECK(*us.place("r1") == "10.0.0.5:8000");
  CHECK(*us.place("r1", 2) == "10.0.0.5:8000");
  us.client->report({{"r1", 12, true}, {"nobody", 5, true}});
  REQUIRE(eventually([&] { return there.heard().size() == 3; }));
  us.client->release("r1");
  us.client->release("nobody");
  REQUIRE(eventually([&] { return there.heard().size() == 5; }));
  auto said = there.heard();
  auto parsed
    = [&](std::size_t i) { return nlohmann::json::parse(said[i].substr(said[i].find(' ') + 1)); };
  CHECK(parsed(0)["id"] == "r1");
  CHECK(parsed(0)["gateway_id"] == id);
  CHECK(parsed(0)["prompt_token_ids"] == nlohmann::json{1, 2});
  CHECK(parsed(1)["id"] == "r1-2"); // as its engine is told, too
  REQUIRE(parsed(2).size() == 2);
  CHECK(parsed(2)[0]["kind"] == "prefill_done");
  CHECK(parsed(2)[1]["kind"] == "state_update");
  CHECK(parsed(2)[1]["num_tokens"] == 12);
  CHECK(said[3].starts_with("/release "));
  CHECK(parsed(3)["scheduling_result"][0] == nlohmann::json::parse(instance));
  auto counted = us.client->counters();
  CHECK(counted.placed == 2);
  CHECK(counted.failed == 0);
}

TEST_CASE("what comes while a report is under way is told next, the newest of each request") {
  fake_scheduler there;
  auto options = quick(there);
  options.report_timeout = 100ms;
  asking us{options};
  REQUIRE(eventually([&] { return us.ready(); }));
  for (const auto* id : {"r1", "r2", "r3"})
    CHECK(us.code_of(us.place(id)) == errc::ok);
  there.will(0);
  us.client->report({{"r1", 12, true}});
  us.client->report({{"r2", 20, false}, {"r3", 30, true}});
  us.client->report({{"r1", 13, true}, {"r2", 21, true}, {"nobody", 5, true}});
  us.client->release("r3");
  REQUIRE(eventually([&] { return there.heard().size() == 6; }));
  std::vector<std::string> told;
  for (const auto& said : there.heard())
    if (said.starts_with("/report "))
      for (const auto& item : nlohmann::json::parse(said.substr(8)))
        told.push_back(
          item["kind"].get<std::string>() + " " + item["id"].get<std::string>() + " "
          + std::to_string(item["num_tokens"].get<int>()));
  CHECK(
    told
    == std::vector<std::string>{
      "prefill_done r1 0", "state_update r1 12", "state_update r1 13", "prefill_done r2 0",
      "state_update r2 21"});
}

TEST_CASE("each answer says what is to be done") {
  fake_scheduler there;
  asking us{quick(there)};
  REQUIRE(eventually([&] { return us.ready(); }));
  struct row {
    int status;
    std::string body;
    errc code;
  };
  for (const auto& [status, body, code] :
       {row{429, "no available endpoint", errc::no_instance},
        row{200, R"({"scheduling_result":[]})", errc::no_instance},
        row{404, "endpoint not found", errc::unsupported},
        row{400, "cms not available", errc::unsupported}, row{500, "", errc::unsupported},
        row{200, "nonsense", errc::bad_message}}) {
    CAPTURE(status);
    there.will(status, body);
    CHECK(us.code_of(us.place("r")) == code);
    CHECK(us.ready());
  }
  auto counted = us.client->counters();
  CHECK(counted.busy == 2);
  CHECK(counted.failed == 4);
}

TEST_CASE("what an answer that is of no use has booked is released, each by itself") {
  fake_scheduler there;
  asking us{quick(there)};
  REQUIRE(eventually([&] { return us.ready(); }));
  const std::string prefill
    = R"({"id":"p","infer_type":"prefill","endpoint":{"host":"h","port":1}})";
  const std::string nowhere = R"({"id":"d","endpoint":{"host":"a b","port":0}})";
  const std::string odd = R"({"id":7,"endpoint":[{}]})";
  struct row {
    std::string body;
    std::vector<std::string> released;
  };
  std::size_t heard = 0;
  for (const auto& [body, released] :
       {row{placed_at(prefill + "," + nowhere), {prefill, nowhere}},
        row{placed_at(nowhere), {nowhere}},
        row{placed_at(odd + ",null, " + prefill), {odd, prefill}}, row{placed_at("null"), {}},
        row{placed_at(prefill + "," + prefill) + "}", {}}}) {
    CAPTURE(body);
    there.will(200, body);
    CHECK(us.code_of(us.place("r")) == errc::bad_message);
    heard += 1 + released.size();
    CHECK(eventually([&] { return there.heard().size() == heard; }));
    auto said = there.heard();
    std::size_t found = 0;
    for (const auto& each : released)
      for (auto at = said.size() - released.size(); at < said.size(); ++at)
        found += said[at].starts_with("/release ")
                 && said[at].find("\"scheduling_result\":[" + each + "]") != std::string::npos;
    CHECK(found == released.size());
  }
}

TEST_CASE("one that does not answer rests for a moment") {
  fake_scheduler there;
  asking us{quick(there)};
  REQUIRE(eventually([&] { return us.ready(); }));
  there.will(0);
  CHECK(us.code_of(us.place("r")) == errc::unreachable);
  CHECK_FALSE(us.ready());
  CHECK(eventually([&] { return us.ready(); }));
  CHECK(us.code_of(us.place("r")) == errc::ok);
}

TEST_CASE("a request that is over before it was placed is released at once") {
  fake_scheduler there;
  auto options = quick(there);
  options.call_timeout = 10s;
  asking us{options};
  REQUIRE(eventually([&] { return us.ready(); }));
  std::promise<result<std::string>> told;
  us.client->place({"r", 0, "m", 1, {}}, [&](auto address) { told.set_value(address); });
  us.client->release("r");
  CHECK(us.code_of(told.get_future().get()) == errc::cancelled);
  CHECK(eventually([&] { return there.heard().size() == 2; }));
  CHECK(there.heard()[1].starts_with("/release "));
}

TEST_CASE("a release is tried again, and given up") {
  fake_scheduler there;
  asking us{quick(there)};
  REQUIRE(eventually([&] { return us.ready(); }));
  CHECK(us.code_of(us.place("r")) == errc::ok);
  for (int i = 0; i < 3; ++i)
    there.will(0);
  us.client->release("r");
  CHECK(eventually([&] { return us.client->counters().releases_failed == 1; }));
  CHECK(there.heard().size() == 4);
}

TEST_CASE("a scheduler that is gone is noticed, and one that is back is asked again") {
  std::string address;
  auto there = std::make_unique<fake_scheduler>();
  address = there->server->address();
  asking us{quick(*there)};
  REQUIRE(eventually([&] { return us.ready(); }));
  there->hangs_up = true; // one connection lost is no loss
  auto before = there->gateway;
  CHECK(eventually([&] {
    std::lock_guard guard{there->mutex};
    return there->gateway != before;
  }));
  CHECK(us.ready());
  there.reset();
  CHECK(eventually([&] { return !us.ready(); }));
  there = std::make_unique<fake_scheduler>(address);
  CHECK(eventually([&] { return us.ready(); }));
  CHECK(us.code_of(us.place("r")) == errc::ok);
}

TEST_CASE("what does not answer as a scheduler does is none") {
  fake_scheduler there;
  there.greeting = "hello";
  asking us{quick(there)};
  CHECK(eventually([&] {
    std::lock_guard guard{there.mutex};
    return !there.gateway.empty();
  }));
  CHECK_FALSE(us.ready());
}

TEST_CASE("who waits for an answer hears of the end") {
  fake_scheduler there;
  result<std::string> told{errc::ok, {}};
  {
    asking us{quick(there)};
    REQUIRE(eventually([&] { return us.ready(); }));
    there.will(0);
    us.client->place({"r", 0, "m", 1, {}}, [&](auto address) { told = std::move(address); });
    REQUIRE(eventually([&] { return !there.heard().empty(); }));
  }
  REQUIRE_FALSE(told);
  CHECK(told.error().code != errc::ok);
}

} // namespace llumnix::scheduler_api
