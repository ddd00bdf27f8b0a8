#include "apps/cli_common.hpp"
#include "apps/commands.hpp"
#include "apps/decide/decide_scene.hpp"
#include "apps/decide/scene_reader.hpp"
#include "apps/decide/scene_source.hpp"
#include "apps/exit_codes.hpp"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

namespace llumnix {

namespace {

struct decide_options {
  std::string file; ///< "-": standard input
  bool pretty = false;
  bool json = false; ///< what the answers are anyway
  log_options log{.level = "warn"};
};

/// The exit code for the only scene of a file.
int code_of(const scene_answer& answer) {
  if (is_error(answer))
    return exit_code::usage;
  return is_refusal(answer) ? exit_code::refused : exit_code::done;
}

int answer_all(std::istream& from, const decide_options& options) {
  scene_source scenes{from, scene_size_max};
  std::size_t answered = 0, errors = 0;
  int code = exit_code::done;
  while (auto text = scenes.next()) {
    auto answer = decide(*text);
    auto lax = nlohmann::json::error_handler_t::replace; // it may quote what is no UTF-8
    auto line = write_answer(answer).dump(options.pretty ? 2 : -1, ' ', false, lax) + "\n";
    if (auto written = write_out(line); written != exit_code::done)
      return written;
    code = code_of(answer);
    errors += is_error(answer) ? 1 : 0;
    ++answered;
  }
  if (from.bad() || answered == 0) {
    std::fprintf(stderr, "llumnix: %s holds no scene\n", options.file.c_str());
    return exit_code::usage;
  }
  if (answered == 1)
    return code;
  return errors == 0 ? exit_code::done : exit_code::usage;
}

int answer_file(const decide_options& options) {
  configure_log(options.log, "decide");
  if (options.file == "-") {
    std::ios::sync_with_stdio(false);
    return answer_all(std::cin, options);
  }
  std::ifstream file{options.file, std::ios::binary};
  if (std::filesystem::is_directory(options.file))
    errno = EISDIR;
  else if (file)
    return answer_all(file, options);
  std::fprintf(
    stderr, "llumnix: %s cannot be read: %s\n", options.file.c_str(), std::strerror(errno));
  return exit_code::usage;
}

} // namespace

void add_decide_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<decide_options>();
  auto* command = app.add_subcommand(
    "decide", "what the scheduler or rescheduler would do in a cluster that is written down");
  command
    ->add_option("scene", options->file, "JSON: one scene, or one a line; - reads standard input")
    ->required()
    ->type_name("FILE");
  command->add_flag("--pretty", options->pretty, "spread each answer over lines");
  command->add_flag("--json", options->json, "print JSON and nothing else, as it does anyway");
  add_log_options(*command, options->log);
  command->footer(
    "Which of two instances takes a prompt of 600 tokens, and why:\n"
    "  echo '{\"instances\": [\n"
    "           {\"id\": \"busy\", \"status\": {\"num_uncomputed_tokens_all_waiting_prefills\": "
    "900}},\n"
    "           {\"id\": \"idle\"}],\n"
    "         \"request\": {\"scheduling_mode\": \"neutral\", \"prompt_num_tokens\": 600}}' |\n"
    "    llumnix decide --pretty -\n"
    "Other questions: \"ask\": \"plan\", \"choose\", \"metrics\", \"predict\", \"reserve\", "
    "\"keys\", \"scale\"\n"
    "or \"config\"; docs/decide.md has all names. Exit code: 0, 2 for a scene that cannot be "
    "answered,\n"
    "4 for a refusal; with several scenes 0 if all were answered.\n");
  command->callback([options, &chosen] { chosen = [options] { return answer_file(*options); }; });
}

} // namespace llumnix
