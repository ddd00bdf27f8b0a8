#include "gateway/scheduler_api/api_handler.hpp"
#include "runtime/scheduling/kv_index_memory.hpp"
#include "tests/net/http_testing.hpp"

#include <doctest/doctest.h>

namespace llumnix::scheduler_api {
namespace {

using net::testing::eventually;
using net::testing::raw_client;

/// Writes down what it is told, and answers as the test says.
struct scripted_desk final : scheduling_desk {
  void schedule(
    placement_query query, std::optional<prefix_holders> told_holders, std::string gateway,
    schedule_answer told) override {
    std::lock_guard guard{mutex};
    queries.push_back(query.request_id + " of " + gateway);
    holders = std::move(told_holders);
    if (answer)
      told(*answer);
    else
      waiting.push_back(std::move(told));
  }
  bool release(std::string request, std::string gateway, std::vector<request_place> at) override {
    std::lock_guard guard{mutex};
    if (behind)
      return false;
    auto line = request + " of " + gateway;
    for (const auto& place : at)
      line += " " + place.store + "@" + place.instance;
    released.push_back(std::move(line));
    return true;
  }
  bool report(std::vector<request_progress> news) override {
    std::lock_guard guard{mutex};
    if (behind)
      return false;
    reported += news.size();
    return true;
  }
  void gateway_up(const std::string& gateway) override {
    std::lock_guard guard{mutex};
    links.push_back("+" + gateway);
  }
  void gateway_down(const std::string& gateway) override {
    std::lock_guard guard{mutex};
    links.push_back("-" + gateway);
  }
  template <class T>
  T get(T scripted_desk::*what) {
    std::lock_guard guard{mutex};
    return this->*what;
  }

  std::mutex mutex;
  std::optional<result<std::vector<chosen_instance>>> answer;
  std::vector<schedule_answer> waiting;
  std::vector<std::string> queries, released, links;
  std::optional<prefix_holders> holders; ///< told with the last one
  std::size_t reported = 0;
  bool behind = false; ///< takes no news
};

const chosen_instance chosen{
  "pod-1_dp0", "pod-1_dp0", infer_type::neutral, "127.0.0.1", 24211, "127.0.0.1", 24251, 0, 1};

/// The API on a port, with a script for a scheduler.
struct api {
  explicit api(std::string key = {}, kv_index* index = nullptr) {
    record.model = "m";
    record.version = 1;
    auto made = net::http_server::make({});
    REQUIRE(made.has_value());
    server = std::move(*made);
    server->start([this, key, index](std::uint32_t loop) {
      return std::make_unique<api_handler>(api_services{
        .loop = server->loop(loop),
        .desk = desk,
        .metrics = metrics,
        .prefixes = prefixes,
        .key = key,
        .find_engine
        = [this](const instance_id& id) { return id == "pod-1_dp0" ? &record : nullptr; },
        .metrics_text = [] { return std::string{"more 1\n"}; },
        .on_tick = [] {},
        .index = index,
        .index_min_tokens = 3});
    });
  }
  ~api() { server.reset(); }

  std::string ask(
    const std::string& method, const std::string& path, const std::string& body,
    const std::string& headers = {}) {
    raw_client client{*server};
    client.send(
      method + " " + path + " HTTP/1.1\r\nhost: a\r\n" + headers
      + "content-length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
    return client.reply();
  }

  scripted_desk desk;
  scheduler_metrics metrics{{}};
  prefix_probes prefixes;
  discovered_engine record;
  std::unique_ptr<net::http_server> server;
};

int status_of(const std::string& reply) {
  return std::stoi(reply.substr(9, 3));
}

std::string body_of(const std::string& reply) {
  return reply.substr(reply.find("\r\n\r\n") + 4);
}

bool has(const std::string& reply, std::string_view header) {
  return reply.find("\r\n" + std::string{header} + "\r\n") != reply.npos;
}

std::string frame(char opcode, const std::string& payload) {
  return std::string{static_cast<char>(0x80 | opcode), static_cast<char>(0x80 | payload.size())}
         + std::string(4, '\0') + payload;
}

const std::string upgrade = "GET /keepalive HTTP/1.1\r\nHost: a\r\nUpgrade: "
                            "websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
                            "13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

} // namespace

TEST_CASE("while the scheduler is behind its gateways are told so") {
  api there;
  there.desk.behind = true;
  const std::string release
    = R"({"id":"r","scheduling_result":[{"id":"pod-1_dp0","infer_type":"neutral"}]})";
  const std::string report = R"([{"kind":"prefill_done","id":"r","infer_type":"neutral"}])";
  for (const auto& [path, body] : {std::pair{"/release", release}, {"/report", report}}) {
    CAPTURE(path);
    auto reply = there.ask("POST", path, body);
    CHECK(status_of(reply) == 503);
    CHECK(body_of(reply) == "scheduler is behind\n");
    CHECK(has(reply, "retry-after: 1"));
  }
  CHECK(status_of(there.ask("POST", "/report", "[]")) == 200); // of nothing
  there.desk.behind = false;
  CHECK(status_of(there.ask("POST", "/release", release)) == 200);
  CHECK(status_of(there.ask("POST", "/report", report)) == 200);
  CHECK(there.desk.get(&scripted_desk::reported) == 1);
}

TEST_CASE("what cannot be understood gets the reference's words") {
  api there;
  struct row {
    const char *method, *path, *body;
    int status;
    const char* text;
  };
  for (auto [method, path, body, status, text] :
       {row{"POST", "/schedule", "{", 400, "invalid scheduling req\n"},
        row{"GET", "/schedule", "", 400, "invalid scheduling req\n"},
        row{"POST", "/release", "nope", 400, "invalid release request\n"},
        row{"POST", "/release", "{}", 400, "ignore, release 0 request.\n"},
        row{"POST", "/report", "{}", 400, "invalid report request\n"},
        row{"GET", "/keepalive", "", 400, "Bad Request\n"},
        row{"GET", "/nothing", "", 404, "Not found\n"},
        row{"POST", "/schedule/", "{}", 404, "Not found\n"}}) {
    CAPTURE(path);
    CAPTURE(body);
    auto reply = there.ask(method, path, body);
    CHECK(status_of(reply) == status);
    CHECK(body_of(reply) == text);
    CHECK(has(reply, "content-type: text/plain; charset=utf-8"));
    CHECK(has(reply, "x-content-type-options: nosniff"));
    CHECK(has(reply, "sec-websocket-version: 13") == (std::string_view{path} == "/keepalive"));
  }
  CHECK(there.desk.get(&scripted_desk::queries).empty());
  CHECK(there.desk.get(&scripted_desk::released).empty());
}

TEST_CASE("prompts are looked up, and placed whatever comes of it") {
  kv_index_memory index{holder_naming::kv_address};
  index.put("10.0.0.7", {1, 2, 3});
  api there{{}, &index};
  there.desk.answer = std::vector{chosen};
  struct row {
    const char* what;
    std::string ids;
    int tokens;
    std::optional<std::uint32_t> held; ///< by the holder; nothing: nobody was asked, or could tell
  };
  for (const auto& [what, ids, tokens, held] :
       {row{"known", "[1,2,3,4]", 4, 3}, row{"with spaces", "[ 1 , 2 ]", 3, 2},
        row{"unknown", "[7,8,9]", 3, 0}, row{"short", "[1,2]", 2, std::nullopt},
        row{"without ids", "null", 100, std::nullopt}, row{"broken", "[1,2,3]", 3, std::nullopt}}) {
    CAPTURE(what);
    index.fail(
      what == std::string_view{"broken"} ? std::optional{error{errc::unreachable, "down"}}
                                         : std::nullopt);
    auto reply = there.ask(
      "POST", "/schedule",
      R"({"id":"r","scheduling_mode":"neutral","prompt_num_tokens":)" + std::to_string(tokens)
        + R"(,"prompt_token_ids":)" + ids + "}");
    CHECK(status_of(reply) == 200);
    auto told = there.desk.get(&scripted_desk::holders);
    CHECK(told.has_value() == held.has_value());
    if (told && held) {
      CHECK(told->named_by == holder_naming::kv_address);
      CHECK(
        told->list
        == (*held == 0 ? std::vector<prefix_holder>{} : std::vector{prefix_holder{"10.0.0.7", *held}}));
    }
  }
  std::uint64_t queries = 0;
  for (std::size_t i = 0; i <= there.prefixes.query_ms.bounds().size(); ++i)
    queries += there.prefixes.query_ms.count(i);
  CHECK(queries == 4);
}

TEST_CASE("what SCHEDULER says is answered, and counted") {
  api there;
  struct row {
    result<std::vector<chosen_instance>> answer;
    int status;
    std::string text, counted;
  };
  for (
    const auto& [answer, status, text, counted] :
    {row{
       std::vector{chosen}, 200,
       R"({"id":"r","model":"","gateway_id":"g:1","scheduling_mode":"","scheduling_stage":"","prompt_token_ids":null,"scheduling_result":[{"version":1,"id":"pod-1_dp0","model":"m","infer_type":"neutral","endpoint":{"host":"127.0.0.1","port":24211},"aux_ip":"127.0.0.1","aux_port":24251,"dp_rank":0,"dp_size":1}]})",
       "scheduler_scheduling_total 1"},
     row{
       error{errc::no_instance, "no available endpoint"}, 429, "no available endpoint",
       R"(scheduler_scheduling_failed_total{error_type="no_available_endpoint"} 1)"},
     row{
       error{errc::unreachable, "cms not available"}, 400, "cms not available",
       R"(scheduler_scheduling_failed_total{error_type="cms_not_available"} 1)"},
     row{
       error{errc::draining, "scheduler not ready"}, 400, "scheduler not ready",
       R"(scheduler_scheduling_failed_total{error_type="scheduler_not_ready"} 1)"}}) {
    CAPTURE(text);
    there.desk.answer = answer;
    auto reply = there.ask("PUT", "/schedule", R"({"id":"r","gateway_id":"g:1"})");
    CHECK(status_of(reply) == status);
    CHECK(body_of(reply) == text);
    auto type = status == 200 ? "content-type: application/json"
                              : "content-type: text/plain; charset=utf-8";
    CHECK(has(reply, type));
    auto metrics = there.ask("GET", "/metrics", "");
    CHECK(
      has(metrics, "content-type: text/plain; version=0.0.4; charset=utf-8; escaping=underscores"));
    auto open = there.ask("GET", "/metrics", "", "accept: application/openmetrics-text\r\n");
    CHECK(has(open, "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"));
    CHECK(open.ends_with("more 1\n# EOF\n"));
    CHECK(metrics.find("\n" + counted + "\n") != metrics.npos);
    CHECK(metrics.ends_with("more 1\n"));
  }
  CHECK(
    there.metrics.text({}).find("request_full_mode_schedule_duration_milliseconds_count 4")
    != std::string::npos);
}

TEST_CASE("releases and reports are passed on") {
  api there;
  CHECK(
    there
      .ask(
        "POST", "/release",
        R"({"id":"r","gateway_id":"g:1","scheduling_result":[{"id":"a","infer_type":"neutral"},{"id":"b"}]})")
      .ends_with("content-length: 0\r\n\r\n"));
  CHECK(status_of(there.ask("POST", "/report", "[]")) == 200);
  CHECK(status_of(there.ask("POST", "/report", "[{},{}]")) == 200);
  CHECK(
    there.desk.get(&scripted_desk::released) == std::vector<std::string>{"r of g:1 neutral@a @b"});
  CHECK(there.desk.get(&scripted_desk::reported) == 2);
}

TEST_CASE("a gateway that gives up waiting holds no instance") {
  api there;
  {
    raw_client client{*there.server};
    client.send("POST /schedule HTTP/1.1\r\nhost: a\r\ncontent-length: 25\r\n\r\n"
                R"({"id":"r","model":"long"})");
    CHECK(eventually([&] { return there.desk.get(&scripted_desk::waiting).size() == 1; }));
    linger reset{1, 0}; // it does not just say that it sends no more
    ::setsockopt(client.socket(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  }
  CHECK(eventually([&] { return there.server->open_exchanges() == 0; }));
  there.desk.get(&scripted_desk::waiting).front()(std::vector{chosen});
  CHECK(eventually([&] { return there.desk.get(&scripted_desk::released).size() == 1; }));
  CHECK(there.desk.get(&scripted_desk::released).front() == "r of  neutral@pod-1_dp0");
}

TEST_CASE("a gateway counts as connected for as long as its connection lasts") {
  api there;
  {
    raw_client client{*there.server};
    client.send(upgrade + "\r\n");
    client.until("\r\n\r\n");
    client.send(frame(1, R"({"host":"127.0.0.1","port":41174})"));
    CHECK(client.until("ok") == "\x81\x02ok");
    CHECK(there.desk.get(&scripted_desk::links) == std::vector<std::string>{"+127.0.0.1:41174"});
    client.send(frame(1, "more"));
  }
  CHECK(eventually([&] { return there.desk.get(&scripted_desk::links).size() == 2; }));
  CHECK(there.desk.get(&scripted_desk::links).back() == "-127.0.0.1:41174");
}

TEST_CASE("whoever does not say who it is is closed") {
  api there;
  raw_client client{*there.server};
  client.send(upgrade + "\r\n");
  client.until("\r\n\r\n");
  client.send(frame(1, "hello"));
  client.rest();
  CHECK(client.closed());
  CHECK(there.desk.get(&scripted_desk::links).empty());
}

TEST_CASE("pages of other places cannot keep a connection") {
  api there;
  for (const auto* origin : {"http://evil", "null", "http://a.evil", "a"}) {
    CAPTURE(origin);
    raw_client client{*there.server};
    client.send(upgrade + "Origin: " + origin + "\r\n\r\n");
    CHECK(status_of(client.reply()) == 403);
  }
  raw_client client{*there.server};
  client.send(upgrade + "Origin: http://a\r\n\r\n");
  CHECK(client.until("\r\n\r\n").starts_with("HTTP/1.1 101 "));
}

TEST_CASE("with a key it is asked for, but for health") {
  api there{"secret"};
  there.desk.answer = error{errc::no_instance, "no available endpoint"};
  struct row {
    const char *path, *header;
    int status;
  };
  for (auto [path, header, status] :
       {row{"/healthz", "", 200}, row{"/schedule", "", 401},
        row{"/schedule", "authorization: secre\r\n", 401},
        row{"/schedule", "authorization: secret1\r\n", 401},
        row{"/schedule", "authorization: secret\r\n", 429},
        row{"/schedule", "authorization: Bearer secret\r\n", 429}, row{"/metrics", "", 401},
        row{"/keepalive", "", 401}, row{"/nothing", "", 401}}) {
    CAPTURE(path);
    CAPTURE(header);
    CHECK(status_of(there.ask("POST", path, "{}", header)) == status);
  }
}

} // namespace llumnix::scheduler_api
