#include "apps/reference/scheduler_setup.hpp"
#include "config/knobs.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <limits>
#include <set>

namespace llumnix {

namespace {

using json = nlohmann::json;
using words = std::vector<std::string>;

/// "name: what is wrong", each on its own.
words problems_of(const scheduler_flags_read& read) {
  words all;
  for (const auto& each : read.problems)
    all.push_back(each.path + ": " + each.message);
  return all;
}

/// What differs from the presets.
json changes_of(const scheduler_flags_read& read) {
  auto presets = scheduler_flag_values{}.to_json();
  auto changed = json::object();
  auto effective = read.values.to_json();
  for (const auto& [name, value] : effective.items())
    if (value != presets.at(name))
      changed[name] = value;
  return changed;
}

scheduler_flags_read from_scene(const std::string& text) {
  return read_scheduler_flags(json::parse(text));
}

/// A configuration with the rest as it is, to compare placement as a whole.
std::string written(const scheduler_config& scheduler) {
  cluster_config config;
  config.scheduler = scheduler;
  return to_json_with_secrets(config);
}

} // namespace

TEST_CASE("flags of the scheduler are told apart, and knobs they name exist") {
  std::set<std::string_view> names;
  for (const auto& flag : scheduler_flags()) {
    CAPTURE(flag.name);
    CHECK(names.insert(flag.name).second);
    CHECK_FALSE(flag.meaning.empty());
    CHECK(flag.word.empty() == (flag.fate == flag_fate::works));
    CHECK((flag.fate != flag_fate::knob || find_knob(flag.word) != nullptr));
    CHECK(read_flag(flag.form, flag.preset).has_value());
  }
}

TEST_CASE("every flag is accepted with its own preset, and changes nothing then") {
  auto without = read_scheduler_flags(given_flags{});
  CHECK(without.problems.empty());
  CHECK(without.warnings.empty());
  CHECK(changes_of(without).empty());
  for (const auto& flag : scheduler_flags()) {
    CAPTURE(flag.name);
    auto read
      = read_scheduler_flags(given_flags{{std::string{flag.name}, std::string{flag.preset}}});
    CHECK(problems_of(read) == words{});
    CHECK(read.warnings == words{});
    CHECK(changes_of(read).empty());
  }
}

TEST_CASE("without flags placement is the configuration's own, but that Mooncake knows prefixes") {
  scheduler_config expected;
  expected.kv_index = "mooncake";
  expected.mooncake = "0.0.0.0:9003";
  CHECK(written(scheduler_config_of(scheduler_flag_values{})) == written(expected));
}

TEST_CASE("values of a scene are taken in the form a flag wants") {
  struct row {
    std::string given;
    std::string changes;
  };
  for (const auto& [given, changes] : {
         row{"{}", "{}"}, row{R"({"dispatch-top-k": 3})", R"({"dispatch-top-k": 3})"},
         row{R"({"dispatch-top-k": 3.0})", R"({"dispatch-top-k": 3})"},
         row{R"({"dispatch-top-k": "0x3"})", R"({"dispatch-top-k": 3})"},
         row{R"({"llumlet-grpc-timeout-seconds": -7})", R"({"llumlet-grpc-timeout-seconds": -7})"},
         row{
           R"({"kvs-chunk-size": 9223372036854775807})",
           R"({"kvs-chunk-size": 9223372036854775807})"},
         row{R"({"ttft-slo": 800})", R"({"ttft-slo": 800.0})"},
         row{R"({"ttft-slo": "8e2"})", R"({"ttft-slo": 800.0})"},
         row{
           R"({"ttft-slo": "inf", "tpot-slo": "-inf"})",
           R"({"ttft-slo": "inf", "tpot-slo": "-inf"})"},
         row{
           R"({"dispatch-neutral-load-threshold": 0.1})",
           R"({"dispatch-neutral-load-threshold": 0.1})"},
         row{R"({"enable-adaptive-pd": true})", R"({"enable-adaptive-pd": true})"},
         row{R"({"enable-adaptive-pd": "1"})", R"({"enable-adaptive-pd": true})"},
         row{R"({"kvs-iris-meta-prefix": ""})", R"({"kvs-iris-meta-prefix": ""})"},
         row{
           R"({"rescheduling-policies": ["neutral_load", "decode_load"]})",
           R"({"rescheduling-policies": "neutral_load,decode_load"})"},
         row{R"({"v": 4, "logtostderr": true})", "{}"}, // of the log, accepted
       }) {
    CAPTURE(given);
    auto read = from_scene(given);
    CHECK(problems_of(read) == words{});
    CHECK(changes_of(read) == json::parse(changes));
  }
}

TEST_CASE("a value that is none of a flag's form is refused, with the flag's name") {
  using row = std::pair<std::string, std::string>;
  for (const auto& [given, problem] : {
         row{"[]", ": is no object of flags and values"},
         row{"null", ": is no object of flags and values"},
         row{R"({"dispatch-topk": 1})", "dispatch-topk: is no flag; did you mean dispatch-top-k?"},
         row{R"({"max-queue-size": 1})", "max-queue-size: is no flag"},
         row{R"({"": 1})", ": is no flag"},
         row{R"({"dispatch-top-k": 1.5})", "dispatch-top-k: 1.5 is no whole number"},
         row{R"({"dispatch-top-k": true})", "dispatch-top-k: true is no whole number"},
         row{R"({"dispatch-top-k": null})", "dispatch-top-k: null is no whole number"},
         row{R"({"dispatch-top-k": {}})", "dispatch-top-k: a JSON object is no whole number"},
         row{
           R"({"dispatch-top-k": 9223372036854775808})",
           "dispatch-top-k: 9223372036854775808 is no whole number"},
         row{R"({"dispatch-top-k": 1e300})", "dispatch-top-k: 1e+300 is no whole number"},
         row{R"({"dispatch-top-k": ""})", "dispatch-top-k: an empty value is no whole number"},
         row{R"({"ttft-slo": "nan"})", "ttft-slo: nan is no number"},
         row{R"({"ttft-slo": true})", "ttft-slo: true is no number"},
         row{R"({"enable-adaptive-pd": 1})", "enable-adaptive-pd: 1 is neither true nor false"},
         row{
           R"({"enable-adaptive-pd": "yes"})", "enable-adaptive-pd: yes is neither true nor false"},
         row{R"({"kvs-iris-meta-prefix": 5})", "kvs-iris-meta-prefix: 5 is no text"},
         row{R"({"failover-domain": ["node"]})", "failover-domain: a JSON array is no text"},
         row{
           R"({"rescheduling-policies": ["a,b"]})",
           "rescheduling-policies: a JSON array is no text"},
         row{R"({"rescheduling-policies": [1]})", "rescheduling-policies: a JSON array is no text"},
       }) {
    CAPTURE(given);
    CHECK(problems_of(from_scene(given)) == words{problem});
  }
}

TEST_CASE("what the reference replaces at its start is replaced") {
  struct row {
    std::string given;
    std::string changes;
    words warnings = {};
  };
  const char* lite = R"({"enable-full-mode-scheduling": false,
    "enable-instance-status-local-account": false, "dispatch-neutral-load-metric": "num_tokens",
    "dispatch-prefill-load-metric": "num_tokens", "dispatch-decode-load-metric": "num_tokens"})";
  for (const auto& [given, changes, warnings] : {
         row{R"({"enable-full-mode-scheduling": false})", lite},
         row{
           R"({"enable-adaptive-pd": true, "scheduling-policy": "flood"})",
           R"({"enable-adaptive-pd": true, "scheduling-policy": "flood"})",
           {"--enable-adaptive-pd: wants --scheduling-policy=slo; without it placement passes over "
            "it, and only plans of --rescheduling-policies pack instances"}},
         row{
           R"({"enable-adaptive-pd": true, "scheduling-policy": "slo"})",
           R"({"enable-adaptive-pd": true, "scheduling-policy": "slo"})"},
         row{
           R"({"enable-full-mode-scheduling": false, "enable-cache-aware-scheduling": true,
               "enable-predictor-enhanced-scheduling": true, "enable-adaptive-pd": true,
               "enable-rescheduling": true, "enable-instance-status-local-account": true,
               "dispatch-decode-load-metric": "decode_batch_size"})",
           lite,
           {"--enable-cache-aware-scheduling: is turned off: there is none in lite mode",
            "--enable-predictor-enhanced-scheduling: is turned off: there is none in lite mode",
            "--enable-adaptive-pd: is turned off: there is none in lite mode",
            "--enable-rescheduling: is turned off: there is none in lite mode",
            "--dispatch-decode-load-metric: decode_batch_size becomes num_tokens, which lite mode "
            "can place by"}},
         row{
           R"({"enable-full-mode-scheduling": false, "dispatch-neutral-load-metric": "num_requests",
               "dispatch-neutral-load-threshold": 5})",
           R"({"enable-full-mode-scheduling": false,
               "enable-instance-status-local-account": false,
               "dispatch-neutral-load-metric": "num_requests", "dispatch-neutral-load-threshold": 5.0,
               "dispatch-prefill-load-metric": "num_tokens",
               "dispatch-decode-load-metric": "num_tokens"})"},
         row{// all that full mode allows
             R"({"dispatch-neutral-load-metric": "kv_cache_hit_len",
               "dispatch-prefill-load-metric": "cache_aware_all_prefills_tokens_num",
               "dispatch-decode-load-metric": "all_decodes_tokens_num"})",
             R"({"dispatch-neutral-load-metric": "kv_cache_hit_len",
               "dispatch-prefill-load-metric": "cache_aware_all_prefills_tokens_num",
               "dispatch-decode-load-metric": "all_decodes_tokens_num"})"},
         row{
           R"({"dispatch-neutral-load-metric": "decode_batch_size",
               "dispatch-prefill-load-metric": "num_waiting_requests",
               "dispatch-decode-load-metric": "num_requests"})",
           R"({"dispatch-neutral-load-metric": "decode_batch_size",
               "dispatch-prefill-load-metric": "num_waiting_requests",
               "dispatch-decode-load-metric": "num_requests"})"},
         row{// known, yet not for dispatch
             R"({"dispatch-neutral-load-metric": "predicted_ttft"})",
             R"({"dispatch-neutral-load-metric": "kv_cache_usage_ratio_projected"})",
             {"--dispatch-neutral-load-metric: predicted_ttft becomes "
              "kv_cache_usage_ratio_projected, which the scheduler can place by"}},
         row{
           // of lite mode
           R"({"dispatch-prefill-load-metric": "num_tokens"})",
           "{}",
           {"--dispatch-prefill-load-metric: num_tokens becomes all_prefills_tokens_num, which the "
            "scheduler can place by"}},
         row{
           // unknown
           R"({"dispatch-decode-load-metric": "", "dispatch-decode-load-threshold": 7})",
           R"({"dispatch-decode-load-threshold": 7.0})",
           {"--dispatch-decode-load-metric: an empty value becomes kv_cache_usage_ratio_projected, "
            "which the scheduler can place by"}},
         row{
           R"({"dispatch-neutral-load-metric": "num_request"})",
           R"({"dispatch-neutral-load-metric": "kv_cache_usage_ratio_projected"})",
           {"--dispatch-neutral-load-metric: num_request becomes kv_cache_usage_ratio_projected, "
            "which the scheduler can place by, because there is no metric of that name; did you "
            "mean num_requests?"}},
         row{R"({"kvs-backend": "v6d"})", R"({"kvs-backend": "v6d", "kvs-hash-algo": "xxhash"})"},
         row{
           R"({"kvs-backend": "v6d", "kvs-hash-algo": "md5"})",
           R"({"kvs-backend": "v6d", "kvs-hash-algo": "xxhash"})",
           {"--kvs-hash-algo: md5 becomes xxhash, which is what a v6d store has"}},
         row{
           R"({"kvs-backend": "v6d", "kvs-hash-algo": "xxhash"})",
           R"({"kvs-backend": "v6d", "kvs-hash-algo": "xxhash"})"},
         row{R"({"kvs-hash-algo": "sha256_hex"})", R"({"kvs-hash-algo": "sha256_hex"})"},
         row{
           R"({"rescheduling-req-select-order": "lcr"})",
           R"({"rescheduling-req-select-order": "lcr"})",
           {"--rescheduling-req-select-order: lcr is none of LCR, FCR, LR, SR, FCW, FCWSR: engines "
            "take it as FCR"}},
       }) {
    CAPTURE(given);
    auto read = from_scene(given);
    CHECK(problems_of(read) == words{});
    CHECK(changes_of(read) == json::parse(changes));
    CHECK(read.warnings == warnings);
  }
}

TEST_CASE("what the reference aborts on is refused, with what is known") {
  using row = std::pair<given_flags, std::string>;
  for (const auto& [given, problem] : {
         row{
           {{"scheduling-policy", "round-robin"}},
           "scheduling-policy: round-robin is none of load-balance, flood, slo"},
         row{
           {{"scheduling-policy", "Flood"}},
           "scheduling-policy: Flood is none of load-balance, flood, slo; did you mean flood?"},
         row{
           {{"scheduling-policy", ""}},
           "scheduling-policy: an empty value is none of load-balance, flood, slo"},
         row{
           {{"scheduling-policy", "slo"}, {"enable-full-mode-scheduling", "false"}},
           "scheduling-policy: slo wants --enable-full-mode-scheduling; without it there is "
           "load-balance"},
         row{
           {{"scheduling-policy", "flood"}, {"enable-full-mode-scheduling", "false"}},
           "scheduling-policy: flood wants --enable-full-mode-scheduling; without it there is "
           "load-balance"},
         row{
           {{"scheduling-policy", "round-robin"}, {"enable-full-mode-scheduling", "false"}},
           "scheduling-policy: round-robin is none of load-balance"},
         row{{{"kvs-backend", "redis"}}, "kvs-backend: redis is none of mooncake, v6d"},
         row{
           {{"kvs-hash-algo", "sha256"}},
           "kvs-hash-algo: sha256 is none of sha256_cbor, sha256_hex, xxhash"},
         row{
           {{"failover-domain", "node_unit"}},
           "failover-domain: node_unit is none of instance, node, instance-unit, node-unit; did "
           "you mean node-unit?"},
         row{
           {{"llm-backend-discovery", "consul"}},
           "llm-backend-discovery: consul is none of redis, etcd, endpoints"},
         row{
           {{"rescheduling-policies", ""}},
           "rescheduling-policies: an empty value is none of decode_load, neutral_load, "
           "prefill_failover, decode_failover, neutral_failover, binpacking_mitigation, "
           "binpacking_consolidation"},
         row{
           {{"rescheduling-policies", "decode_load, neutral_load"}},
           "rescheduling-policies:  neutral_load is none of decode_load, neutral_load, "
           "prefill_failover, decode_failover, neutral_failover, binpacking_mitigation, "
           "binpacking_consolidation; did you mean neutral_load?"},
         row{
           {{"rescheduling-policies", "decode_load,"}},
           "rescheduling-policies: an empty value is none of decode_load, neutral_load, "
           "prefill_failover, decode_failover, neutral_failover, binpacking_mitigation, "
           "binpacking_consolidation"},
         row{
           {{"rescheduling-req-select-rule", "TOKENS"}},
           "rescheduling-req-select-rule: TOKENS is none of NUM_REQ, TOKEN, RATIO; did you mean "
           "TOKEN?"},
         row{
           {{"rescheduling-load-balance-scope", "node"}},
           "rescheduling-load-balance-scope: node is none of cluster, unit"},
         row{{{"dispatch-top-k", "0"}}, "dispatch-top-k: 0 is below 1"},
         row{{{"dispatch-top-k", "-3"}}, "dispatch-top-k: -3 is below 1"},
         row{{{"dispatch-top-k", "4294967296"}}, "dispatch-top-k: 4294967296 is above 4294967295"},
         row{{{"port", "65536"}}, "port: 65536 is above 65535"},
         row{{{"instance-staleness-seconds", "-1"}}, "instance-staleness-seconds: -1 is below 0"},
         row{{{"port", "x"}}, "port: x is no whole number"},
         row{{{"prot", "1"}}, "prot: is no flag; did you mean port?"},
       }) {
    CAPTURE(problem);
    CHECK(problems_of(read_scheduler_flags(given)) == words{problem});
  }
}

TEST_CASE("metrics that no one coerces have to be known") {
  for (auto flag :
       {"dispatch-prefill-cache-locality-metric", "rescheduling-decode-load-metric",
        "rescheduling-prefill-load-metric", "rescheduling-neutral-load-metric"}) {
    CAPTURE(flag);
    for (auto metric :
         {"kv_cache_usage_ratio_projected", "predicted_tpot", "miss_tokens", "predicted_progress",
          "remaining_steps", "remaining_steps_defrag", "kv_blocks_ratio", "adaptive_decode",
          "miss_waiting_tokens", "freeness", "hit_ratio", "hit_tokens", "num_tokens"}) {
      CAPTURE(metric);
      CHECK(problems_of(read_scheduler_flags(given_flags{{flag, metric}})) == words{});
    }
    auto problems = problems_of(read_scheduler_flags(given_flags{{flag, "freenes"}}));
    REQUIRE(problems.size() == 1);
    CHECK(problems.front().starts_with(std::string{flag} + ": freenes is none of kv_cache_usage"));
    CHECK(problems.front().ends_with("; did you mean freeness?"));
  }
}

TEST_CASE("every problem is found at once") {
  CHECK(
    problems_of(read_scheduler_flags(given_flags{
      {"port", "x"}, {"nothing", "1"}, {"scheduling-policy", "x"}, {"dispatch-top-k", "0"}}))
    == words{
      "nothing: is no flag", "port: x is no whole number",
      "scheduling-policy: x is none of load-balance, flood, slo", "dispatch-top-k: 0 is below 1"});
}

TEST_CASE("extra-args win over flags, and what is wrong with them is passed over aloud") {
  auto read = read_scheduler_flags(given_flags{
    {"dispatch-top-k", "2"},
    {"extra-args",
     "dispatch-top-k=5, rescheduling-policies='neutral_load,decode_load',ttft-slo=abc,port,x=1,"
     "enable-full-mode-scheduling=0"}});
  CHECK(problems_of(read) == words{});
  CHECK(read.values.whole("dispatch-top-k") == 5);
  CHECK(read.values.text("rescheduling-policies") == "neutral_load,decode_load");
  CHECK(read.values.number("ttft-slo") == 6000);
  CHECK(read.values.text("dispatch-neutral-load-metric") == "num_tokens"); // coerced after them
  CHECK(
    read.warnings
    == words{
      "--extra-args: port has no '=': passed over",
      "--extra-args: ttft-slo: abc is no number: passed over",
      "--extra-args: there is no flag x: passed over"});
  // A list in brackets keeps them, and so is no list of policies.
  CHECK(
    problems_of(from_scene(R"({"extra-args": "rescheduling-policies=[decode_load]"})")).size()
    == 1);
  // Flags are read before them, so that they mend nothing.
  CHECK(
    problems_of(from_scene(R"({"port": "x", "extra-args": "port=80"})"))
    == words{"port: x is no whole number"});
  CHECK(
    problems_of(from_scene(R"({"extra-args": "scheduling-policy=x"})"))
    == words{"scheduling-policy: x is none of load-balance, flood, slo"});
}

TEST_CASE("placement takes what flags say") {
  auto read = from_scene(R"({
    "scheduling-policy": "slo", "dispatch-top-k": 4, "dispatch-neutral-load-metric": "num_requests",
    "dispatch-neutral-load-threshold": 1.5, "dispatch-prefill-load-metric": "num_waiting_requests",
    "dispatch-prefill-load-threshold": 2.5, "dispatch-decode-load-metric": "decode_batch_size",
    "dispatch-decode-load-threshold": 3.5, "dispatch-prefill-cache-locality-metric": "hit_tokens",
    "enable-instance-status-local-account": false, "request-local-account-staleness-seconds": 11,
    "failover-domain": "node", "instance-staleness-seconds": 61, "ttft-profiling-data-path": "/t",
    "tpot-profiling-data-path": "/p", "ttft-slo": 700, "tpot-slo": 40,
    "ttft-slo-dispatch-threshold": 0.8, "tpot-slo-dispatch-threshold": 0.7,
    "tpot-migrate-out-ceil-threshold": 0.9, "tpot-migrate-out-floor-threshold": 0.5,
    "enable-adaptive-pd": true, "enable-predictor-enhanced-scheduling": true,
    "max-num-batched-tokens": 512, "num-predictor-warmup-samples": 3,
    "enable-cache-aware-scheduling": true, "cache-aware-scheduling-min-tokens": 17,
    "kvs-hash-algo": "xxhash", "kvs-chunk-size": 16, "kvs-enable-save-unfull-chunk": true,
    "kvs-iris-meta-prefix": "i", "kvs-vllm-block-prefix": "b",
    "kvs-metadata-service-http-server-host": "::1", "kvs-metadata-service-http-server-port": 9,
    "kvs-retry-times": 2, "kvs-retry-interval-ms": 20, "kvs-metadata-service-down-duration-s": 7})");
  CHECK(problems_of(read) == words{});
  scheduler_config expected;
  expected.policy = "slo";
  expected.dispatch_top_k = 4;
  expected.neutral_load_metric = "num_requests";
  expected.neutral_load_threshold = 1.5;
  expected.prefill_load_metric = "num_waiting_requests";
  expected.prefill_load_threshold = 2.5;
  expected.decode_load_metric = "decode_batch_size";
  expected.decode_load_threshold = 3.5;
  expected.prefill_cache_locality_metric = "hit_tokens";
  expected.local_account = false;
  expected.local_account_staleness_s = 11;
  expected.failover_domain = "node";
  expected.instance_staleness_s = 61;
  expected.ttft_profile = "/t";
  expected.tpot_profile = "/p";
  expected.ttft_slo_ms = 700;
  expected.tpot_slo_ms = 40;
  expected.ttft_slo_threshold = 0.8;
  expected.tpot_slo_threshold = 0.7;
  expected.tpot_migrate_out_ceil = 0.9;
  expected.tpot_migrate_out_floor = 0.5;
  expected.adaptive_pd = true;
  expected.predict_progress = true;
  expected.max_num_batched_tokens = 512;
  expected.predictor_warmup_samples = 3;
  expected.cache_aware = true;
  expected.cache_aware_min_tokens = 17;
  expected.kv_index = "mooncake";
  expected.kv_hash = "xxhash";
  expected.kv_chunk_tokens = 16;
  expected.kv_save_unfull_chunk = true;
  expected.kv_iris_prefix = "i";
  expected.kv_block_prefix = "b";
  expected.mooncake = "[::1]:9";
  expected.kv_attempts = 2;
  expected.kv_attempt_pause = milliseconds{20};
  expected.kv_down = milliseconds{7000};
  CHECK(written(scheduler_config_of(read.values)) == written(expected));
}

TEST_CASE("every flag that stands for a knob of placement reaches that knob") {
  for (const auto& flag : scheduler_flags()) {
    if (flag.fate != flag_fate::knob || !flag.word.starts_with("scheduler."))
      continue;
    CAPTURE(flag.name);
    scheduler_flag_values values;
    switch (flag.form) {
      case flag_form::toggle: values.set(flag.name, !values.toggle(flag.name)); break;
      case flag_form::whole: values.set(flag.name, values.whole(flag.name) + 1); break;
      case flag_form::number: values.set(flag.name, values.number(flag.name) + 1); break;
      default: values.set(flag.name, std::string{"other"});
    }
    cluster_config before, after;
    before.scheduler = scheduler_config_of(scheduler_flag_values{});
    if (flag.name == "enable-adaptive-pd") // which means something with slo only
      values.set("scheduling-policy", std::string{"slo"});
    after.scheduler = scheduler_config_of(values);
    auto is_changed = [&](auto* old_value) {
      return *old_value != *std::get<decltype(old_value)>(find_knob(flag.word)->field(after));
    };
    CHECK(std::visit(is_changed, find_knob(flag.word)->field(before)));
  }
}

TEST_CASE("numbers that no knob holds end at its bound") {
  auto read = from_scene(R"({
    "kvs-chunk-size": -1, "max-num-batched-tokens": 9223372036854775807,
    "kvs-metadata-service-down-duration-s": 9223372036854775807, "kvs-retry-interval-ms": -5,
    "enable-adaptive-pd": true, "kvs-backend": "v6d"})");
  CHECK(problems_of(read) == words{});
  auto config = scheduler_config_of(read.values);
  CHECK(config.kv_chunk_tokens == 0);
  CHECK(config.max_num_batched_tokens == std::numeric_limits<std::uint32_t>::max());
  CHECK(config.kv_down == milliseconds{4294967295000});
  CHECK(config.kv_attempt_pause == milliseconds{0});
  CHECK_FALSE(config.adaptive_pd); // load-balance does not know it
  CHECK(config.kv_index == "v6d");
}

TEST_CASE("a start takes pull intervals of 0 or less as never, and warns of what it passes over") {
  for (const char* interval : {"0", "-5", "-9223372036854775808"}) {
    CAPTURE(interval);
    cluster_config config;
    auto effects = set_up_scheduler(
      {{"cms-pull-status-interval-ms", interval}, {"cms-pull-metadata-interval-ms", interval}},
      config);
    CHECK(effects.problems.empty());
    CHECK(config.cms.pull_status_interval == milliseconds{0});
    CHECK(config.cms.pull_metadata_interval == milliseconds{0});
  }
  cluster_config config;
  auto effects
    = set_up_scheduler({{"extra-args", "zz=1"}, {"enable-rescheduling", "true"}}, config);
  CHECK(effects.warnings == words{"--extra-args: there is no flag zz: passed over"});
  CHECK(
    effects.notes == words{"--enable-rescheduling: only the two rescheduling modes start it"});
  effects = set_up_scheduler({{"cms-redis-timeout", "-1"}}, config);
  REQUIRE(effects.problems.size() == 1);
  CHECK(effects.problems[0].message == "-1 is no time in s");
}

TEST_CASE("a flag that another setting overrules is told of") {
  auto read = from_scene(R"({"scheduling-policy": "flood", "dispatch-top-k": 3, "ttft-slo": 100})");
  auto by_flags = scheduler_config_of(read.values);
  CHECK(overruled_flags(read.values, by_flags, by_flags) == words{});
  auto now = by_flags;
  now.policy = "cache-aware";
  now.hysteresis = 0.5; // of no flag
  now.tpot_slo_ms = 7;  // of a flag that was not given
  CHECK(
    overruled_flags(read.values, by_flags, now)
    == words{
      "--scheduling-policy: is passed over: scheduler.policy=cache-aware wins over it"});
}

TEST_CASE("plans take what flags say, and with adaptive PD pack instances too") {
  using row = std::pair<std::string, words>;
  for (const auto& [given, policies] : {
         row{"{}", {"decode_load", "prefill_failover", "decode_failover", "neutral_failover"}},
         row{R"({"rescheduling-policies": "neutral_load"})", {"neutral_load"}},
         row{
           R"({"rescheduling-policies": "neutral_load,neutral_load"})",
           {"neutral_load", "neutral_load"}},
         row{
           R"({"rescheduling-policies": "decode_load", "enable-adaptive-pd": true})",
           {"decode_load", "binpacking_consolidation", "binpacking_mitigation"}},
         row{
           R"({"rescheduling-policies": "binpacking_mitigation,decode_load",
               "enable-adaptive-pd": true})",
           {"binpacking_mitigation", "decode_load", "binpacking_consolidation"}},
         row{
           R"({"rescheduling-policies": "binpacking_mitigation,binpacking_consolidation",
               "enable-adaptive-pd": true})",
           {"binpacking_mitigation", "binpacking_consolidation"}},
         row{
           R"({"rescheduling-policies": "decode_load", "enable-adaptive-pd": true,
               "enable-full-mode-scheduling": false})",
           {"decode_load"}},
       }) {
    CAPTURE(given);
    auto read = from_scene(given);
    CHECK(problems_of(read) == words{});
    CHECK(rescheduler_config_of(read.values).policies == policies);
  }
  auto config = rescheduler_config_of(from_scene(R"({
    "rescheduling-decode-load-metric": "remaining_steps", "rescheduling-decode-load-threshold": -2,
    "rescheduling-prefill-load-metric": "freeness",
    "rescheduling-neutral-load-metric": "kv_blocks_ratio",
    "rescheduling-neutral-load-threshold": 0.25, "rescheduling-req-select-rule": "RATIO",
    "rescheduling-req-select-order": "FCWSR", "rescheduling-req-select-value": 0.125,
    "rescheduling-load-balance-threshold": 0, "rescheduling-load-balance-scope": "unit"})")
                                        .values);
  CHECK(config.decode_load_metric == "remaining_steps");
  CHECK(config.decode_load_threshold == -2);
  CHECK(config.prefill_load_metric == "freeness");
  CHECK(config.neutral_load_metric == "kv_blocks_ratio");
  CHECK(config.neutral_load_threshold == 0.25);
  CHECK(config.select_rule == "RATIO");
  CHECK(config.select_order == "FCWSR");
  CHECK(config.select_value == 0.125);
  CHECK(config.load_balance_threshold == 0);
  CHECK(config.load_balance_scope == "unit");
}

TEST_CASE("hostile flags are answered shortly and at once") {
  std::string huge(1 << 16, 'x');
  std::string commas(1 << 16, ',');
  std::string many = "decode_load";
  for (int i = 0; i < 64; ++i)
    many += ",decode_load";
  auto read = read_scheduler_flags(given_flags{
    {huge, huge},
    {"scheduling-policy", huge},
    {"port", huge},
    {"rescheduling-policies", commas},
    {"extra-args", huge}});
  CHECK(read.problems.size() == 4);
  CHECK(read.warnings.size() == 1);
  for (const auto& each : read.problems)
    CHECK(each.message.size() < 300);
  CHECK(
    problems_of(read_scheduler_flags(given_flags{{"rescheduling-policies", many}}))
    == words{"rescheduling-policies: are more than 64"});
}

} // namespace llumnix
