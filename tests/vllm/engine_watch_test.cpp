#include "watch_rig.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <utility>

namespace llumnix::testing {
namespace {

const std::string first_look
  = "/health /metrics /v1/models /version /inference/v1/abort_requests /inference/v1/generate";

} // namespace

TEST_CASE("a vLLM is told whole after the first look, and its load after each") {
  watch_rig rig;
  rig.pass(100ms);
  CHECK(rig.paths() == first_look);
  REQUIRE(rig.reports.size() == 1);
  const auto report = rig.last();
  CHECK(report.id == "a");
  CHECK(report.ready);
  CHECK_FALSE(report.lost);
  CHECK(report.kind == "vLLM 0.32.0");
  CHECK(report.token_ids);
  CHECK_FALSE(report.aborts);
  CHECK(report.tokens == false);
  CHECK(report.max_model_len == 4096);
  CHECK(report.model_ids == std::vector<std::string>{"tiny"});
  REQUIRE(report.models.size() == 1);
  CHECK(report.models[0].starts_with("{\"id\":\"tiny\",\"object\":\"model\",\"created\":1,"));
  CHECK(report.models[0].ends_with("\"permission\":[]}"));
  instance_status expected;
  expected.schedulable = true;
  expected.update_id = 1;
  expected.num_running_requests = 3;
  expected.scheduler_running_to_decode_requests_num = 3;
  expected.num_waiting_requests = 2;
  expected.num_total_gpu_tokens = 1600;
  expected.num_used_gpu_tokens = 400;
  CHECK(report.status == expected);

  rig.pass(1s);
  CHECK(rig.paths() == "/health /metrics");
  CHECK(rig.reports.size() == 2); // though nothing is new
  CHECK(rig.last().status.update_id == 1);
  rig.engine().answers["/metrics"].body = "vllm:num_requests_running 9\n";
  rig.pass(1s);
  CHECK(rig.last().status.num_running_requests == 9);
  CHECK(rig.last().status.num_waiting_requests == 2); // as last told
  CHECK(rig.last().status.update_id == 2);
  CHECK(rig.pool.most_open == 1);
}

TEST_CASE("questions are what an engine expects") {
  watch_rig rig;
  rig.pass(100ms);
  REQUIRE(rig.pool.questions.size() == 6);
  for (const auto& question : rig.pool.questions) {
    CAPTURE(question.target);
    bool aborts = question.target == "/inference/v1/abort_requests";
    bool posts = aborts || question.target == "/inference/v1/generate";
    CHECK(question.address == "a");
    CHECK(question.method == (posts ? "POST" : "GET"));
    CHECK(question.body == (aborts ? "{\"request_ids\":[]}" : posts ? "{}" : ""));
    CHECK(question.headers.size() == (posts ? 2 : 1));
  }
}

TEST_CASE("an engine is what it says it is") {
  const auto models = [](const std::string& owner) {
    return scripted_answer{200, "{\"data\":[{\"id\":\"m\",\"owned_by\":\"" + owner + "\"}]}"};
  };
  const scripted_answer none{404, "{\"detail\":\"Not Found\"}"};
  const auto version = [](const std::string& text) {
    return scripted_answer{200, "{\"version\":\"" + text + "\"}"};
  };
  struct row {
    const char* what;
    scripted_answer models, version, aborts;
    std::string kind;
    bool token_ids, can_abort;
  };
  for (const auto& [what, listed, told, aborts, kind, token_ids, can_abort] : {
         row{
           "vLLM that scales out",
           models("vllm"),
           version("0.32.0"),
           {200, ""},
           "vLLM 0.32.0",
           true,
           true},
         row{"an old vLLM", models("vllm"), version("0.9.1"), none, "vLLM 0.9.1", false, false},
         row{
           "vLLM from its sources",
           models("vllm"),
           version("dev"),
           {422, ""},
           "vLLM dev",
           true,
           true},
         row{"vLLM without a version", models("vllm"), none, {400, ""}, "vLLM", false, true},
         row{"SGLang", models("sglang"), none, {405, ""}, "SGLang", false, false},
         row{
           "SGLang with a version", models("sglang"), version("0.5"), none, "SGLang 0.5", false,
           false},
         row{"another", models("me"), none, {403, ""}, "OpenAI-compatible", false, false},
         row{"without models", none, none, none, "OpenAI-compatible", false, false},
         row{
           "bad models",
           {200, "{\"data\":"},
           version("1.0"),
           none,
           "OpenAI-compatible 1.0",
           false,
           false},
         row{
           "models of another shape",
           {200, "[]"},
           {200, "[]"},
           {302, ""},
           "OpenAI-compatible",
           false,
           false},
         row{
           "web pages everywhere",
           {200, "<html>"},
           {200, "<html>"},
           {200, "<html>"},
           "OpenAI-compatible",
           false,
           true},
         row{
           "keys wanted", {401, "{}"}, {401, "{}"}, {401, "{}"}, "OpenAI-compatible", false, false},
       }) {
    CAPTURE(what);
    watch_rig rig;
    rig.engine().answers["/v1/models"] = listed;
    rig.engine().answers["/version"] = told;
    rig.engine().answers["/inference/v1/abort_requests"] = aborts;
    rig.pass(10s);
    CHECK(rig.last().ready);
    CHECK(rig.last().kind == kind);
    CHECK(rig.last().token_ids == token_ids);
    CHECK(rig.last().aborts == can_abort);
    CHECK(rig.last().models.size() == rig.last().model_ids.size());
    for (const auto* path : {"/v1/models", "/version", "/inference/v1/abort_requests"})
      CHECK(rig.count(path) == 1);
    CHECK(rig.count("/health") == 10);
  }
}

TEST_CASE("an engine has a way for token ids in and out where it finds a request of none wrong") {
  struct row {
    const char* what;
    int status;
    bool tokens;
  };
  for (auto [what, status, tokens] :
       {row{"vLLM that scales out", 400, true}, row{"vLLM of old that does", 422, true},
        row{"vLLM that does not", 403, false}, row{"one without it", 404, false},
        row{"another method there", 405, false}, row{"anything is fine", 200, false},
        row{"elsewhere", 302, false}, row{"a key is wanted", 401, false}}) {
    CAPTURE(what);
    watch_rig rig;
    rig.engine().answers["/inference/v1/generate"] = {status, "{}"};
    rig.pass(10s);
    CHECK(rig.last().tokens == tokens);
    CHECK(rig.count("/inference/v1/generate") == 1);
  }
}

TEST_CASE("what an engine is and can is said in a few words") {
  engine_report report;
  CHECK(describe_engine(report).empty()); // not known yet
  report.kind = "SGLang";
  CHECK(describe_engine(report) == "SGLang (text only)");
  report.aborts = true;
  CHECK(describe_engine(report) == "SGLang (text only, abort)");
  report.kind = "vLLM 0.32.0";
  report.token_ids = true;
  CHECK(describe_engine(report) == "vLLM 0.32.0 (token ids, abort)");
  report.tokens = true;
  CHECK(describe_engine(report) == "vLLM 0.32.0 (token ids, abort, generate)");
  report.tokens = false;
  report.wants_key = true;
  CHECK(
    describe_engine(report)
    == "vLLM 0.32.0 (token ids, abort; answers 401, see gateway.engine_key)");
  report = {};
  report.trouble = "answers 503";
  CHECK(describe_engine(report) == "answers 503");
  report.kind = "SGLang";
  CHECK(describe_engine(report) == "SGLang (text only); answers 503");
  report.ready = true;
  CHECK(describe_engine(report) == "SGLang (text only)");
}

TEST_CASE("an engine's key goes with every question") {
  watch_rig rig{{.key = "its-own"}};
  rig.pass(100ms);
  REQUIRE(rig.pool.questions.size() == 6);
  for (const auto& question : rig.pool.questions)
    CHECK(
      std::ranges::count(
        question.headers, std::pair<std::string, std::string>{"authorization", "Bearer its-own"})
      == 1);
}

TEST_CASE("an engine that wants a key is said to, and what it tells without one stands") {
  watch_rig rig;
  auto models = std::exchange(rig.engine().answers["/v1/models"], {401, "{}"});
  rig.pass(100ms);
  CHECK(rig.last().ready);
  CHECK(rig.last().wants_key);
  CHECK(rig.last().kind == "OpenAI-compatible 0.32.0");
  CHECK_FALSE(rig.last().token_ids);
  CHECK(rig.last().status.num_running_requests == 3);
  rig.engine().answers["/v1/models"] = models; // it was started anew, without
  CHECK(rig.pass_until([&] { return rig.last().token_ids; }, 11s));
  CHECK_FALSE(rig.last().wants_key);
  rig.engine().answers["/health"] = {401, "{}"};
  rig.pass(2s);
  CHECK_FALSE(rig.last().ready);
  CHECK(rig.last().trouble == "answers 401, see gateway.engine_key");
}

TEST_CASE("models are asked for again and again, and at once when somebody misses one") {
  watch_rig rig;
  rig.pass(100ms);
  rig.engine().answers["/v1/models"].body
    = R"({"data":[{"id":"tiny","owned_by":"vllm","max_model_len":4096},{"id":"lora"}]})";
  rig.pass(9s);
  CHECK(rig.count("/v1/models") == 1);
  rig.pass(2s);
  CHECK(rig.count("/v1/models") == 2);
  CHECK(rig.last().model_ids == std::vector<std::string>{"tiny", "lora"});
  CHECK(rig.last().kind == "vLLM 0.32.0");
  rig.engine().answers["/v1/models"] = {503, ""}; // what was told stands
  rig.pass(30s);
  CHECK(rig.count("/v1/models") == 5);
  CHECK(rig.last().model_ids.size() == 2);

  rig.engine().answers["/v1/models"] = {200, R"({"data":[{"id":"other"}]})"};
  CHECK_FALSE(rig.watch->asks_models());
  rig.watch->ask_models();
  CHECK(rig.watch->asks_models());
  rig.pass(200ms);
  CHECK_FALSE(rig.watch->asks_models());
  CHECK(rig.last().model_ids == std::vector<std::string>{"other"});
  // What is being answered may have been read before somebody missed it.
  rig.engine().answers["/v1/models"].after = 150ms;
  rig.watch->ask_models();
  rig.pass(100ms);
  rig.watch->ask_models();
  auto before = rig.count("/v1/models");
  rig.pass(100ms);
  CHECK(rig.watch->asks_models());
  CHECK(rig.pass_until([&] { return !rig.watch->asks_models(); }, 1s));
  CHECK(rig.count("/v1/models") == before + 1);
  // Nobody waits for an engine that takes no work.
  rig.engine().now = scripted_engine::mood::absent;
  rig.watch->ask_models();
  CHECK(rig.pass_until([&] { return !rig.watch->asks_models(); }, 1s));
}

TEST_CASE("metrics that are missing or mad leave an engine well") {
  const scripted_answer bad_rows[] = {
    {404, "{}"},
    {500, ""},
    {200, "<html>"},
    {200, ""},
    {200, std::string(5 << 20, '#')},
    {200, "vllm:num_requests_running{\n"},
    {200, "", errc::disconnected},
    {200, "", errc::bad_message},
    {200, "", errc::unreachable}};
  for (const auto& bad : bad_rows) {
    CAPTURE(bad.status);
    CAPTURE(bad.body.substr(0, 30));
    watch_rig rig;
    auto good = std::exchange(rig.engine().answers["/metrics"], bad);
    rig.pass(3s);
    CHECK(rig.last().ready);
    CHECK(rig.last().kind == "vLLM 0.32.0");
    CHECK(rig.last().status.num_running_requests == 0);
    CHECK(rig.reports.size() == 3);
    rig.engine().answers["/metrics"] = good;
    rig.pass(1s);
    CHECK(rig.last().status.num_running_requests == 3);
    rig.engine().answers["/metrics"] = bad;
    rig.pass(3s);
    CHECK(rig.last().status.num_running_requests == 3); // as last told
  }
}

TEST_CASE("without /health the list of models decides") {
  watch_rig rig;
  rig.engine().answers.erase("/health");
  rig.pass(100ms);
  CHECK(
    rig.paths()
    == "/health /v1/models /metrics /version /inference/v1/abort_requests /inference/v1/generate");
  CHECK(rig.last().ready);
  CHECK(rig.last().kind == "vLLM 0.32.0");
  rig.pass(1s);
  CHECK(rig.paths() == "/health /v1/models /metrics");
  for (int status : {404, 500, 401}) {
    CAPTURE(status);
    rig.engine().answers["/v1/models"].status = status;
    rig.pass(6s);
    CHECK_FALSE(rig.last().ready);
    rig.engine().answers["/v1/models"].status = 200;
    CHECK(rig.pass_until([&] { return rig.ready(); }, 6s));
  }
}

TEST_CASE("what an engine does not say is asked three times, and then now and then") {
  struct row {
    const char* what;
    scripted_answer answer;
  };
  for (const auto& [what, answer] :
       {row{"not now", {503, ""}}, row{"too often", {429, ""}},
        row{"cut", {200, "{", errc::disconnected}}, row{"closed", {0, "", errc::unreachable}},
        row{"too long", {200, std::string(2 << 20, ' ')}}, row{"late", {200, "", errc::ok, 60s}}}) {
    CAPTURE(what);
    watch_rig rig;
    const auto* tokens = "/inference/v1/generate";
    for (const auto* path : {"/v1/models", "/version", "/inference/v1/abort_requests", tokens})
      rig.engine().answers[path] = answer;
    CHECK(rig.pass_until([&] { return rig.ready(); }, 10s));
    CHECK(rig.last().kind.empty());
    CHECK_FALSE(rig.last().tokens.has_value());
    rig.pass(60s);
    for (const auto* path : {"/v1/models", "/version", "/inference/v1/abort_requests", tokens}) {
      CHECK(rig.count(path) > 3);
      CHECK(rig.count(path) <= 3 + 6);
    }
    CHECK(rig.last().tokens == false);
    CHECK(rig.last().kind == "OpenAI-compatible");
  }
}

TEST_CASE("an answer that came late is taken") {
  watch_rig rig;
  auto models = std::exchange(rig.engine().answers["/v1/models"], {503, ""});
  rig.pass(100ms);
  CHECK(rig.last().kind.empty());
  rig.engine().answers["/v1/models"] = models;
  rig.pass(1s);
  CHECK(rig.last().kind == "vLLM 0.32.0");
  CHECK(rig.last().token_ids);
  CHECK(rig.count("/version") == 1);
}

TEST_CASE("an engine whose metrics are slow is told of in time") {
  watch_rig rig;
  rig.pass(100ms);
  rig.engine().answers["/metrics"].after = 1900ms;
  rig.pass(20s);
  for (std::size_t i = 1; i < rig.told_at.size(); ++i)
    CHECK(rig.told_at[i] - rig.told_at[i - 1] <= 1300ms);
  CHECK(rig.last().ready);
  CHECK(rig.pool.most_open == 1);
}

TEST_CASE("a suspicion looks at once, at most ten times a second") {
  watch_rig rig;
  rig.pass(500ms);
  rig.watch->suspect("nobody");
  CHECK(rig.count("/health") == 1);
  rig.watch->suspect("a");
  CHECK(rig.count("/health") == 2);
  for (int i = 0; i < 1000; ++i) {
    rig.watch->suspect("a");
    rig.pool.deliver();
    rig.loop.run_posted();
    rig.loop.time += 1ms;
    if (i % 100 == 0)
      rig.watch->tick();
  }
  CHECK(rig.count("/health") >= 10);
  CHECK(rig.count("/health") <= 12);

  rig.pass(5s);
  rig.engine().now = scripted_engine::mood::absent;
  rig.watch->suspect("a");
  rig.pool.deliver();
  rig.loop.run_posted();
  CHECK_FALSE(rig.last().ready);
}

TEST_CASE("a suspicion during a look is looked into after it") {
  watch_rig rig;
  rig.pass(100ms);
  rig.engine().answers["/health"].after = 300ms;
  rig.pass(1100ms); // in the second look
  REQUIRE(rig.count("/health") == 2);
  rig.watch->suspect("a");
  rig.pass(400ms);
  CHECK(rig.count("/health") == 3);
  CHECK(rig.pool.most_open == 1);
}

TEST_CASE("nothing is heard of a watch that is gone") {
  for (bool answered : {false, true}) {
    CAPTURE(answered);
    watch_rig rig{{}, {"a", "b"}};
    rig.watch->tick();
    CHECK(rig.pool.connections() == 2);
    if (answered)
      rig.pool.deliver();
    rig.watch.reset();
    CHECK(rig.pool.connections() == 0);
    rig.loop.time += 1min;
    rig.pool.deliver();
    rig.loop.run_posted();
    CHECK(rig.reports.empty());
    CHECK(rig.pool.questions.size() == 2);
  }
}

TEST_CASE("engines are watched apart") {
  watch_rig rig{{}, {"a", "b", "c"}};
  rig.engine("a").now = scripted_engine::mood::absent;
  rig.engine("b").now = scripted_engine::mood::silent;
  rig.pass(20s);
  CHECK_FALSE(rig.last("a").ready);
  CHECK_FALSE(rig.last("b").ready);
  CHECK(rig.last("c").ready);
  CHECK(rig.pool.most_open == 1);
}

TEST_CASE("engines come, are renamed and go while others are watched") {
  watch_rig rig{{}, {"a"}};
  rig.engine("b") = make_vllm();
  rig.pass(100ms);
  rig.watch->add("b", "b");
  rig.pass(100ms);
  CHECK(rig.last("b").ready);

  rig.watch->rename("b", "b, once");
  rig.watch->rename("nobody", "x");
  rig.pass(1s);
  CHECK(rig.last("b, once").ready);
  CHECK(rig.last("b, once").kind == "vLLM 0.32.0"); // it was not asked anew
  CHECK(rig.count("/version") == 2);

  SUBCASE("another engine has the name") {
    rig.engine("c") = make_vllm("0.9.0");
    rig.watch->add("b", "c");
    rig.pass(100ms);
    CHECK(rig.last("b").kind == "vLLM 0.9.0");
    rig.watch->add("b", "b"); // and yet another
    rig.pass(100ms);
    CHECK(rig.last("b").kind == "vLLM 0.32.0");
    CHECK(rig.last("b").status.update_id == 1);
  }
  SUBCASE("it is told of no more") {
    rig.engine("b").now = scripted_engine::mood::silent;
    rig.pass(1s);
    auto before = rig.reports.size();
    rig.watch->remove("b, once"); // a question to it is open
    rig.watch->remove("b, once");
    rig.pass(3s);
    for (auto i = before; i < rig.reports.size(); ++i)
      CHECK(rig.reports[i].id == "a");
    CHECK(rig.reports.size() > before);
    CHECK(rig.pool.most_open == 1);
  }
}

TEST_CASE("an engine that was locked, or whose pages were not there yet, is asked again") {
  for (int status : {401, 404}) {
    CAPTURE(status);
    watch_rig rig;
    auto version = std::exchange(rig.engine().answers["/version"], {status, "{}"});
    rig.pass(30s);
    CHECK(rig.last().kind == "vLLM");
    CHECK(rig.count("/version") <= 6);
    rig.engine().answers["/version"] = version;
    CHECK(rig.pass_until([&] { return rig.last().token_ids; }, 11s));
    CHECK_FALSE(rig.last().wants_key);
  }
}

TEST_CASE("what an engine did not say when it started it is asked for now and then") {
  watch_rig rig;
  auto version = std::exchange(rig.engine().answers["/version"], {503, ""});
  rig.pass(5s);
  CHECK(rig.count("/version") == 3);
  CHECK(rig.last().kind == "vLLM");
  CHECK_FALSE(rig.last().token_ids);
  rig.pass(30s);
  CHECK(rig.count("/version") <= 6);
  rig.engine().answers["/version"] = version;
  CHECK(rig.pass_until([&] { return rig.last().token_ids; }, 11s));
  CHECK(rig.last().kind == "vLLM 0.32.0");
  auto asked = rig.count("/version");
  rig.pass(30s);
  CHECK(rig.count("/version") == asked);
}

} // namespace llumnix::testing
