#include "apps/cli_common.hpp"
#include "apps/commands.hpp"
#include "apps/reference/gateway_flags.hpp"
#include "apps/reference/go_style.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace llumnix {

namespace {

struct program {
  program() {
    app.require_subcommand(1);
    for (auto add :
         {add_up_command, add_serve_command, add_gateway_command, add_status_command,
          add_actors_command, add_requests_command, add_why_command, add_profile_command,
          add_migrate_command, add_drain_command, add_undrain_command, add_load_command,
          add_config_command})
      add(app, chosen);
  }

  /// What the user is told; empty when the command line is right.
  std::string told(std::vector<std::string> arguments) {
    if (arguments.front() == "gateway")
      arguments = without_go_style(gateway_flags(), arguments);
    std::reverse(arguments.begin(), arguments.end()); // as CLI11 wants them
    try {
      app.parse(arguments);
      return {};
    } catch (const CLI::ParseError& failure) {
      return usage_message(app, failure);
    }
  }

  CLI::App app{"a test", "llumnix"};
  command_action chosen;
};

} // namespace

TEST_CASE("a right command line chooses an action and does nothing yet") {
  std::vector<std::vector<std::string>> rows{
    {"up"},
    {"up", "--engines", "2", "--redis", "spawn", "--for", "1.5s", "--set", "engine.speed=4",
     "--set", "node.threads=1"},
    {"up", "--redis", "127.0.0.1:6379", "--json", "--log-level", "debug"},
    {"serve", "--name", "a", "--roles", "gateway,cms", "--seeds", "127.0.0.1:1,127.0.0.1:2",
     "--drain", "0ms"},
    {"serve", "--ready-fd", "3", "--incarnation", "2"},
    {"serve", "--roles", "gateway,cms", "--engine", "http://127.0.0.1:1,http://127.0.0.1:2"},
    {"up", "--engine", " http://127.0.0.1:1, http://127.0.0.1:2 ", "--engine",
     "http://127.0.0.1:3"},
    {"gateway"},
    {"gateway", "-port=80", "--host", "::1", "-forward-tokens", "--port", "81"},
    {"gateway", "--discovery-redis-password=", "--discovery-redis-username", "-a", "--set",
     "http.key=k"},
    {"gateway", "--extra-args", "port=1,host='a,b'", "--log-level", "warn", "-v", "2"},
    {"status", "--admin", "127.0.0.1:1", "--key", "k", "--json"},
    {"status", "--admin", "http://127.0.0.1:8090"},
    {"status", "--admin", "http://[::1]:8090/behind/a/proxy/"},
    {"why", "chatcmpl-x"},
    {"profile"},
    {"profile", "--out", "a-new/directory", "--role", "decode"},
    {"profile", "--out", ".", "--json"},
    {"migrate", "chatcmpl-x", "--to", "engine-1", "--json"},
    {"migrate", "--to", "engine-1", "x"},
    {"migrate", "--from", "a", "--to", "b"},
    {"migrate", "--from", "a", "--to", "b", "--policy", "FCWSR", "--num-requests", "-1"},
    {"migrate", "--from", "a", "--to", "b", "--num-tokens", "1024"},
    {"migrate", "--from", "a", "--to", "b", "--kv-ratio", "0.5"},
    {"drain", "engine-1", "--timeout", "5m", "--admin", "127.0.0.1:1"},
    {"undrain", "engine-1"},
    {"load", "--requests", "1000000", "--rate", "0.5", "--arrival", "gamma", "--cv", "4"},
    {"load", "--trace", "x", "--format", "jsonl", "--scale", "1e3", "--limit", "5"},
    {"load", "--temperature", "1.5", "--seed", "18446744073709551615", "--n", "16", "--no-stream"},
    {"config", "--schema"},
  };
  for (auto& row : rows) {
    CAPTURE(row.front());
    program run;
    CHECK(run.told(row) == "");
    CHECK(run.chosen);
  }
}

TEST_CASE("a wrong command line is explained, with the nearest name") {
  struct row {
    std::vector<std::string> arguments;
    std::string message;
  };
  std::vector<row> rows{
    {{"up", "--enginse", "3"}, "unknown option --enginse; did you mean --engines?"},
    {{"up", "--enginse=3"}, "unknown option --enginse; did you mean --engines?"},
    {{"up", "--qqqqqq"}, "unknown option --qqqqqq"},
    {{"gateway", "--prot", "1"}, "unknown option --prot; did you mean --port?"},
    {{"gateway", "-tokeniser-path", "x"},
     "unknown option --tokeniser-path; did you mean --tokenizer-path?"},
    {{"gateway", "--port"}, "--port wants a value: --port N"},
    {{"gateway", "--port", "1", "more"}, "unexpected argument more"},
    {{"serve", "--redy-fd", "3"}, "unknown option --redy-fd"}, // hidden options are not suggested
    {{"why", "--jsn", "x"}, "unknown option --jsn; did you mean --json?"},
    {{"status", "more"}, "unexpected argument more"},
    {{"up", "--engines", "0"}, "--engines: 0 is no whole number from 1 to 256"},
    {{"up", "--engines", "1.5"}, "--engines: 1.5 is no whole number from 1 to 256"},
    {{"up", "--engines", "x"}, "--engines: x is no whole number from 1 to 256"},
    {{"up", "--engines", ""}, "--engines: an empty value is no whole number from 1 to 256"},
    {{"up", "--engine", ""}, "--engine: is empty"},
    {{"up", "--engine", "a,,b"}, "--engine: a,,b has an empty value beside a comma"},
    {{"serve", "--engine", "a, "}, "--engine: a,  has an empty value beside a comma"},
    {{"up", "--engine"}, "--engine wants a value: --engine modeled|URL,..."},
    {{"up", "--engines"}, "--engines wants a value: --engines N"},
    {{"up", "--engines", "2", "--engines", "3"}, "--engines is given more than once"},
    {{"up", "--json=x"}, "--json takes no value"},
    {{"up", "--log-level", "loud"}, "--log-level: loud is none of debug, info, warn, error, off"},
    {{"up", "--log-level", "wran"},
     "--log-level: wran is none of debug, info, warn, error, off; did you mean warn?"},
    {{"up", "--scheduling", "half"}, "--scheduling: half is none of full, lite"},
    {{"up", "--for", "3"}, "--for: 3 is no duration; write it like 250ms, 10s or 2m"},
    {{"up", "--for", ""}, "--for: an empty value is no duration; write it like 250ms, 10s or 2m"},
    {{"up", "--http", "here"}, "--http: here is no address; write HOST:PORT"},
    {{"up", "--http", "127.0.0.1:99999"},
     "--http: 127.0.0.1:99999 is no address; write HOST:PORT, the port up to 65535"},
    {{"up", "--redis", "nowhere"}, "--redis: nowhere is neither off, spawn nor HOST:PORT"},
    {{"serve", "--incarnation", "-1"},
     "--incarnation: -1 is no whole number from 0 to 18446744073709551615"},
    {{"status", "--admin", "127.0.0.1:99999"},
     "--admin: 127.0.0.1:99999 is no address; write HOST:PORT, the port up to 65535"},
    {{"status", "--admin", "nonsense"}, "--admin: nonsense is no address; write HOST:PORT"},
    {{"status", "--admin", "http://nonsense:0"},
     "--admin: http://nonsense:0 is no address; write HOST:PORT"},
    {{"status", "--admin", "127.0.0.1:0"},
     "--admin: 127.0.0.1:0 has port 0, which nobody can dial"},
    {{"status", "--admin"}, "--admin wants a value: --admin HOST:PORT"},
    {{"why", ""}, "give a request id"},
    {{"profile", "--role", "prefil"},
     "--role: prefil is none of neutral, prefill, decode; did you mean prefill?"},
    {{"profile", "--out", "/dev/null"}, "--out: /dev/null is a file, no directory"},
    {{"profile", "--out", ""}, "--out: is empty"},
    {{"migrate", "x"}, "say where to: --to INSTANCE"},
    {{"migrate", "--to", "b"}, "say what is to move: a request id, or --from INSTANCE"},
    {{"migrate", "x", "--from", "a", "--to", "b"},
     "give a request id or --from INSTANCE, not both"},
    {{"migrate", "--from", "a", "--to", "b", "--policy", "RS"},
     "--policy: RS is none of SR, LR, LCR, FCR, FCW, FCWSR, LPSR; did you mean SR?"},
    {{"migrate", "--from", "a", "--to", "b", "--num-requests", "0"},
     "--num-requests: 0 is no whole number from 1 to 1000000000, and not -1, which stands for all"},
    {{"migrate", "--from", "a", "--to", "b", "--num-requests", "-2"},
     "--num-requests: -2 is no whole number from 1 to 1000000000, and not -1, which stands for "
     "all"},
    {{"migrate", "--from", "a", "--to", "b", "--num-requests", "all"},
     "--num-requests: all is no whole number from 1 to 1000000000, and not -1, which stands for "
     "all"},
    {{"migrate", "--from", "a", "--to", "b", "--num-requests", "1", "--kv-ratio", "1"},
     "--num-requests, --num-tokens and --kv-ratio exclude each other; give one of them"},
    {{"drain"}, "instance is required"},
    {{"drain", ""}, "give an instance"},
    {{"drain", "x", "--timeout", "0ms"}, "--timeout is from 1ms to 24h"},
    {{"drain", "x", "--timeout", "3"},
     "--timeout: 3 is no duration; write it like 250ms, 10s or 2m"},
    {{"why"}, "request is required"},
    {{"load", "--requests", "0"}, "--requests: 0 is no whole number from 1 to 1000000000000"},
    {{"load", "--requests", "99999999999999999999"},
     "--requests: 99999999999999999999 is no whole number from 1 to 1000000000000"},
    {{"load", "--requests"}, "--requests wants a value: --requests N"},
    {{"load", "--arrival", "foo", "--rate", "3"},
     "--arrival: foo is none of poisson, uniform, gamma"},
    {{"load", "--arrival", "gama", "--rate", "3"},
     "--arrival: gama is none of poisson, uniform, gamma; did you mean gamma?"},
    {{"load", "--arrival", "gamma"}, "--arrival requires --rate"},
    {{"load", "--rate", "0"}, "--rate: 0 is no number from 0.001 to 1000000"},
    {{"load", "--rate", "nan"}, "--rate: nan is no number from 0.001 to 1000000"},
    {{"load", "--cv", "x", "--rate", "1"}, "--cv: x is no number from 0.01 to 100"},
    {{"load", "--temperature", "nan"}, "--temperature: nan is no number from 0 to 2"},
    {{"load", "--seed", "-1"}, "--seed: -1 is no whole number from 0 to 18446744073709551615"},
    {{"load", "--n", "0"}, "--n: 0 is no whole number from 1 to 128"},
    {{"load", "--format", "csv", "--trace", "x"},
     "--format: csv is none of azure_csv, mooncake_jsonl, jsonl"},
    {{"load", "--limit", "0", "--trace", "x"}, "--limit: 0 is no whole number from 1 to 10000000"},
  };
  for (auto& each : rows) {
    CAPTURE(each.message);
    program run;
    CHECK(run.told(each.arguments) == each.message);
    CHECK_FALSE(run.chosen);
  }
}

TEST_CASE("options that this build has not are absent from the help") {
  program run;
  auto help = run.app.get_subcommand("up")->help();
  for (auto name : {"--demo"}) {
    CAPTURE(name);
    CHECK(help.find(name) == help.npos);
    CHECK(run.told({"up", name}).find("this build") != std::string::npos);
  }
  auto serve = run.app.get_subcommand("serve")->help();
  CHECK(serve.find("--ready-fd") == serve.npos);
}

TEST_CASE("every command teaches by an example") {
  program run;
  for (auto* command : run.app.get_subcommands([](const CLI::App*) { return true; })) {
    CAPTURE(command->get_name());
    CHECK(command->help().find("\n  llumnix " + command->get_name()) != std::string::npos);
  }
}

TEST_CASE("no help shows what a library made of a value's bounds") {
  program run;
  for (auto* command : run.app.get_subcommands([](const CLI::App*) { return true; })) {
    CAPTURE(command->get_name());
    auto help = command->help();
    for (auto odd : {"->", " in [", " in {", "POSITIVE", "e+", "OR {"}) {
      CAPTURE(odd);
      CHECK(help.find(odd) == help.npos);
    }
  }
  CHECK(run.app.get_subcommand("load")->help().find("gateway.max_choices") != std::string::npos);
}

TEST_CASE("a word that is no command is answered with the nearest one") {
  program run;
  CHECK(
    unknown_command_message(run.app, "stauts") == "no such command: stauts; did you mean status?");
  CHECK(unknown_command_message(run.app, "console") == "no such command: console");
}

TEST_CASE("a wildcard address is dialled on loopback") {
  using row = std::pair<const char*, const char*>;
  for (auto [listened, dialled] :
       {row{"0.0.0.0:80", "127.0.0.1:80"}, row{"[::]:80", "[::1]:80"},
        row{"10.0.0.1:80", "10.0.0.1:80"}, row{"nonsense", "nonsense"}})
    CHECK(dialable(listened) == dialled);
}

TEST_CASE("an address off loopback is explained by the flags that were given, and no other") {
  std::vector<config_problem> problems{
    {"http.listen", "0.0.0.0:80 is off loopback; set http.key"},
    {"http.listen", "0.0.0.0:80 is also admin.listen"},
    {"admin.listen", "0.0.0.0:81 is off loopback; set admin.key"}};
  auto others = problems;
  explain_listener({"http.listen", "0.0.0.0:80", "for clients (http.key)", "http.open"}, problems);
  CHECK(problems[0].path == "--host");
  CHECK(
    problems[0].message
    == "0.0.0.0:80 is off loopback, where everybody may use it; give --host 127.0.0.1, or set a "
       "key for clients (http.key), or allow it with --set http.open=true");
  for (auto i : {1u, 2u}) {
    CHECK(problems[i].path == others[i].path);
    CHECK(problems[i].message == others[i].message);
  }
}

TEST_CASE("settings come after the file, and problems of both are told") {
  config_options options{
    .file = "no-such-file.json", .settings = {"engine.speed=2", "engine.sped=3"}};
  cluster_config config;
  auto problems = load_options(options, config);
  REQUIRE(problems.size() == 2);
  CHECK(problems[0].path == "no-such-file.json");
  CHECK(problems[1].path == "engine.sped");
  CHECK(config.engine.speed == 2.0);
}

} // namespace llumnix
