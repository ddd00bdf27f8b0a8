#include "apps/decide/decide_scene.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace llumnix {

namespace {

using json = nlohmann::json;

json answer_to(const json& scene) {
  return json::parse(write_answer(decide(scene.dump())).dump());
}

/// A scene of one instance "i1", asked one thing.
json one(const json& members, const json& asked) {
  json instance{{"id", "i1"}};
  instance.update(members);
  json scene = asked;
  scene["instances"] = json::array({instance});
  return scene;
}

const json two_instances = json::parse(R"({
  "name": "two",
  "instances": [
    {"id": "i2", "status": {"num_uncomputed_tokens_all_waiting_prefills": 900}},
    {"id": "i1", "status": {"num_uncomputed_tokens_all_waiting_prefills": 500},
     "dispatched": [{"request_id": "q", "num_tokens": 200}]}],
  "request": {"id": "r", "scheduling_mode": "neutral", "prompt_num_tokens": 600}})");

} // namespace

TEST_CASE("place: the least load wins, what was sent to it included") {
  auto answer = answer_to(two_instances);
  CHECK(answer["name"] == "two");
  CHECK(answer["outcome"] == "placed");
  CHECK(answer["http_status"] == 200);
  CHECK(answer["placement"] == json::parse(R"([{"infer_type": "neutral", "instance": "i1"}])"));
  auto& stage = answer["stages"].at(0);
  CHECK(stage["for"] == "neutral");
  CHECK(stage["considered"] == json::parse(R"(["i1", "i2"])"));
  CHECK(stage["fallback"] == false);
  CHECK(stage["dropped"].empty());
  CHECK(stage["metrics"]["i1"]["all_prefills_tokens_num"] == 700);
  CHECK(stage["scores"] == json::parse(R"({"i1": 700, "i2": 900})"));
  CHECK(stage["winner"] == "i1");
  CHECK_FALSE(answer["reason"].get<std::string>().empty());
}

TEST_CASE("place: of what was sent, an urgent request counts what goes before it") {
  auto scene = json::parse(R"({
    "config": {"set": {"scheduler.full_mode": false, "scheduler.priority_aware": true}},
    "instances": [
      {"id": "a", "dispatched": [{"request_id": "p", "num_tokens": 600, "priority": 1}]},
      {"id": "b", "dispatched": [{"request_id": "q", "num_tokens": 200}]}],
    "request": {"id": "r", "scheduling_mode": "neutral", "prompt_num_tokens": 10}})");
  auto winner = [&] { return answer_to(scene)["stages"][0]["winner"]; };
  CHECK(winner() == "a");
  scene["request"]["priority"] = 1;
  CHECK(winner() == "b");
  scene["instances"][0]["account"] = {{"low_tokens", 0}};
  scene["request"]["priority"] = 0;
  CHECK(winner() == "b");
}

TEST_CASE("place: numbers read back to the very float that was compared") {
  auto scene = two_instances;
  scene["config"]["flags"] = {
    {"dispatch-neutral-load-metric", "kv_cache_usage_ratio_projected"},
    {"dispatch-neutral-load-threshold", 0.9}};
  scene["instances"][0]["metrics"] = {{"kv_cache_usage_ratio_projected", 0.95}};
  scene["instances"][1]["metrics"] = {{"kv_cache_usage_ratio_projected", "inf"}};
  auto stage = answer_to(scene)["stages"].at(0);
  CHECK(stage["fallback"] == true);
  CHECK(stage["winner"] == "i2");
  CHECK(stage["dropped"].at(0)["value"] == "inf");
  CHECK(
    stage["dropped"].at(1)
    == json(
      {{"instance", "i2"},
       {"pass", 1},
       {"filter", "metric"},
       {"metric", "kv_cache_usage_ratio_projected"},
       {"value", static_cast<double>(0.95f)},
       {"threshold", static_cast<double>(0.9f)}}));
}

TEST_CASE("place: a refusal is an answer with its reason") {
  struct row {
    json request;
    std::string reason;
  };
  const std::vector<row> rows{
    {{{"scheduling_mode", "pd_batch"}}, "role"},
    {{{"scheduling_mode", "pd_staged"}, {"scheduling_stage", "both"}},
     "neither prefill nor decode"},
    {{{"scheduling_mode", "nutral"}}, "none of neutral, pd_batch, pd_staged"},
  };
  for (auto& [request, reason] : rows) {
    auto scene = two_instances;
    scene["request"] = request;
    auto made = decide(scene.dump());
    auto answer = json::parse(write_answer(made).dump());
    CAPTURE(answer.dump());
    CHECK(is_refusal(made));
    CHECK(answer["outcome"] == "refused");
    CHECK(answer["http_status"] == 429);
    CHECK(answer["placement"].empty());
    CHECK(answer["stages"].empty());
    CHECK(answer["reason"].get<std::string>().find(reason) != std::string::npos);
  }
}

TEST_CASE("place: an instance that is draining, and unschedulable too, is dropped once") {
  auto scene = two_instances;
  scene["instances"][1]["state"] = "draining";
  scene["instances"][1]["status"]["schedulable"] = false;
  auto dropped = answer_to(scene)["stages"].at(0)["dropped"];
  REQUIRE(dropped.size() == 1); // and its failover domain, which is itself, is not
  CHECK(dropped.at(0)["filter"] == "schedulability");
}

TEST_CASE("place: what a store says counts where prefixes are looked up") {
  auto scene = two_instances;
  scene["config"]["flags"]
    = {{"enable-cache-aware-scheduling", true}, {"cache-aware-scheduling-min-tokens", 600}};
  scene["request"]["prefix_hit_tokens"] = {{"i2", 512}};
  // i1: 600 missing and 500 + 200 waiting; i2: 88 missing and 900 waiting.
  auto stage = answer_to(scene)["stages"].at(0);
  CHECK(stage["scores"] == json::parse(R"({"i1": 1300, "i2": 988})"));
  CHECK(stage["winner"] == "i2");

  scene["request"].erase("prefix_hit_tokens");
  scene["config"]["flags"]["kvs-chunk-size"] = 300;
  scene["request"]["chunk_keys"] = {"k1", "k2"};
  scene["instances"][0]["chunks"] = {"k2"}; // not from the first on
  scene["instances"][1]["chunks"] = {"k1"};
  CHECK(answer_to(scene)["stages"].at(0)["scores"] == json::parse(R"({"i1": 1000, "i2": 1500})"));
}

TEST_CASE("place: what a store says and nobody looks at is named in a warning") {
  auto warnings = [](const char* ask, int tokens, bool cache_aware, const json& said) {
    auto scene = one(json::object(), {{"ask", ask}});
    scene["config"]["flags"]["enable-cache-aware-scheduling"] = cache_aware;
    scene["request"] = {
      {"id", "r"}, {"scheduling_mode", "neutral"}, {"prompt_num_tokens", tokens}};
    scene["request"].update(said);
    return answer_to(scene).value("warnings", json::array());
  };
  const json hits{{"prefix_hit_tokens", {{"i1", 512}}}}, keys{{"chunk_keys", {"k"}}};
  const json none = json::array();
  const json few{
    "request.prefix_hit_tokens is passed over: 700 tokens of the prompt are fewer than "
    "cache-aware-scheduling-min-tokens, 1024"};
  CHECK(warnings("place", 2048, true, hits) == none);
  CHECK(warnings("place", 700, true, hits) == few);
  CHECK(warnings("metrics", 700, true, hits) == few);
  CHECK(warnings("place", 700, true, json::object()) == none);
  CHECK(
    warnings("place", 2048, false, hits)
    == json{"request.prefix_hit_tokens is passed over: enable-cache-aware-scheduling is off"});
  CHECK(
    warnings("place", 2048, false, keys)
    == json{"request.chunk_keys is passed over: enable-cache-aware-scheduling is off"});
}

TEST_CASE("place: the answer tells what decided, which need not be what was compared first") {
  // Instances "ID METRIC..." of adaptive PD, or with prefill tokens that wait there.
  auto adaptive = [](const char* stage, const json& instances) {
    json scene{
      {"config", {{"flags", {{"scheduling-policy", "slo"}, {"enable-adaptive-pd", true}}}}},
      {"request",
       {{"id", "r"}, {"scheduling_mode", "pd_staged"}, {"scheduling_stage", stage}}},
      {"instances", json::array()}};
    for (auto& [id, tpot, backlog, reserved] :
         instances.get<std::vector<std::tuple<std::string, double, double, std::string>>>())
      scene["instances"].push_back(
        {{"id", id},
         {"metadata", {{"instance_type", id == "a" ? "prefill" : "decode"}}},
         {"metrics", {{"predicted_ttft", backlog}, {"predicted_tpot", tpot}}},
         {"reserved", reserved}});
    return scene;
  };
  auto loaded = [](const json& config, const std::map<std::string, int>& waiting) {
    json scene{
      {"seed", 2},
      {"config", config},
      {"request", {{"id", "r"}, {"scheduling_mode", "neutral"}, {"prompt_num_tokens", 2048}}},
      {"instances", json::array()}};
    for (auto& [id, tokens] : waiting)
      scene["instances"].push_back(
        {{"id", id}, {"status", {{"num_uncomputed_tokens_all_waiting_prefills", tokens}}}});
    return scene;
  };
  auto cached = loaded(
    {{"flags", {{"enable-cache-aware-scheduling", true}}}}, {{"a", 612}, {"b", 100}});
  cached["request"]["prefix_hit_tokens"] = {{"a", 512}};
  const json lite{{"enable-full-mode-scheduling", false}};
  auto ahead = loaded(
    {{"flags", lite},
     {"set", {{"scheduler.lora_affinity", true}, {"scheduler.priority_aware", true}}}},
    {{"a", 0}, {"b", 0}});
  ahead["request"]["adapter"] = "sql";
  ahead["instances"][0]["dispatched"] = {{{"request_id", "q"}, {"num_tokens", 2}}};
  auto in_turn = loaded({{"flags", lite}}, {{"a", 0}, {"b", 0}});
  in_turn["last"] = {{"neutral", "a"}};

  struct row {
    const char* what;
    json scene;
    std::string reason;
    const char* decided_by;
  };
  for (auto& [what, scene, reason, decided_by] :
       {row{
          "the first metric", loaded(json::object(), {{"a", 2}, {"b", 1}}),
          "neutral: b chosen by all_prefills_tokens_num",
          R"({"cause":"metric","metric":"all_prefills_tokens_num","value":1,"against":2,"next":"a"})"},
        row{
          "nothing", loaded(json::object(), {{"a", 1}, {"b", 1}}),
          "neutral: a chosen: the lowest id of those equal in all_prefills_tokens_num",
          R"({"cause":"lowest_id","next":"b"})"},
        row{
          "nobody else", loaded(json::object(), {{"a", 1}}), "neutral: a chosen: the only candidate",
          R"({"cause":"alone"})"},
        row{
          "the second metric", cached,
          "neutral: b chosen by all_prefills_tokens_num, 100 against 612 of a: equal in "
          "cache_aware_all_prefills_tokens_num",
          R"({"cause":"metric","metric":"all_prefills_tokens_num","value":100,"against":612,"next":"a"})"},
        row{
          "load behind an adapter", ahead,
          "neutral: b chosen by num_tokens_ahead, 0 against 2 of a: equal in adapter_miss",
          R"({"cause":"metric","metric":"num_tokens_ahead","value":0,"against":2,"next":"a"})"},
        row{
          "whose turn it is", in_turn,
          "neutral: b chosen: its turn among those equal in num_tokens",
          R"({"cause":"turn","next":"a"})"},
        row{
          "a draw among the best",
          loaded({{"flags", {{"dispatch-top-k", 2}}}}, {{"a", 0}, {"b", 1}, {"c", 2}}),
          "neutral: b chosen: drawn among the best 2: a, b",
          R"({"cause":"drawn","next":"a","drawn_among":2,"drawn":["a","b"]})"},
        row{
          "the better of two drawn",
          loaded(
            {{"set", {{"scheduler.power_of_two", true}}}}, {{"a", 0}, {"b", 8}, {"c", 30}}),
          "neutral: b chosen by all_prefills_tokens_num; b and c were drawn",
          R"({"cause":"metric","metric":"all_prefills_tokens_num","value":8,"against":30,"next":"c",
              "drawn_among":3,"drawn":["b","c"]})"},
        row{
          "no rule that compares",
          loaded({{"flags", {{"scheduling-policy", "flood"}}}}, {{"a", 5}, {"b", 1}}),
          "neutral: a chosen by flood", R"({"cause":"policy"})"},
        row{
          "the reservation for decode",
          adaptive("decode", {{"a", 30, 1, ""}, {"b", 42, 1, ""}, {"d", 1, 1, "decode"}}),
          "decode: d chosen: it is reserved for decode",
          R"({"cause":"reserved","reserved":"decode","next":"b"})"},
        row{
          "the fullest below the limit",
          adaptive("decode", {{"a", 30, 1, ""}, {"b", 42, 1, ""}, {"d", 43, 1, "decode"}}),
          "decode: b chosen by predicted_tpot",
          R"({"cause":"metric","metric":"predicted_tpot","value":42,"against":30,"next":"a"})"},
        row{
          "the reservation for prefill, of equals",
          adaptive("prefill", {{"a", 1, 5, ""}, {"b", 1, 5, "prefill"}, {"d", 1, 1, "decode"}}),
          "prefill: b chosen: it is reserved for prefill",
          R"({"cause":"reserved","reserved":"prefill","next":"a"})"},
        row{
          "the smaller backlog, of equals past the limits",
          adaptive("decode", {{"a", 30, 200, ""}, {"b", 30, 100, ""}, {"d", 60, 1, "decode"}}),
          "decode: b chosen by predicted_ttft, 100 against 200 of a: equal in predicted_tpot; every "
          "healthy candidate is above the load limit",
          R"({"cause":"metric","metric":"predicted_ttft","value":100,"against":200,"next":"a"})"}}) {
    CAPTURE(what);
    auto answer = answer_to(scene);
    CHECK(answer["reason"] == reason);
    REQUIRE(answer["stages"].size() == 1);
    CHECK(answer["stages"][0]["decided_by"] == json::parse(decided_by));
  }
}

TEST_CASE("place: who is reserved for another role is told so") {
  auto scene = json::parse(R"({
    "config": {"flags": {"scheduling-policy": "slo", "enable-adaptive-pd": true}},
    "instances": [
      {"id": "a", "metadata": {"instance_type": "prefill"}, "reserved": "decode",
       "metrics": {"predicted_ttft": 1, "predicted_tpot": 1}},
      {"id": "b", "metadata": {"instance_type": "decode"},
       "metrics": {"predicted_ttft": 2, "predicted_tpot": 1}}],
    "request": {"id": "r", "scheduling_mode": "pd_staged", "scheduling_stage": "prefill"}})");
  auto stage = answer_to(scene)["stages"][0];
  CHECK(stage["winner"] == "b");
  CHECK(
    stage["dropped"]
    == json::parse(
      R"([{"instance":"a","pass":1,"filter":"attribute","reserved":"decode"}])"));
}

TEST_CASE("place: a predicted value that nothing tells is asked for") {
  auto scene = json::parse(R"({
    "config": {"flags": {"scheduling-policy": "slo"}},
    "instances": [{"id": "p", "metadata": {"instance_type": "prefill"}},
                  {"id": "d", "metadata": {"instance_type": "decode"}}],
    "request": {"scheduling_mode": "pd_batch", "prompt_num_tokens": 100}})");
  CHECK(answer_to(scene)["error"]["path"] == "config.profiles.ttft");
  scene["instances"][0]["metrics"] = {{"predicted_ttft", 100}};
  scene["instances"][1]["metrics"] = {{"predicted_tpot", 42.5}}; // 50 x 0.85 is not below 42.5
  auto answer = answer_to(scene);
  CHECK(answer["outcome"] == "refused");
  CHECK(answer["placement"].empty());
  CHECK(answer["stages"].at(0)["winner"] == "p");
  CHECK(answer["stages"].at(1)["winner"] == nullptr);
  scene["instances"][1]["metrics"] = {{"predicted_tpot", 42.4}};
  CHECK(answer_to(scene)["placement"].size() == 2);
  scene["request"]["tpot_slo_ms"] = 40; // x 0.85: the request's own goal
  answer = answer_to(scene);
  CHECK(answer["outcome"] == "refused");
  CHECK(answer["stages"].at(1)["dropped"].at(0)["threshold"] == doctest::Approx(34));
}

TEST_CASE("place: without a request there is nothing to answer") {
  for (const char* text : {"{}", R"({"instances": []})", R"({"ask": "place", "name": "n"})"}) {
    auto answer = answer_to(json::parse(text));
    CHECK(answer["outcome"] == "error");
    CHECK(answer["error"]["path"] == "request");
    CHECK(answer["error"]["message"] == R"(is missing; ask "place" wants it)");
  }
}

TEST_CASE("flags and knobs are refused as at a start, with their paths") {
  struct row {
    json config;
    std::string path;
  };
  const std::vector<row> rows{
    {{{"flags", {{"scheduling-polcy", "flood"}}}}, "config.flags.scheduling-polcy"},
    {{{"flags", {{"scheduling-policy", "flod"}}}}, "config.flags.scheduling-policy"},
    {{{"flags", {{"dispatch-top-k", "many"}}}}, "config.flags.dispatch-top-k"},
    {{{"flags", {{"ttft-slo", -5}}}}, "config.flags.ttft-slo"},
    {{{"flags", {{"ttft-slo-dispatch-threshold", -1}}}},
     "config.flags.ttft-slo-dispatch-threshold"},
    {{{"flags", {{"kvs-chunk-size", 0}}}}, "config.flags.kvs-chunk-size"},
    {{{"flags", {{"extra-args", "max-num-batched-tokens=0"}}}},
     "config.flags.max-num-batched-tokens"},
    {{{"flags", {{"cms-redis-timeout", 0}}}}, "config.flags.cms-redis-timeout"},
    {{{"flags", {{"cms-redis-timeout", -1}}}}, "config.flags.cms-redis-timeout"},
    {{{"flags", {{"kvs-retry-times", 0}}}}, "config.flags.kvs-retry-times"},
    {{{"set", {{"scheduler.polcy", "flood"}}}}, "config.set.scheduler.polcy"},
    {{{"set", {{"scheduler.policy", "flod"}}}}, "config.set.scheduler.policy"},
    {{{"set", {{"scheduler.dispatch_top_k", 0}}}}, "config.set.scheduler.dispatch_top_k"},
  };
  for (auto& [config, path] : rows) {
    auto scene = two_instances;
    scene["config"] = config;
    auto answer = answer_to(scene);
    CAPTURE(answer.dump());
    CHECK(answer["outcome"] == "error");
    CHECK(answer["error"]["path"] == path);
    CHECK(answer["name"] == "two");
  }
}

TEST_CASE("config: what flags come to, and what was replaced") {
  auto answer = answer_to(json::parse(R"({"ask": "config", "config": {"flags": {
    "extra-args": "dispatch-top-k=3", "dispatch-neutral-load-metric": "num_tokens"}}})"));
  CHECK(answer["outcome"] == "configured");
  CHECK(answer["flags"]["dispatch-top-k"] == 3);
  CHECK(answer["flags"]["dispatch-neutral-load-metric"] == "kv_cache_usage_ratio_projected");
  CHECK(answer["warnings"].size() == 1);
}

TEST_CASE("config: odd numbers that a start takes, and parts that only a start wants") {
  const auto ask = [](const json& flags) {
    return answer_to({{"ask", "config"}, {"config", {{"flags", flags}}}});
  };
  for (const auto& flags :
       {json{{"cms-pull-status-interval-ms", -5}}, json{{"cms-pull-metadata-interval-ms", 0}},
        json{{"dispatch-decode-load-threshold", -1}},
        json{{"dispatch-decode-load-threshold", "inf"}}, json{{"instance-staleness-seconds", 0}},
        json{{"rescheduling-load-balance-threshold", -1}}}) {
    auto answer = ask(flags);
    CAPTURE(answer.dump());
    CHECK(answer["outcome"] == "configured");
    CHECK_FALSE(answer.contains("warnings"));
  }
  auto answer = ask({{"enable-pprof", true}});
  CHECK(answer["outcome"] == "configured");
  CHECK(
    answer["warnings"]
    == json::parse(
      R"(["--enable-pprof: a start refuses it, for this build has no profiling listener"])"));
}

TEST_CASE("of two policies the one of config.set is taken, and the other is told of") {
  auto scene = two_instances;
  scene["config"] = json::parse(
    R"({"flags": {"scheduling-policy": "flood"}, "set": {"scheduler.policy": "round-robin"}})");
  auto answer = answer_to(scene);
  CHECK(answer["outcome"] == "placed");
  CHECK(
    answer["warnings"]
    == json::parse(
      R"(["--scheduling-policy: is passed over: scheduler.policy=round-robin wins over it"])"));
}

TEST_CASE("plan: the heaviest gives to the lightest") {
  auto answer = answer_to(json::parse(R"({
    "ask": "plan",
    "config": {"flags": {"rescheduling-policies": "decode_load",
                         "rescheduling-decode-load-threshold": 0.8}},
    "instances": [
      {"id": "a", "metadata": {"instance_type": "decode"},
       "status": {"num_total_gpu_tokens": 1000, "num_used_gpu_tokens": 900}},
      {"id": "b", "metadata": {"instance_type": "decode"},
       "status": {"num_total_gpu_tokens": 1000, "num_used_gpu_tokens": 100}},
      {"id": "c"}]})"));
  CHECK(answer["outcome"] == "planned");
  CHECK(answer["moves"] == json::parse(R"([{"from": "a", "to": "b", "policy": "decode_load",
    "rule": "TOKEN", "order": "SR", "value": 1024}])"));
  auto& stage = answer["stages"].at(0);
  CHECK(stage["for"] == "decode_load");
  CHECK(stage["sources"] == json::array({"a"}));
  CHECK(stage["destinations"] == json::array({"b"}));
  CHECK(stage["dropped"].at(0)["side"] == "source");
}

TEST_CASE("choose: by the order asked for, within the slots that the status names") {
  json asked = json::parse(R"({"ask": "choose",
    "choose": {"instance": "i1", "rule": "NUM_REQ", "order": "LR", "value": 2}})");
  json running = json::parse(R"({"running": [{"id": "q1", "len": 100, "out": 1},
    {"id": "q2", "len": 300, "out": 1}, {"id": "q3", "len": 200, "out": 1}]})");
  CHECK(answer_to(one(running, asked))["chosen"] == json::parse(R"(["q2", "q3"])"));
  running["status"] = {{"num_available_migrate_out_slots", 1}};
  auto answer = answer_to(one(running, asked));
  CHECK(answer["outcome"] == "refused");
  CHECK(answer["chosen"].empty());
}

TEST_CASE("metrics: all that can be computed, and the account") {
  auto answer = answer_to(one(
    json::parse(R"({"dispatched": [{"request_id": "q", "num_tokens": 600}],
      "account": {"num_tokens_inflight_dispatch_decode_requests": 5}})"),
    {{"ask", "metrics"}}));
  CHECK(answer["outcome"] == "computed");
  auto& metrics = answer["metrics"]["i1"];
  CHECK(metrics["all_prefills_tokens_num"] == 600);
  CHECK(metrics["all_decodes_tokens_num"] == 5);
  CHECK(metrics["freeness"] == "inf");
  CHECK_FALSE(metrics.contains("predicted_ttft"));
  CHECK(answer["account"]["i1"] == json::parse(R"({
    "num_inflight_dispatch_requests": 1,
    "num_inflight_dispatch_prefill_requests": 1,
    "num_inflight_dispatch_decode_requests": 1,
    "num_uncomputed_tokens_inflight_dispatch_prefill_requests": 600,
    "num_tokens_inflight_dispatch_decode_requests": 5})"));
}

TEST_CASE("predict: between the points measured, and nothing beyond them") {
  auto answer = answer_to(json::parse(R"({"ask": "predict",
    "config": {"profiles": {"ttft": [{"tokens_num": 100, "p50": 10}, {"tokens_num": 300, "p50": 20}],
                            "tpot": [{"batch_size": 4, "tokens_per_request": 64, "p50": 7.5}]},
               "step_model": {"b": 0.5, "c": 4}},
    "predict": {"prefill": [200, 301], "decode": [[4, 256], [4, 257]], "step": [10]}})"));
  CHECK(answer["predicted"]["prefill"] == json::parse("[15.0, null]"));
  CHECK(answer["predicted"]["decode"] == json::parse("[7.5, null]"));
  CHECK(answer["predicted"]["step"] == json::parse("[9.0]"));
  CHECK(answer["step_model"] == json::parse(R"({"a": 0, "b": 0.5, "c": 4})"));
}

TEST_CASE("reserve: by statuses, or as given") {
  auto scene = json::parse(R"({"ask": "reserve", "instances": [
    {"id": "a", "status": {"num_uncomputed_tokens_all_waiting_prefills": 5}}, {"id": "b"}]})");
  CHECK(answer_to(scene)["reserved"] == json::parse(R"({"prefill": "a", "decode": "b"})"));
  scene["instances"][0]["reserved"] = "decode";
  CHECK(answer_to(scene)["reserved"] == json::parse(R"({"prefill": null, "decode": "a"})"));
}

TEST_CASE("keys: as the reference makes them") {
  // SHA-256 of the tokens as little-endian words: printf '\1\0\0\0\2\0\0\0' | sha256sum
  auto answer = answer_to(json::parse(R"({"ask": "keys",
    "config": {"flags": {"kvs-chunk-size": 2, "kvs-hash-algo": "sha256_hex"}},
    "request": {"prompt_token_ids": [1, 2, 3]}})"));
  CHECK(answer["outcome"] == "keyed");
  CHECK(
    answer["keys"]
    == json::array({"34fb5c825de7ca4aea6e712f19d439c1da0c92c37b423936c5f618545ca4fa1f"}));
  CHECK(answer_to({{"ask", "keys"}})["error"]["path"] == "request.prompt_token_ids");
}

TEST_CASE("scale: by average freeness") {
  auto action = [](double freeness) {
    return answer_to(one(
      {{"metrics", {{"freeness", freeness}}}},
      json::parse(
        R"({"ask": "scale", "scale": {"low": 10, "high": 60, "min": 0, "max": 2}})")))["scale"]
                                                                                      ["action"];
  };
  CHECK(action(9) == "scale_out");
  CHECK(action(10) == "none");
  CHECK(action(61) == "scale_in");
}

} // namespace llumnix
