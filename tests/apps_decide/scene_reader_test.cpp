#include "apps/decide/scene_reader.hpp"
#include "apps/decide/scene_writer.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <string>
#include <vector>

namespace llumnix {

namespace {

std::string problem_of(const std::string& text) {
  auto read = read_scene(text);
  return read.problem ? read.problem->path + ": " + read.problem->message : "";
}

/// A scene with one instance "i1" that has these members beside its id.
std::string with(const std::string& members) {
  return R"({"instances": [{"id": "i1", )" + members + "}]}";
}

} // namespace

TEST_CASE("what a scene does not know is named, with the name that was probably meant") {
  struct row {
    std::string text, path, message;
  };
  const std::vector<row> rows{
    {R"({"instnces": []})", "instnces", "did you mean instances?"},
    {R"({"config": {"falgs": {}}})", "config.falgs", "did you mean flags?"},
    {R"({"config": {"env": {"GO_HASHSEED": "0"}}})", "config.env.GO_HASHSEED", "GO_HASH_SEED"},
    {R"({"config": {"profiles": {"ttft": [{"tokens_num": 1, "p5": 2}]}}})",
     "config.profiles.ttft[0].p50", "is missing"},
    {R"({"config": {"step_model": {"a": 1, "samples": []}}})", "config.step_model", "give either"},
    {R"({"now_ms": 1e5})", "now_ms", ", written without exponent and fraction"},
    {with(R"("statu": {})"), "instances[0].statu", "did you mean status?"},
    {R"({"ask": "palce"})", "ask", "did you mean place?"},
    {R"({"last": {"nutral": "a"}})", "last.nutral", "did you mean neutral?"},
    {R"({"request": {"prompt_tokens": 3}})", "request.prompt_tokens", "nothing knows"},
    {with(R"("state": "redy")"), "instances[0].state", "did you mean ready?"},
    {with(R"("metadata": {"instance_type": "mixed"})"), "instances[0].metadata.instance_type",
     "neutral, prefill, decode"},
    {with(R"("status": {"num_used_gpu_token": 1})"), "instances[0].status.num_used_gpu_token",
     "did you mean num_used_gpu_tokens?"},
    {with(R"("metrics": {"freenes": 1})"), "instances[0].metrics.freenes", "freeness"},
    {with(R"("account": {"all": 1})"), "instances[0].account.all", "nothing knows"},
    {with(R"("dispatched": [{"num_tokens": 1}])"), "instances[0].dispatched[0].request_id",
     "is missing"},
    {with(R"("running": [{"id": "q", "priority": "hi"}])"), "instances[0].running[0].priority",
     "normal, high"},
    {R"({"instances": [{}]})", "instances[0].id", "is missing"},
    {R"({"instances": [{"id": "a"}, {"id": "a"}]})", "instances[1].id", "stands twice"},
    {R"({"instances": [{"id": "a", "reserved": "decode"}, {"id": "b", "reserved": "decode"}]})",
     "instances[1].reserved", "another instance"},
    {R"({"instances": [{"id": "a1"}], "request": {"prefix_hit_tokens": {"a2": 1}}})",
     "request.prefix_hit_tokens.a2", "did you mean a1?"},
    {R"({"request": {"prefix_hit_tokens": {}, "chunk_keys": []}})", "request.chunk_keys",
     "give either"},
    {with(R"("dispatched": [{"request_id": "q", "num_tokens": 600, "prefix_hit_tokens": 601}])"),
     "instances[0].dispatched[0].prefix_hit_tokens", "601 is above num_tokens, 600"},
    {with(R"("dispatched": [{"request_id": "q", "prefix_hit_tokens": 1}])"),
     "instances[0].dispatched[0].prefix_hit_tokens", "1 is above num_tokens, 0"},
    {with(R"("account": {"urgent_request": 1})"), "instances[0].account.urgent_request",
     "did you mean urgent_requests?"},
    {with(R"("adaptors": ["sql"])"), "instances[0].adaptors", "did you mean adapters?"},
    {R"({"instances": [{"id": "a1"}], "request": {"exclude": ["a1", "a2"]}})",
     "request.exclude[1]", "did you mean a1?"},
    {R"({"instances": [{"id": "a1"}],
         "request": {"session": "s", "session_last": {"neutral": "a2"}}})",
     "request.session_last.neutral", "did you mean a1?"},
    {R"({"request": {"session": "s", "session_last": {"nutral": "a"}}})",
     "request.session_last.nutral", "did you mean neutral?"},
    {R"({"instances": [{"id": "a1"}], "request": {"session_last": {"neutral": "a1"}}})",
     "request.session_last", "wants a session beside it"},
    {R"({"ask": "plan", "scale": {}})", "scale", "belongs to another ask"},
    {R"({"ask": "scale"})", "scale", "is missing"},
    {R"({"ask": "choose", "choose": {"instance": "a"}})", "choose.instance",
     "there is no instance"},
    {R"({"ask": "place", "ask": "plan"})", "ask", "is given twice"},
  };
  for (auto& [text, path, message] : rows) {
    CAPTURE(text);
    auto problem = read_scene(text).problem;
    REQUIRE(problem);
    CHECK(problem->path == path);
    CHECK_MESSAGE(problem->message.find(message) != std::string::npos, problem->message);
  }
}

TEST_CASE("a value of the wrong type or out of range is no value") {
  const std::vector<std::string> rows{
    with(R"("status": {"num_running_requests": 2147483648})"),
    with(R"("status": {"num_running_requests": -2147483649})"),
    with(R"("status": {"num_running_requests": 1.5})"),
    with(R"("status": {"num_running_requests": "1"})"),
    with(R"("status": {"num_running_requests": null})"),
    with(R"("status": {"timestamp_ms": 9223372036854775807})"),
    with(R"("status": {"schedulable": 1})"),
    with(R"("status": {"waiting_requests": ["a", 1]})"),
    with(R"("metrics": {"freeness": "nan"})"),
    with(R"("metrics": {"freeness": NaN})"),
    with(R"("metrics": {"freeness": 1e999})"),
    with(R"("dispatched": [{"request_id": "a", "num_tokens": -1}])"),
    with(R"("chunks": "k1")"),
    R"({"now_ms": 1e3})",
    R"({"now_ms": 99999999999999999999})",
    R"({"seed": -1})",
    R"({"request": {"prompt_num_tokens": 2147483648}})",
    R"({"request": {"prompt_token_ids": [4294967296]}})",
    R"({"request": {"prompt_token_ids": [-1]}})",
    R"({"request": {"ttft_slo_ms": 0}})",
    R"({"request": {"ttft_slo_ms": "inf"}})",
    R"({"request": {"tpot_slo_ms": 1.1e9}})",
    R"({"request": {"tpot_slo_ms": 1e-60}})",
    R"({"request": {"priority": 1.5}})",
    R"({"request": {"priority": "high"}})",
    R"({"request": {"priority": 2147483648}})",
    R"({"request": {"session": 7}})",
    R"({"request": {"adapter": ["sql"]}})",
    R"({"request": {"exclude": "i1"}})",
    with(R"("adapters": "sql")"),
    with(R"("account": {"low_tokens": 0.5})"),
    with(R"("dispatched": [{"request_id": "a", "priority": "low"}])"),
    R"({"ask": "predict", "predict": {"decode": [[1, 2, 3]]}})",
    R"({"config": {"profiles": {"ttft": []}}})",
    R"({"config": {"profiles": {"ttft": [{"tokens_num": -1, "p50": 1}]}}})",
    R"({"config": {"flags": []}})",
    R"({"instances": {"id": "a"}})",
    R"([])",
    R"("scene")",
    R"({"name": "a"} {})",
    "",
    "{\"name\": \"\xff\"}",
  };
  for (auto& text : rows) {
    CAPTURE(text);
    CHECK_FALSE(problem_of(text).empty());
  }
}

TEST_CASE("a hostile text costs no more than its size") {
  CHECK(problem_of(std::string(1000000, '[')).find("deep") != std::string::npos);
  std::string deep;
  for (int i = 0; i < 65; ++i)
    deep += R"({"config":)";
  CHECK(problem_of(deep).find("deep") != std::string::npos);
  std::string many = "[0";
  for (std::size_t i = 0; i < scene_values_max; ++i)
    many += ",0";
  CHECK(problem_of(many + "]").find("more than 4194304 values") != std::string::npos);
  CHECK(problem_of(std::string(scene_size_max + 1, ' ')).find("64 MiB") != std::string::npos);
}

TEST_CASE("the place of a syntax error is told, by line only where there are several") {
  CHECK(problem_of("{\"name\": }").starts_with(": column 10: "));
  CHECK(problem_of("{\n\"name\": }").starts_with(": line 2, column 9: "));
}

TEST_CASE("an instance that says nothing is neutral, ready, schedulable and fresh") {
  auto read = read_scene(R"({"now_ms": 5000, "instances": [{"id": "a"}]})");
  REQUIRE_FALSE(read.problem);
  auto& instance = read.value.instances.at(0);
  CHECK(instance.state == instance_state::ready);
  CHECK(instance.metadata.instance_type == "neutral");
  CHECK(instance.metadata.data_parallel_size == 1);
  CHECK(instance.status.schedulable);
  CHECK(instance.status.timestamp_ms == 5000);
  CHECK_FALSE(instance.names_out_slots);
  CHECK_FALSE(read.value.reservations_given);
}

TEST_CASE("the time in a status wins over its age") {
  auto written = [](const std::string& members) {
    return read_scene(R"({"now_ms": 5000, "instances": [{"id": "a", )" + members + "}]}")
      .value.instances.at(0)
      .status.timestamp_ms;
  };
  CHECK(written(R"("status_age_ms": 40)") == 4960);
  CHECK(written(R"("status_age_ms": -40)") == 5040);
  CHECK(written(R"("status_age_ms": 40, "status": {"timestamp_ms": 7})") == 7);
}

TEST_CASE("adapters are the same in any order") {
  auto read = read_scene(with(R"("adapters": ["sql", "legal", "sql"])"));
  REQUIRE_FALSE(read.problem);
  CHECK(read.value.instances.at(0).status.adapters == std::vector<std::string>{"legal", "sql"});
}

TEST_CASE("a scene with an error still says its name") {
  auto read = read_scene(R"({"name": "n", "asks": 1})");
  CHECK(read.problem);
  CHECK(read.value.name == "n");
}

TEST_CASE("a scene reads back as it was written") {
  scene full;
  full.name = "n";
  full.now = 100000;
  full.seed = std::numeric_limits<std::uint64_t>::max();
  full.config.flags = {{"scheduling-policy", "slo"}, {"ttft-slo", 0.1}};
  full.config.settings = {{"scheduler.dispatch_top_k", 2}};
  full.config.hash_seed = "";
  full.config.ttft = {{256, 0, 31.25}, {512, 0, 0.1}};
  full.config.tpot = {{4, 64, 7.5}};
  full.config.step_samples = {{300, 11.1}, {900, 23.5}};
  full.reservations_given = true;
  full.last = {{infer_type::decode, "gone"}};

  scene_instance instance;
  instance.metadata.instance_id = instance.status.instance_id = "i1";
  instance.state = instance_state::draining;
  instance.metadata.instance_type = "decode";
  instance.metadata.data_parallel_size = 0; // not its default
  instance.metadata.utc_create = 1.5;
  instance.status.schedulable = false;
  instance.status.timestamp_ms = 99000;
  instance.status.num_available_migrate_out_slots = 0;
  instance.status.profiling_id = -1;
  instance.status.waiting_requests = {"a", "b"};
  instance.status.step_duration = 0.1;
  instance.names_out_slots = true;
  instance.dispatched = {{"q1", infer_type::prefill, 600, 256, -20, true, -1}};
  instance.account = {{"num_tokens_inflight_dispatch_decode_requests", -7}, {"low_tokens", 3}};
  instance.status.adapters = {"legal", "sql"};
  instance.metrics = {{"freeness", -std::numeric_limits<double>::infinity()}, {"hit_ratio", 0.1}};
  instance.reserved = infer_type::decode;
  instance.chunks = {"k1"};
  instance.requests.running = {{"q7", 950, 40, true, true}};
  instance.requests.waiting.emplace(); // known to be empty
  full.instances.push_back(instance);
  full.instances.emplace_back().metadata.instance_id = "i2";
  full.instances.back().status.instance_id = "i2";

  full.request = scene_request{
    "r",
    "m",
    "g",
    "pd_staged",
    "decode",
    700,
    {1, 4294967295},
    250.5,
    {},
    {},
    std::vector<std::string>{},
    "s",
    {{infer_type::prefill, "i2"}, {infer_type::decode, "i1"}},
    -3,
    "sql",
    {"i2", "i1"}};

  std::vector<scene> scenes{full, scene{}};
  full.request->chunk_keys.reset();
  full.request->hit_tokens.emplace();
  full.config.step_samples.reset();
  full.config.step_model = step_coefficients{0, 0.02, 4};
  full.ask = scene_question::choose;
  full.choose = scene_choice{"i1", "TOKEN", {}, -1};
  scenes.push_back(full);
  full.ask = scene_question::scale;
  full.choose.reset();
  full.scale = scene_scale{-std::numeric_limits<double>::infinity(), 50, 1, 8};
  scenes.push_back(full);
  full.ask = scene_question::predict;
  full.scale.reset();
  full.predict = scene_predict{{{700.5}}, {{{6, 3000}}}, {}};
  scenes.push_back(full);
  for (auto& written : scenes) {
    auto text = write_scene(written).dump();
    CAPTURE(text);
    auto read = read_scene(text);
    CHECK(problem_of(text) == "");
    CHECK((read.value == written));
  }
}

} // namespace llumnix
