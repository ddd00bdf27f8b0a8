#include "config/load_config.hpp"
#include "config/knobs.hpp"
#include "config/near_name.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <fstream>
#include <tuple>

namespace llumnix {

namespace {

/// "path: message" of each problem, in order.
std::vector<std::string> told(const std::vector<config_problem>& problems) {
  std::vector<std::string> lines;
  for (auto& each : problems)
    lines.push_back(each.path + ": " + each.message);
  return lines;
}

} // namespace

TEST_CASE("every problem of a document is reported at once and the rest is taken") {
  cluster_config config;
  auto problems = told(load_json(
    R"({
      "node": {"heartbeat": "soon", "seeds": "127.0.0.1:1", "threads": -1, "roles": ["gateway", 7]},
      "engine": {"sped": 3, "speed": "fast", "blocks": 2.5, "prefix_cache": "yes", "max_num_seqs": 4294967296,
                 "max_waiting": 7},
      "http": {"max_body_bytes": "4 potatoes", "idle_timeout": 5000, "key": 12},
      "enigne": {"speed": 1},
      "cms": 4,
      "policy": "load-balance"
    })",
    config));
  std::vector<std::string> expected{
    "cms: is a section; its value is an object like {\"knob\": value}",
    "engine.blocks: 2.5 is no whole number",
    "engine.max_num_seqs: 4294967296 is no whole number from 0 to 4294967295",
    "engine.prefix_cache: yes is neither true nor false",
    "engine.sped: no such knob; did you mean engine.speed?",
    "engine.speed: fast is no number",
    "enigne: no such knob; did you mean engine?",
    "http.idle_timeout: 5000 is no duration; write it like \"250ms\", \"10s\" or \"2m\"",
    "http.key: the value is no string",
    "http.max_body_bytes: 4 potatoes is no size; write it like 65536, 64KiB or 2GiB",
    "node.heartbeat: soon is no duration; write it like 250ms, 10s or 2m",
    "node.roles: [\"gateway\",7] is no list of strings that are not empty",
    "node.seeds: 127.0.0.1:1 is no list of strings; write it like [\"a\", \"b\"]",
    "node.threads: -1 is no whole number from 0 to 4294967295",
    "policy: no such knob; did you mean scheduler.policy?",
  };
  CHECK(problems == expected);
  CHECK(config.engine.max_waiting == 7);
  CHECK(config.engine.speed == 1.0);
  CHECK(config.node.heartbeat == milliseconds{100});
}

TEST_CASE("a document fills knobs of every kind, comments allowed") {
  cluster_config config;
  auto problems = load_json(
    R"({ // of a small head
      "node": {"name": "head", "roles": ["gateway", "cms"], "heartbeat": "50ms", "incarnation": 18446744073709551615},
      "http": {"max_body_bytes": "64KiB", "max_header_bytes": 4096, "key": "secret"},
      /* engines */ "engine": {"speed": 2, "prefix_cache": false, "kv_bytes_per_token": "1KiB"}
    })",
    config);
  CHECK(told(problems).empty());
  CHECK(config.node.name == "head");
  CHECK(config.node.roles == std::vector<std::string>{"gateway", "cms"});
  CHECK(config.node.heartbeat == milliseconds{50});
  CHECK(config.node.incarnation == 18446744073709551615ull);
  CHECK(config.http.max_body_bytes == 65536);
  CHECK(config.http.max_header_bytes == 4096);
  CHECK(config.http.key == "secret");
  CHECK(config.engine.speed == 2.0);
  CHECK_FALSE(config.engine.prefix_cache);
  CHECK(config.engine.kv_bytes_per_token == 1024);
}

TEST_CASE("a document that is no JSON is placed by line and column") {
  cluster_config config;
  auto problems = load_json("{\n  \"node\": {,}\n}", config);
  REQUIRE(problems.size() == 1);
  CHECK(problems[0].path == "line 2, column 12");
  CHECK(load_json("", config).size() == 1);
  CHECK(
    told(load_json("[]", config))
    == std::vector<std::string>{"line 1, column 1: the configuration is one JSON object"});
}

TEST_CASE("a file that cannot be read or parsed is named") {
  cluster_config config;
  auto missing = load_file("no/such/file.json", config);
  REQUIRE(missing.size() == 1);
  CHECK(missing[0].path == "no/such/file.json");
  CHECK(load_file(".", config).size() == 1);

  std::string path = "load_config_test.json";
  std::ofstream{path} << "{\"engine\": {\"speed\": 3}}";
  CHECK(load_file(path, config).empty());
  CHECK(config.engine.speed == 3.0);
  std::ofstream{path} << "{oops";
  auto broken = load_file(path, config);
  std::remove(path.c_str());
  REQUIRE(broken.size() == 1);
  CHECK(broken[0].path == path + ", line 1, column 2");
}

TEST_CASE("what is wrong in a file is told with the file's name") {
  cluster_config config;
  std::string path = "load_config_named_test.json";
  std::ofstream{path} << R"({"engine": {"sped": 3, "speed": "fast"}})";
  auto problems = told(load_file(path, config));
  std::remove(path.c_str());
  CHECK(
    problems
    == std::vector<std::string>{
      path + ": engine.sped: no such knob; did you mean engine.speed?",
      path + ": engine.speed: fast is no number"});
}

TEST_CASE("a name that stands twice in one object is told, whatever its values") {
  using row = std::pair<const char*, std::vector<std::string>>; // document, paths
  for (
    auto& [document, paths] : {
      row{R"({"engine": {"speed": 2, "blocks": 2, "speed": 2}})", {"engine.speed"}},
      row{R"({"engine": {"speed": 2}, "engine": {"blocks": 2}})", {"engine"}},
      row{
        R"({"http": {"key": "a", "key": "b", "key": "c"}, "cms": {"expiry_s": 1, "expiry_s": 1}})",
        {"http.key", "http.key", "cms.expiry_s"}},
      row{R"({"engine": {"speed": 2}, "http": {"key": "speed"}, "node": {"name": "engine"}})", {}},
      row{R"({"node": {"seeds": ["127.0.0.1:1", "127.0.0.1:1"]}})", {}},
    }) {
    CAPTURE(document);
    cluster_config config;
    std::vector<std::string> found;
    for (auto& each : load_json(document, config)) {
      CHECK(each.message == "is given twice; keep one of them");
      found.push_back(each.path);
    }
    CHECK(found == paths);
  }
}

TEST_CASE("a setting sets one knob or says what is wrong with it") {
  using row = std::pair<const char*, const char*>; // setting, problem
  for (auto [setting, problem] : {
         row{"engine.speed=4", ""},
         row{"node.roles=gateway,cms", ""},
         row{"node.seeds=", ""},
         row{"engine.corrupt=a=b:1", ""},
         row{"http.max_body_bytes=2MiB", ""},
         row{"gateway.max_queue", "gateway.max_queue: a setting is written path.to.knob=value"},
         row{"=4", "=4: a setting is written path.to.knob=value"},
         row{"engine=4", "engine: is a section; set one of its knobs, as in node.name=head"},
         row{"engine.sepeed=4", "engine.sepeed: no such knob; did you mean engine.speed?"},
         row{"gateway.policy=x", "gateway.policy: no such knob; did you mean scheduler.policy?"},
         row{"zzz=1", "zzz: no such knob; `llumnix config` lists them"},
         row{"engine.speed=", "engine.speed: an empty value is no number"},
         row{"engine.speed=1x", "engine.speed: 1x is no number"},
         row{"engine.speed=nan", "engine.speed: nan is no number"},
         row{"engine.prefix_cache=1", "engine.prefix_cache: 1 is neither true nor false"},
         row{"node.roles=a,,b", "node.roles: a,,b has an empty item; write a list like a,b"},
         row{"node.roles=a,", "node.roles: a, has an empty item; write a list like a,b"},
         row{
           "engine.kv_bytes_per_token=8GiB",
           "engine.kv_bytes_per_token: 8GiB is no size; write it like 65536, 64KiB or 2GiB"},
         row{"admin.key=***", "admin.key: the value is the placeholder of a secret, not a secret"},
         row{"redis.password=p\xe4ss", "redis.password: the value is not written in UTF-8"},
         row{"node.seeds=\xff", "node.seeds: \xff is not written in UTF-8"},
       }) {
    CAPTURE(setting);
    cluster_config config;
    auto problems = told(apply_setting(setting, config));
    CHECK((problems.empty() ? "" : problems.front()) == problem);
    CHECK(problems.size() <= 1);
  }
}

TEST_CASE("settings arrive in the knobs they name") {
  cluster_config config;
  for (auto setting :
       {"node.roles=gateway,cms", "engine.corrupt=a=b:1", "redis.timeout=2s", "http.key=k"})
    CHECK(apply_setting(setting, config).empty());
  CHECK(config.node.roles == std::vector<std::string>{"gateway", "cms"});
  CHECK(config.engine.corrupt == "a=b:1");
  CHECK(config.redis.timeout == milliseconds{2000});
  CHECK(config.http.key == "k");
}

TEST_CASE("edits are counted and only near names are suggested") {
  using distance = std::tuple<const char*, const char*, std::size_t>;
  for (auto [from, to, edits] :
       {distance{"", "abc", 3}, distance{"abc", "abc", 0}, distance{"abc", "acb", 1},
        distance{"abc", "ab", 1}, distance{"kitten", "sitting", 3}, distance{"speed", "sped", 1}}) {
    CAPTURE(from);
    CHECK(edit_distance(from, to) == edits);
    CHECK(edit_distance(to, from) == edits);
  }
  constexpr std::string_view names[] = {"status", "actors", "up"};
  CHECK(nearest_name("stauts", names) == "status");
  CHECK(nearest_name("ip", names) == "up");
  CHECK(nearest_name("console", names) == "");
  constexpr std::string_view alike[] = {"state", "status"};
  CHECK(nearest_name("statu", alike) == "status"); // one edit from either
  CHECK(nearest_name("statr", alike) == "state");
}

TEST_CASE("in a known section it is the rest that must be near") {
  CHECK(nearest_path("scheduler.foo") == "");
  CHECK(nearest_path("scheduler.sead") == "scheduler.seed");
  CHECK(nearest_path("shceduler.seed") == "scheduler.seed");
  CHECK(nearest_path("gateway.policy") == "scheduler.policy");
  CHECK(nearest_path("schduler") == "scheduler");
  CHECK(nearest_path("scheduler.") == "");
  CHECK(nearest_path(".seed") == "scheduler.seed");
  CHECK(nearest_path("") == "");
}

} // namespace llumnix
