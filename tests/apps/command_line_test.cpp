#include "apps/cli_common.hpp"
#include "apps/commands.hpp"

#include <doctest/doctest.h>

#include <algorithm>

namespace llumnix {

namespace {

struct program {
  program() {
    app.require_subcommand(1);
    for (auto add :
         {add_up_command, add_serve_command, add_status_command, add_actors_command,
          add_requests_command, add_why_command, add_config_command})
      add(app, chosen);
  }

  /// What the user is told; empty when the command line is right.
  std::string told(std::vector<std::string> arguments) {
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
    {"status", "--admin", "127.0.0.1:1", "--key", "k", "--json"},
    {"why", "chatcmpl-x"},
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
    {{"serve", "--redy-fd", "3"}, "unknown option --redy-fd"}, // hidden options are not suggested
    {{"why", "--jsn", "x"}, "unknown option --jsn; did you mean --json?"},
    {{"status", "more"}, "unexpected argument more"},
    {{"up", "--engines", "0"}, "--engines: Value 0 not in range 1 to 256"},
    {{"up", "--for", "3"}, "--for: 3 is no duration; write it like 250ms, 10s or 2m"},
    {{"up", "--http", "here"}, "--http: here is no address; write HOST:PORT"},
    {{"up", "--redis", "nowhere"}, "--redis: nowhere is neither off, spawn nor HOST:PORT"},
    {{"up", "--engine", "http://127.0.0.1:1"},
     "--engine: this build runs modeled engines only; their number is --engines N"},
    {{"up", "--scheduling", "lite"},
     "--scheduling: this build has full scheduling only; leave the option out"},
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
  for (auto name : {"--prefill", "--decode", "--engine ", "--scheduling", "--demo"}) {
    CAPTURE(name);
    CHECK(help.find(name) == help.npos);
    CHECK(
      run.told({"up", std::string{name, std::string_view{name}.find_last_not_of(' ') + 1}})
        .find("this build")
      != std::string::npos);
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
