#include "apps/admin_options.hpp"
#include "apps/cli_common.hpp"
#include "apps/cli_options.hpp"
#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "runtime/scheduling/profile_file.hpp"

#include <spdlog/fmt/fmt.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

namespace llumnix {

namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto answer_time = 5s; // of the cluster, for one role

struct profile_options {
  admin_options asked;
  std::string role; ///< empty: neutral, and what those lack by `profile_part::role`
  std::string directory = ".";
};

/// One of the two files.
struct profile_part {
  const char* name;
  profile_kind kind;
  const char* steps; ///< what it tells of
  const char* role;  ///< of the instances that do nothing else
};
constexpr profile_part parts[] = {
  {"ttft", profile_kind::ttft, "prefill", "prefill"},
  {"tpot", profile_kind::tpot, "decode step", "decode"}};

std::string path_of(const profile_options& options, const profile_part& part) {
  return fmt::format("{}/{}_profile.json", options.directory, part.name);
}

/// The member of that name; null if there is none.
const admin_document& member(const admin_document& from, const char* name) {
  static const admin_document nothing;
  auto found = from.is_object() ? from.find(name) : from.end();
  return found == from.end() ? nothing : *found;
}

result<admin_document> ask_for(const profile_options& options, const std::string& role) {
  return admin_get(options.asked.endpoint, "/admin/v1/profile?role=" + role, answer_time);
}

/// Whose steps a file is made of: the first of these roles that did any.
std::vector<std::string> roles_for(const profile_options& options, const profile_part& part) {
  if (!options.role.empty())
    return {options.role};
  return {"neutral", part.role};
}

/// What instances of a role were seen to do.
struct seen_steps {
  std::string role;
  admin_document document;
};

/// None if no step of that kind was seen.
result<std::optional<seen_steps>>
find_steps(const profile_options& options, const profile_part& part) {
  for (const auto& role : roles_for(options, part)) {
    auto document = ask_for(options, role);
    if (!document)
      return std::move(document).error();
    if (member(*document, part.name).is_object())
      return std::optional{seen_steps{role, std::move(*document)}};
  }
  return std::optional<seen_steps>{};
}

/// Makes the directory, with those above it, where it is missing.
result<void> make_directory(const std::string& path) {
  std::error_code wrong;
  fs::create_directories(path, wrong);
  if (wrong)
    return {errc::invalid_argument, path + ": cannot be created: " + wrong.message()};
  return {};
}

/// Writes one profiling file and says what is in it. What is written can be read.
result<std::string>
save(const profile_options& options, const profile_part& part, const seen_steps& seen) {
  auto path = path_of(options, part);
  auto text = member(seen.document, part.name).dump(2) + "\n";
  auto table = parse_profile(part.kind, text, path);
  if (!table)
    return std::move(table).error();
  if (auto made = make_directory(options.directory); !made)
    return std::move(made).error();
  if (auto written = write_profile(path, text); !written)
    return std::move(written).error();
  return fmt::format(
    "{}: {} points, of {} samples of {} instances", path, table->table.size(),
    member(member(seen.document, "samples"), part.name).dump(), seen.role);
}

/// Writes what was seen and says what was not. Fails only if nothing was: instances that do one of
/// the two give one file.
int write_profiles(const profile_options& options) {
  bool any = false;
  for (const auto& part : parts) {
    auto seen = find_steps(options, part);
    if (!seen)
      return explain(options.asked.endpoint, seen.error());
    if (!*seen) {
      std::fprintf(
        stderr, "llumnix: no %s of a %s instance was seen; send requests first (%s is not written)\n",
        part.steps, fmt::format("{}", fmt::join(roles_for(options, part), " or ")).c_str(),
        path_of(options, part).c_str());
      continue;
    }
    auto said = save(options, part, **seen);
    if (!said) {
      std::fprintf(stderr, "llumnix: %s\n", said.error().context.c_str());
      return exit_code::failed;
    }
    if (auto code = write_out(*said + "\n"); code != exit_code::done)
      return code;
    any = true;
  }
  return any ? exit_code::done : exit_code::failed;
}

int run_profile(const profile_options& options) {
  if (!options.asked.json)
    return write_profiles(options);
  auto document = ask_for(options, options.role.empty() ? "neutral" : options.role);
  if (!document)
    return explain(options.asked.endpoint, document.error());
  return write_out(document->dump() + "\n");
}

/// What is wrong with a directory to write to; empty if nothing is, or it is not there yet.
std::string wrong_directory(const std::string& path) {
  if (path.empty())
    return "is empty";
  std::error_code unknown;
  auto status = fs::status(path, unknown);
  return fs::exists(status) && !fs::is_directory(status) ? path + " is a file, no directory" : "";
}

} // namespace

void add_profile_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<profile_options>();
  auto* command = app.add_subcommand(
    "profile", "write what prefills and decode steps took, as files that policy slo predicts by");
  command
    ->add_option(
      "--out", options->directory,
      "directory of ttft_profile.json and tpot_profile.json; made if it is missing")
    ->type_name("DIR")
    ->check(CLI::Validator{wrong_directory, ""})
    ->capture_default_str();
  add_choice_option<std::string>(
    *command, "--role", options->role,
    "instances of this role alone; left out: neutral ones, and for what none of those did, prefill "
    "ones (TTFT) and decode ones (TPOT)",
    {{"neutral", "neutral"}, {"prefill", "prefill"}, {"decode", "decode"}})
    ->type_name("neutral|prefill|decode");
  add_admin_options(*command, options->asked);
  command->footer("After some load, and then with what was seen:\n"
                  "  llumnix profile --out profiles\n"
                  "  llumnix up --set scheduler.ttft_profile=profiles/ttft_profile.json \\\n"
                  "    --set scheduler.tpot_profile=profiles/tpot_profile.json\n"
                  "With --json alone: the document of neutral instances.\n");
  command->callback([options, &chosen] { chosen = [options] { return run_profile(*options); }; });
}

} // namespace llumnix
