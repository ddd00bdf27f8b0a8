#include "apps/reference/gateway_flags.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

namespace llumnix {

namespace {

using words = std::vector<std::string>;

struct applied {
  explicit applied(const given_flags& flags, const words& settings = {}) {
    set_reference_defaults(config);
    for (const auto& setting : settings)
      REQUIRE(apply_setting(setting, config).empty());
    effects = apply_reference_flags(flags, config);
  }
  /// "--flag: what is wrong", each on its own.
  words problems() const {
    words all;
    for (const auto& each : effects.problems)
      all.push_back(each.path + ": " + each.message);
    return all;
  }

  cluster_config config;
  flag_effects effects;
};

std::string knob(const cluster_config& config, const std::string& path) {
  auto lines = describe(config);
  auto at = lines.find("\n" + path + " ");
  REQUIRE(at != lines.npos);
  auto value = lines.find_first_not_of(' ', at + path.size() + 1);
  return lines.substr(value, lines.find(' ', value) - value);
}

} // namespace

TEST_CASE("the reference's flags set knobs") {
  struct row {
    given_flags flags;
    std::string path, value;
  };
  for (const auto& [flags, path, value] : {
         row{{}, "http.listen", "0.0.0.0:8001"},
         row{{{"port", "80"}}, "http.listen", "0.0.0.0:80"},
         row{{{"host", "127.0.0.1"}}, "http.listen", "127.0.0.1:8001"},
         row{{{"host", "::1"}, {"port", "0"}}, "http.listen", "[::1]:0"},
         row{{{"host", "[::1]"}}, "http.listen", "[::1]:8001"},
         row{{}, "scheduler.full_mode", "false"},
         row{{}, "node.roles", "gateway,scheduler,cms,console"},
         row{{}, "discovery.redis", "redis:6379"},
         row{
           {{"discovery-redis-host", "r"}, {"discovery-redis-port", "1"}},
           "discovery.redis",
           "r:1"},
         row{{{"discovery-redis-username", "u"}}, "discovery.redis_username", "u"},
         row{{{"discovery-redis-socket-timeout", "0.25"}}, "discovery.timeout", "250ms"},
         row{{{"discovery-redis-status-ttl-ms", "1500"}}, "discovery.record_expiry", "1500ms"},
         row{{{"discovery-redis-refresh-interval-ms", "200"}}, "discovery.redis_interval", "200ms"},
         row{{{"llm-backend-discovery", "etcd"}}, "discovery.etcd", "etcd:2379"},
         row{
           {{"llm-backend-discovery", "etcd"}, {"discovery-etcd-endpoints", "http://a:1,b:2"}},
           "discovery.etcd",
           "a:1,b:2"},
         row{
           {{"llm-backend-discovery", "etcd"}, {"discovery-etcd-dial-timeout", "5.0"}},
           "discovery.timeout",
           "5s"},
         row{
           {{"llm-backend-discovery", "etcd"}, {"discovery-etcd-lease-ttl", "30"}},
           "discovery.record_expiry",
           "30s"},
         row{
           {{"llm-backend-discovery", "etcd"}, {"discovery-etcd-refresh-interval-sec", "60"}},
           "discovery.etcd_interval",
           "1m"},
         row{
           {{"llm-backend-discovery", "endpoints"},
            {"llm-backend-endpoints", "h1:8000, h2,,[::1]:9"}},
           "gateway.engines",
           "http://[::1]:9,http://h1:8000,http://h2:80"},
         row{{{"max-queue-size", "7"}}, "gateway.max_queue", "7"},
         row{{{"wait-scheduling-timeout", "1m30s"}}, "gateway.wait_for_instance", "90s"},
         row{{{"scheduling-policy", "round-robin"}}, "scheduler.policy", "round-robin"},
         row{{{"scheduler-endpoints", "s:1"}}, "gateway.scheduler", "s:1"},
         row{{{"scheduler-endpoints", "http://s,t:2"}}, "gateway.scheduler", "s:80"},
         row{{{"scheduler-endpoints", "[::1]"}}, "gateway.scheduler", "[::1]:80"},
         row{{{"scheduler-endpoints", "[::1]:9"}}, "gateway.scheduler", "[::1]:9"},
         row{
           {{"scheduler-endpoints", "s:1"}, {"scheduling-policy", "slo"}},
           "scheduler.policy",
           "load-balance"},
         row{
           {{"scheduler-endpoints", "s:1"}, {"scheduling-policy", "flood"}},
           "scheduler.policy",
           "flood"},
         row{{{"forward-tokens", "false"}}, "gateway.scheduler_tokens", "false"},
         row{
           {{"requests-report-duration", "1.5"}, {"enable-full-mode-scheduling", "false"}},
           "gateway.scheduler_reports",
           "1500ms"},
         row{{{"requests-report-duration", "1.5"}}, "gateway.scheduler_reports", "0ms"},
         row{{{"dispatch-top-k", "3"}}, "scheduler.dispatch_top_k", "3"},
         row{
           {{"dispatch-neutral-load-threshold", "0.5"}}, "scheduler.neutral_load_threshold", "0.5"},
         row{{{"retry-max-count", "20"}}, "gateway.max_placements", "21"},
         row{{{"retry-max-count", "0"}}, "gateway.max_placements", "8"},
         row{
           {{"port", "80"}, {"extra-args", "port=81,max-queue-size='9'"}},
           "http.listen",
           "0.0.0.0:81"},
         row{{{"extra-args", "port=81,max-queue-size='9'"}}, "gateway.max_queue", "9"},
         row{{{"extra-args", "port=x,nothing=1"}}, "http.listen", "0.0.0.0:8001"},
       }) {
    CAPTURE(path);
    CAPTURE(value);
    applied x{flags};
    CHECK(x.problems() == words{});
    CHECK(knob(x.config, path) == value);
  }
}

TEST_CASE("settings stay where no flag says otherwise") {
  applied by_file{{}, {"discovery.files=f"}};
  CHECK(by_file.config.discovery.redis.empty());
  applied by_list{{}, {"gateway.engines=http://a:1", "http.listen=127.0.0.1:5"}};
  CHECK(by_list.config.discovery.redis.empty());
  CHECK(by_list.config.http.listen == "127.0.0.1:5");
  applied both{
    {{"llm-backend-discovery", "redis"}, {"port", "6"}},
    {"discovery.files=f", "http.listen=127.0.0.1:5"}};
  CHECK(both.config.discovery.redis == "redis:6379");
  CHECK(both.config.discovery.files == words{"f"});
  CHECK(both.config.http.listen == "127.0.0.1:6");
}

TEST_CASE("every flag is accepted with the reference's own default, and changes nothing then") {
  applied without{{}};
  for (const auto& flag : gateway_flags()) {
    CAPTURE(flag.name);
    given_flags flags{{std::string{flag.name}, std::string{flag.preset}}};
    applied x{flags};
    CHECK(x.problems() == words{});
    CHECK(to_json_with_secrets(x.config) == to_json_with_secrets(without.config));
    CHECK_FALSE(x.effects.debug);
  }
}

TEST_CASE("what a flag cannot do is said, with its name") {
  using row = std::pair<given_flags, std::string>;
  for (const auto& [flags, message] : {
         row{{{"port", "x"}}, "--port: x is no whole number"},
         row{{{"port", ""}}, "--port: an empty value is no whole number"},
         row{{{"port", "70000"}}, "--port: 70000 is no port; write 0 to 65535"},
         row{{{"host", ""}}, "--host: an empty value is no address"},
         row{{{"host", "a b"}}, "--host: a b is no address"},
         row{{{"forward-tokens", "yes"}}, "--forward-tokens: yes is neither true nor false"},
         row{
           {{"discovery-redis-socket-timeout", "nan"}},
           "--discovery-redis-socket-timeout: nan is no number"},
         row{
           {{"discovery-redis-socket-timeout", "-1"}},
           "--discovery-redis-socket-timeout: -1 is no time in s"},
         row{
           {{"wait-scheduling-timeout", "5"}},
           "--wait-scheduling-timeout: 5 is no duration; write it like 250ms, 10s or 1m30s"},
         row{{{"max-queue-size", "-1"}}, "--max-queue-size: -1 is no whole number"},
         row{{{"retry-max-count", "-1"}}, "--retry-max-count: -1 is below 0"},
         row{
           {{"llm-backend-discovery", "consul"}},
           "--llm-backend-discovery: consul is none of redis, etcd, endpoints"},
         row{
           {{"llm-backend-discovery", "endpoints"}},
           "--llm-backend-endpoints: names no engine; write HOST:PORT,HOST:PORT"},
         row{
           {{"llm-backend-discovery", "endpoints"}, {"llm-backend-endpoints", "type=prefill@a:1"}},
           "--llm-backend-endpoints: takes no options of engines; write them to a file and --set "
           "discovery.files=FILE"},
         row{
           {{"tokenizer-path", "/t"}},
           "--tokenizer-path: this build has no tokenizers: engines tokenize themselves; leave "
           "the flag out to go on"},
         row{{{"scheduler-discovery", "dns"}}, "--scheduler-discovery: dns is none of endpoints"},
         row{
           {{"requests-report-duration", "-1"}}, "--requests-report-duration: -1 is no time in s"},
         row{
           {{"batch-request-timeout", "4m"}},
           "--batch-request-timeout: this build has no batch service; leave the flag out to go on"},
         row{
           {{"extra-args", "route-policy=weight"}},
           "--route-policy: this build has no routes to other services; leave the flag out to go "
           "on"},
         row{{{"nonsense", "1"}}, "--nonsense: is no flag"},
       }) {
    CAPTURE(message);
    applied x{flags};
    auto problems = x.problems();
    REQUIRE(problems.size() == 1);
    CHECK(problems.front().starts_with(message));
  }
}

TEST_CASE("what has no effect is noted") {
  using row = std::pair<given_flags, words>;
  for (const auto& [flags, notes] : {
         row{
           {{"wait-queue-threads", "9"}},
           {"--wait-queue-threads: requests are placed as they come, without workers"}},
         row{{{"wait-queue-interval", "1000ms"}}, {}}, // the default, written otherwise
         row{
           {{"scheduler-endpoints", "a:1,b:1"}},
           {"--scheduler-endpoints: of several the first is asked, a:1"}},
         row{
           {{"scheduler-endpoints", "a:1"}, {"scheduling-policy", "round-robin"}},
           {"--scheduler-endpoints: is not asked: round-robin is what gateways do by themselves"}},
         row{
           {{"requests-report-duration", "1"}},
           {"--requests-report-duration: a scheduler in full mode wants none; "
            "--enable-full-mode-scheduling=false"}},
         row{
           {{"discovery-etcd-endpoints", "a:1"}},
           {"--discovery-etcd-endpoints: is not used: engines are found by redis"}},
         row{
           {{"llm-backend-endpoints", "a:1"}},
           {"--llm-backend-endpoints: is not used: engines are found by redis"}},
         row{
           {{"extra-args", "port,x=1,port=y"}},
           {"--extra-args: port has no '=': passed over",
            "--extra-args: there is no flag x: passed over",
            "--extra-args: port: y is no whole number: passed over"}},
       }) {
    applied x{flags};
    CHECK(x.problems() == words{});
    CHECK(x.effects.notes == notes);
  }
  CHECK(applied{{{"v", "4"}}}.effects.debug);
}

TEST_CASE("flags are told apart") {
  std::set<std::string_view> names;
  for (const auto& flag : gateway_flags()) {
    CAPTURE(flag.name);
    CHECK(names.insert(flag.name).second);
    CHECK_FALSE(flag.meaning.empty());
    CHECK(flag.word.empty() == (flag.fate == flag_fate::works));
  }
}

TEST_CASE("a problem with a knob is told by the name of the flag that set it") {
  struct row {
    given_flags given;
    const char* path;
    const char* told;
  };
  for (const auto& [given, path, told] :
       {row{
          {{"dispatch-top-k", "0"}},
          "scheduler.dispatch_top_k",
          "--dispatch-top-k (scheduler.dispatch_top_k)"},
        row{{{"port", "1"}}, "http.listen", "--port (http.listen)"},
        row{{{"host", "a"}}, "http.listen", "--host (http.listen)"},
        row{
          {{"extra-args", "max-queue-size=0"}},
          "gateway.max_queue",
          "--max-queue-size (gateway.max_queue)"},
        row{{{"port", "1"}}, "gateway.max_queue", "gateway.max_queue"}, // by --set, or a file
        row{{{"max-queue-size", "1"}}, "--max-queue-size", "--max-queue-size"},
        row{{{"no-such-flag", "1"}}, "gateway.max_queue", "gateway.max_queue"}}) {
    CAPTURE(told);
    std::vector<config_problem> problems{{path, "is wrong"}};
    name_flags(given, problems);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].path == told);
    CHECK(problems[0].message == "is wrong");
  }
}

} // namespace llumnix
