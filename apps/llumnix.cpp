#include "apps/cli_common.hpp"
#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "apps/reference/gateway_flags.hpp"
#include "apps/reference/go_style.hpp"
#include "apps/reference/scheduler_flags.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace {

int wrong_usage(const CLI::App& app, const std::string& message) {
  auto named = app.get_subcommands();
  auto command = "llumnix" + (named.empty() ? "" : " " + named.front()->get_name());
  std::fprintf(
    stderr, "%s: %s\nTry: %s --help\n", command.c_str(), message.c_str(), command.c_str());
  return llumnix::exit_code::usage;
}

bool is_command(const CLI::App& app, const std::string& word) {
  return !app.get_subcommands([&](const CLI::App* each) { return each->get_name() == word; })
            .empty();
}

/// The command line as CLI11 wants it: without the program, the last word first.
std::vector<std::string> words_of(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.front() == "gateway")
    words = llumnix::without_go_style(llumnix::gateway_flags(), words);
  else if (words.front() == "scheduler")
    words = llumnix::without_go_style(llumnix::scheduler_flags(), words);
  std::reverse(words.begin(), words.end());
  return words;
}

void describe(CLI::App& app) {
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer("A cluster on this machine, a look at it, and a request:\n"
             "  llumnix up\n"
             "  llumnix status\n"
             "  llumnix why REQUEST\n"
             "  llumnix migrate REQUEST --to INSTANCE\n"
             "Each command explains itself: llumnix COMMAND --help\n");
}

} // namespace

int main(int argc, char** argv) {
  using namespace llumnix;
  CLI::App app{
    "Llumnix serves large language models from many engines as if they were one.", "llumnix"};
  command_action chosen;
  describe(app);
  for (auto add :
       {add_up_command, add_serve_command, add_gateway_command, add_scheduler_command,
        add_status_command, add_actors_command, add_requests_command, add_why_command,
        add_profile_command, add_migrate_command, add_drain_command, add_undrain_command,
        add_load_command, add_decide_command, add_config_command})
    add(app, chosen);

  if (argc == 1) {
    std::fputs(app.help().c_str(), stderr);
    return exit_code::usage;
  }
  if (argv[1][0] != '-' && !is_command(app, argv[1]))
    return wrong_usage(app, unknown_command_message(app, argv[1]));
  try {
    app.parse(words_of(argc, argv));
  } catch (const CLI::CallForHelp&) {
    return write_out(app.help());
  } catch (const CLI::ParseError& failure) {
    return wrong_usage(app, usage_message(app, failure));
  }
  try {
    return chosen();
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "llumnix: %s\n", failure.what());
    return exit_code::failed;
  }
}
