#include "gateway_rig.hpp"

#include <doctest/doctest.h>

namespace llumnix::testing {
namespace {

const std::string good_chat = R"({"model":"modeled","messages":[{"role":"user","content":"hi"}]})";

void check_error(
  const fake_exchange& client, int status, const std::string& type, const std::string& code) {
  CHECK(client.status == status);
  CHECK(client.header("content-type") == "application/json");
  CHECK_FALSE(client.header("x-request-id").empty());
  auto error = client.json()["error"];
  CHECK(error["type"] == type);
  CHECK(error["code"] == code);
  CHECK_FALSE(error["message"].get<std::string>().empty());
}

} // namespace

TEST_CASE("paths that lead nowhere get 404") {
  gateway_rig rig;
  for (const auto* path :
       {"/", "/v1", "/v1/chat", "/v1/chat/completions/", "/v1/files", "/metricsx", "/\"\n"}) {
    CAPTURE(path);
    check_error(*rig.send("GET", path), 404, "not_found_error", "not_found");
  }
}

TEST_CASE("token ids in and out are refused where no engine is behind HTTP") {
  gateway_rig rig;
  auto client = rig.send(
    "POST", "/inference/v1/generate", R"({"token_ids":[1],"sampling_params":{}})",
    {{"content-type", "application/json"}});
  check_error(*client, 404, "not_found_error", "not_found");
  auto message = client->json()["error"]["message"].get<std::string>();
  CHECK(message.find("--enable-scale-out") != std::string::npos);
  CHECK(message.find("not behind HTTP") != std::string::npos);
  CHECK(rig.cluster.placed.empty());
}

TEST_CASE("wrong methods get 405 and are told the right ones") {
  gateway_rig rig;
  struct row {
    std::string method, path, allow;
  };
  for (const auto& [method, path, allow] :
       {row{"GET", "/v1/chat/completions", "POST"}, row{"PUT", "/v1/completions", "POST"},
        row{"GET", "/inference/v1/generate", "POST"}, row{"POST", "/v1/models", "GET, HEAD"},
        row{"DELETE", "/v1/models/modeled", "GET, HEAD"}, row{"POST", "/metrics", "GET, HEAD"},
        row{"GE", "/metrics", "GET, HEAD"}, row{"", "/v1/models", "GET, HEAD"}}) {
    CAPTURE(method);
    CAPTURE(path);
    auto client = rig.send(method, path);
    check_error(*client, 405, "invalid_request_error", "method_not_allowed");
    CHECK(client->header("allow") == allow);
  }
}

TEST_CASE("what headers ask of a placement goes with the request, to each of its choices") {
  gateway_rig rig;
  rig.chat("", {{"x-slo-ttft-ms", "250"}, {"x-slo-tpot-ms", "7.5"}, {"x-session-id", "a/b=="}});
  rig.complete(R"(,"prompt":"x","n":2)", {{"x-slo-tpot-ms", "1e9"}});
  rig.chat("");
  rig.chat("", {{"x-priority", "-7"}});
  REQUIRE(rig.cluster.placed.size() == 5);
  CHECK(rig.cluster.placed[0].wishes == placement_wishes{250.f, 7.5f, "a/b=="});
  for (auto choice : {1, 2})
    CHECK(rig.cluster.placed[choice].wishes == placement_wishes{{}, 1e9f, {}});
  CHECK(rig.cluster.placed[3].wishes == placement_wishes{});
  CHECK(rig.cluster.placed[4].wishes.priority == -7);
  CHECK(rig.cluster.placed[4].priority == -7); // for the engine's own queue
}

TEST_CASE("headers that ask for no sensible placement get 400, and nothing is placed") {
  gateway_rig rig;
  const std::string milliseconds = " must be a number of milliseconds above 0 and up to 1e9.";
  const std::string session = " must be 1 to 128 visible ASCII characters.";
  struct row {
    std::string name, value, what;
  };
  std::vector<row> rows{
    {"x-session-id", "", session},
    {"x-session-id", std::string(129, 's'), session},
    {"x-session-id", "a b", session},
    {"x-session-id", "\xC3\xA9", session}};
  for (const auto* value : {"", "high", "1.5", "+1", "2147483648", " 1"})
    rows.push_back({"x-priority", value, " must be a whole number of 32 bits; lower goes first."});
  for (const auto* name : {"x-slo-ttft-ms", "x-slo-tpot-ms"})
    for (const auto* value :
         {"", "0", "-1", "-0", "nan", "inf", "1e-60", "1e60", "1.1e9", "5ms", " 5", "+5", "0x10",
          "5,6"})
      rows.push_back({name, value, milliseconds});
  for (const auto& [name, value, what] : rows) {
    CAPTURE(name);
    CAPTURE(value);
    auto client = rig.chat("", {{name, value}});
    check_error(*client, 400, "invalid_request_error", "invalid_value");
    CHECK(client->json()["error"]["param"] == name);
    CHECK(client->json()["error"]["message"] == "The header '" + name + "'" + what);
  }
  auto twice = rig.chat("", {{"x-slo-ttft-ms", "5"}, {"x-slo-ttft-ms", "6"}});
  check_error(*twice, 400, "invalid_request_error", "invalid_value");
  CHECK(twice->json()["error"]["message"] == "The header 'x-slo-ttft-ms' must be there once.");
  CHECK(rig.cluster.placed.empty());
}

TEST_CASE("health tells whether the node serves") {
  gateway_rig rig;
  for (const auto* path : {"/health", "/healthz"})
    for (const auto* method : {"GET", "HEAD", "POST"}) {
      rig.ready = true;
      CHECK(rig.send(method, path)->status == 200);
      rig.ready = false;
      CHECK(rig.send(method, path)->status == 503);
    }
}

TEST_CASE(
  "while nothing new is welcome, generating requests are refused and all else is answered") {
  gateway_rig rig;
  auto before = rig.chat("");
  rig.ready = false;
  check_error(*rig.chat(""), 503, "service_unavailable", "draining");
  check_error(
    *rig.complete(R"(,"prompt":"x","stream":true)"), 503, "service_unavailable", "draining");
  CHECK(rig.send("GET", "/v1/models")->status == 200);
  CHECK(rig.send("GET", "/metrics")->status == 200);
  CHECK(rig.cluster.placed.size() == 1);
  rig.give(0, ids_of("a"), finish_reason::length);
  CHECK(before->status == 200);
}

TEST_CASE("paths that are not clean lead to those that are") {
  gateway_rig rig{{}, "secret"};
  struct row {
    std::string path, query, place;
  };
  for (const auto& [path, query, place] :
       {row{"//v1/chat/completions", "", "/v1/chat/completions"},
        row{"/v1/../health", "", "/health"}, row{"/v1/./models", "a=%20b", "/v1/models?a=%20b"},
        row{"/v1/models/", "", ""}, row{"/v1/models//x y", "", "/v1/models/x%20y"},
        row{"/../..", "", "/"}, row{"//evil.example//", "", "/evil.example/"},
        row{"/./\\\\evil", "", "/%5C%5Cevil"},
        row{"//a\r\nset-cookie: b", "", "/a%0D%0Aset-cookie:%20b"}, row{"/.well-known/x", "", ""},
        row{"*", "", ""}})
    for (const auto* method : {"GET", "POST", "HEAD", "OPTIONS"}) {
      CAPTURE(path);
      auto client = std::make_shared<fake_exchange>(rig.loop);
      rig.handler->on_request(
        client, net::http_request{method, path, query, {}, "{}", "1.2.3.4:5"});
      CHECK((client->status == 301) == !place.empty());
      CHECK(client->header("location") == place);
      CHECK_FALSE(client->header("x-request-id").empty());
      CHECK((client->body.empty() || place.empty()));
    }
}

TEST_CASE("the served model is listed and described, others are not") {
  gateway_rig rig{{.model = "org/big \"one\""}};
  auto list = rig.send("GET", "/v1/models")->json();
  CHECK(list["object"] == "list");
  REQUIRE(list["data"].size() == 1);
  CHECK(list["data"][0]["id"] == "org/big \"one\"");
  CHECK(list["data"][0]["object"] == "model");
  CHECK(list["data"][0]["created"] == 1700000000);
  CHECK(list["data"][0]["max_model_len"] == 1000);
  CHECK(rig.send("GET", "/v1/models/org/big \"one\"")->json() == list["data"][0]);
  CHECK(rig.send("HEAD", "/v1/models")->status == 200);
  check_error(*rig.send("GET", "/v1/models/other"), 404, "not_found_error", "model_not_found");
  check_error(*rig.send("GET", "/v1/models/"), 404, "not_found_error", "model_not_found");
}

TEST_CASE("requests that cannot be served open no stream") {
  gateway_rig rig;
  auto post = [&](std::string body, std::string type = "application/json") {
    return rig.send(
      "POST", "/v1/chat/completions", std::move(body), {{"content-type", std::move(type)}});
  };
  check_error(
    *post(good_chat, "text/plain"), 415, "invalid_request_error", "unsupported_media_type");
  check_error(*post("{"), 400, "invalid_request_error", "invalid_json");
  check_error(
    *post(R"({"messages":[]})"), 400, "invalid_request_error", "missing_required_parameter");
  auto other = post(R"({"model":"gpt-9","messages":[{"role":"user","content":"hi"}]})");
  check_error(*other, 404, "not_found_error", "model_not_found");
  CHECK(other->json()["error"]["param"] == "model");
  rig.max_model_len = 6; // the prompt's own length
  auto long_one = post(good_chat);
  check_error(*long_one, 400, "invalid_request_error", "context_length_exceeded");
  CHECK(long_one->json()["error"]["param"] == "messages");
  CHECK(rig.cluster.placed.empty());
  CHECK(rig.handler->open_sessions() == 0);
  CHECK(
    rig.metrics.text(rig.loop.now()).find("request_total")
    == std::string::npos); // parse errors do not count
}

TEST_CASE("every form of a JSON content type is taken, and none at all") {
  gateway_rig rig;
  for (const auto* type :
       {"application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json", ""}) {
    CAPTURE(type);
    CHECK(
      rig.send("POST", "/v1/chat/completions", good_chat, {{"content-type", type}})->status == 0);
  }
  CHECK(rig.cluster.placed.size() == 4);
}

TEST_CASE("with a key all but health wants it") {
  gateway_rig rig{{}, "secret"};
  for (const auto* given :
       {"", "Bearer wrong", "Bearer secret2", "Bearer secre", "Bearer ", "secret",
        "Basic secret"}) {
    CAPTURE(given);
    for (const auto* path : {"/v1/chat/completions", "/v1/models", "/metrics"}) {
      auto client = rig.send("GET", path, {}, {{"authorization", given}});
      check_error(*client, 401, "authentication_error", "invalid_api_key");
      CHECK(client->header("www-authenticate") == "Bearer");
    }
    CHECK(rig.send("GET", "/health", {}, {{"authorization", given}})->status == 200);
  }
  CHECK(rig.send("GET", "/v1/models", {}, {{"authorization", "Bearer secret"}})->status == 200);
  CHECK(rig.send("GET", "/v1/models", {}, {{"authorization", "bearer secret"}})->status == 200);
}

TEST_CASE("a client's id comes back on every reply, a bad one is replaced") {
  gateway_rig rig;
  CHECK(
    rig.send("GET", "/health", {}, {{"x-request-id", "mine-1"}})->header("x-request-id")
    == "mine-1");
  CHECK(
    rig.send("GET", "/nowhere", {}, {{"x-request-id", "mine-1"}})->header("x-request-id")
    == "mine-1");
  CHECK(
    rig.send("GET", "/health", {}, {{"x-request-id", "not mine"}})->header("x-request-id").size()
    == 36);
  auto failed = rig.handler->error_reply(413, "too large");
  CHECK(failed.status == 413);
  CHECK(nlohmann::json::parse(failed.body)["error"]["code"] == "request_too_large");
  CHECK(failed.headers.at(1).first == "x-request-id");
}

TEST_CASE("metrics count what happened, under the names dashboards know") {
  gateway_rig rig;
  auto client = rig.chat("");
  rig.loop.time += std::chrono::milliseconds{30};
  rig.add(0, ids_of("a"));
  rig.deliver();
  rig.loop.time += std::chrono::milliseconds{7};
  rig.add(0, ids_of("b"));
  rig.deliver();
  auto running = rig.metrics.text(rig.loop.now());
  CHECK(running.find("gateway_current_requests 1\n") != std::string::npos);
  rig.give(0, {byte_tokenizer::eos}, finish_reason::stop);
  auto scraped = rig.send("GET", "/metrics");
  CHECK(
    scraped->header("content-type")
    == "text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
  auto open = rig.send("GET", "/metrics", "", {{"accept", "application/openmetrics-text"}});
  CHECK(
    open->header("content-type") == "application/openmetrics-text; version=1.0.0; charset=utf-8");
  for (const auto* line :
       {"# TYPE request counter\n", "request_total{model=\"modeled\",status_code=\"200\"} 1\n",
        "# TYPE request_input_tokens histogram\n", "# TYPE request_input_tokens_total unknown\n",
        "# UNIT request_ttft_milliseconds milliseconds\n",
        "request_itl_milliseconds_bucket{model=\"modeled\",le=\"10.0\"} 2\n", "\nmore 1\n"}) {
    CAPTURE(line);
    CHECK(open->body.find(line) != std::string::npos);
  }
  CHECK(open->body.ends_with("# EOF\n"));
  for (const auto* line :
       {"# TYPE request_total counter\n",
        "request_total{model=\"modeled\",status_code=\"200\"} 1\n",
        "request_input_tokens_total{model=\"modeled\"} 6\n",
        "request_output_tokens_total{model=\"modeled\"} 3\n",
        "request_ttft_milliseconds_sum{model=\"modeled\"} 30\n",
        "request_itl_milliseconds_bucket{model=\"modeled\",le=\"5\"} 1\n",
        "request_itl_milliseconds_bucket{model=\"modeled\",le=\"10\"} 2\n",
        "request_itl_milliseconds_count{model=\"modeled\"} 2\n",
        "request_tpot_milliseconds_sum{model=\"modeled\"} 3.5\n",
        "request_e2e_latency_seconds_bucket{model=\"modeled\",le=\"0.1\"} 1\n",
        "request_e2e_latency_seconds_bucket{model=\"modeled\",le=\"+Inf\"} 1\n",
        "request_preprocess_duration_milliseconds_count{model=\"modeled\"} 1\n",
        "request_output_tokens_count{model=\"modeled\"} 1\n", "gateway_current_requests 0\n",
        "\nmore 1\n"}) {
    CAPTURE(line);
    CHECK(scraped->body.find(line) != std::string::npos);
  }
  CHECK(client->status == 200);
}

} // namespace llumnix::testing
