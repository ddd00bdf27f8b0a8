#include "apps/preflight.hpp"
#include "net/http_server.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace llumnix {

namespace {

cluster_config with(const std::vector<const char*>& settings) {
  cluster_config config;
  for (auto setting : settings)
    CHECK(apply_setting(setting, config).empty());
  return config;
}

std::vector<std::string> paths_of(const std::vector<config_problem>& problems) {
  std::vector<std::string> paths;
  for (auto& each : problems)
    paths.push_back(each.path);
  return paths;
}

} // namespace

TEST_CASE("what only the scheduler and the engine know is told with its knob, all of it and once") {
  using row = std::pair<std::vector<const char*>, std::vector<std::string>>; // settings, paths
  for (auto& [settings, paths] : {
         row{{}, {}},
         row{{"scheduler.policy=nope"}, {"scheduler.policy"}},
         row{{"engine.latency=nope"}, {"engine.latency"}},
         row{
           {"scheduler.policy=nope", "scheduler.decode_load_metric=x", "engine.latency=nope"},
           {"scheduler.policy", "scheduler.decode_load_metric", "engine.latency"}},
         row{{"engine.blocks=200000000"}, {"engine.blocks"}},
         row{{"engine.latency=a10.llama-30b.tp4.osdi24"}, {"engine.blocks"}},
         row{{"engine.latency=nope", "engine.speed=-1"}, {"engine.speed", "engine.latency"}},
         row{{"engine.speed=-1"}, {"engine.speed"}}, // known to `check` already
         row{{"scheduler.dispatch_top_k=0"}, {"scheduler.dispatch_top_k"}},
         row{
           {"scheduler.ttft_profile=/dev/zero", "scheduler.tpot_profile=/dev/null"},
           {"scheduler.ttft_profile", "scheduler.tpot_profile"}},
       }) {
    auto config = with(settings);
    auto problems = check(config);
    check_parts(config, problems);
    CHECK(paths_of(problems) == paths);
  }
}

TEST_CASE("a problem that a file has is not told again without it") {
  auto config = with({"engine.speed=-1"});
  std::vector<config_problem> problems{{"some.json: engine.speed", "fast is no number"}};
  check_parts(config, problems);
  CHECK(problems.size() == 1);
}

TEST_CASE("a name that is wrong is answered with what is allowed") {
  struct row {
    const char* setting;
    std::vector<const char*> says, says_not;
  };
  for (auto& [setting, says, says_not] : {
         row{"scheduler.policy=nope", {"nope", "load-balance", "round-robin"}, {"scheduler."}},
         row{"scheduler.neutral_load_metric=nope", {"all_prefills_tokens_num"}, {}},
         row{
           "engine.latency=a10.lama-7b.tp1.osdi24",
           {"did you mean \"a10.llama-7b.tp1.osdi24\"?"},
           {"such as"}},
         row{"engine.latency=nope", {"such as a10.llama-7b.tp1.osdi24, "}, {"did you mean"}},
         row{"engine.latency=", {"such as"}, {"did you mean"}},
         row{"engine.blocks=200000000", {"200000000", "2147483647", "134217727"}, {}},
       }) {
    CAPTURE(setting);
    std::vector<config_problem> problems;
    check_parts(with({setting}), problems);
    REQUIRE(problems.size() == 1);
    CAPTURE(problems[0].message);
    for (auto each : says)
      CHECK(problems[0].message.find(each) != std::string::npos);
    for (auto each : says_not)
      CHECK(problems[0].message.find(each) == std::string::npos);
  }
}

TEST_CASE("a policy that would refuse every request is told of") {
  using row = std::pair<std::vector<const char*>, std::size_t>; // settings, problems
  for (auto& [settings, count] : {
         row{{}, 0},
         row{{"scheduler.policy=flood"}, 0},
         row{{"scheduler.policy=nope"}, 0}, // told of elsewhere
         row{{"scheduler.policy=slo"}, 1},
         row{{"scheduler.policy=slo", "scheduler.adaptive_pd=true"}, 1},
         row{{"scheduler.policy=slo", "gateway.serving_mode=pd_batch"}, 0},
         row{{"scheduler.policy=slo", "scheduler.http=127.0.0.1:8002"}, 0},
       }) {
    CAPTURE(count);
    std::vector<config_problem> problems;
    check_served(with(settings), problems);
    REQUIRE(problems.size() == count);
    if (count > 0)
      CHECK(problems[0].path == "scheduler.policy");
  }
}

TEST_CASE("knobs that change nothing under a policy are told of, with one that looks at them") {
  using row = std::pair<std::vector<const char*>, std::vector<std::string>>; // settings, paths
  for (auto& [settings, paths] : {
         row{{}, {}},
         row{{"scheduler.policy=flood"}, {}},
         row{{"scheduler.policy=flood", "scheduler.hysteresis=0.5"}, {"scheduler.hysteresis"}},
         row{
           {"scheduler.policy=flood", "scheduler.cache_aware=true", "scheduler.dispatch_top_k=2"},
           {"scheduler.dispatch_top_k", "scheduler.cache_aware"}},
         row{
           {"scheduler.policy=round-robin", "scheduler.cache_aware=true"},
           {"scheduler.cache_aware"}},
         row{
           {"scheduler.policy=round-robin", "scheduler.power_of_two=true"},
           {"scheduler.power_of_two"}},
         row{{"scheduler.policy=slo", "scheduler.hysteresis=0.5"}, {}},
         row{ // what was sent counts by what is not cached there, in every mode of slo
           {"scheduler.policy=slo", "scheduler.adaptive_pd=true", "scheduler.hysteresis=0.5",
            "scheduler.cache_aware=true"},
           {"scheduler.hysteresis"}},
         row{{"scheduler.cache_aware=true", "scheduler.hysteresis=0.5"}, {}},
         row{{"scheduler.policy=cache-aware", "scheduler.hysteresis=0.5"}, {}},
       })
    CHECK(paths_of(idle_knobs(with(settings).scheduler)) == paths);
  auto idle = idle_knobs(with({"scheduler.policy=flood", "scheduler.hysteresis=0.5"}).scheduler);
  REQUIRE(idle.size() == 1);
  CHECK(
    idle[0].message == "is not looked at by policy flood; set scheduler.policy=load-balance");
}

TEST_CASE("a KV pool beyond the machine's memory is refused with both sizes") {
  auto config = with(
    {"engine.blocks=134217727", "engine.kv_bytes_per_token=64KiB", "http.listen=127.0.0.1:0",
     "admin.listen=127.0.0.1:0"});
  std::vector<config_problem> problems;
  check_parts(config, problems);
  CHECK(problems.empty()); // that it is too much for this machine is no mistake as such
  check_machine(config, false, problems);
  CHECK(problems.empty());
  check_machine(config, true, problems);
  REQUIRE(paths_of(problems) == std::vector<std::string>{"engine.blocks"});
  for (auto each : {"131072.0 GiB", "this machine has", "lower engine.blocks"})
    CHECK(problems[0].message.find(each) != std::string::npos);
}

TEST_CASE("addresses in use or not ours are told with the option that chooses another") {
  net::http_server_options options;
  auto taken = net::http_server::make(options);
  REQUIRE(taken.has_value());
  auto address = (*taken)->address();
  cluster_config config;
  std::vector<config_problem> problems;
  config.http.listen = address;
  config.admin.listen = "192.0.2.1:80"; // set aside for examples: nobody's
  check_machine(config, true, problems);
  REQUIRE(paths_of(problems) == std::vector<std::string>{"http.listen", "admin.listen"});
  CHECK(
    problems[0].message
    == address + ": address already in use; choose another with --http HOST:PORT");
  CHECK(problems[1].message.ends_with("; choose another with --admin HOST:PORT"));
  taken->reset();
  config.admin.listen = "127.0.0.1:0";
  problems.clear();
  check_machine(config, true, problems);
  CHECK(problems.empty());
}

} // namespace llumnix
