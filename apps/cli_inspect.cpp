#include "apps/admin_options.hpp"
#include "apps/cli_common.hpp"
#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "apps/inspect_text.hpp"
#include "apps/text_table.hpp"
#include "config/near_name.hpp"
#include "runtime/scheduling/profile_file.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>

namespace llumnix {

namespace {

using namespace std::chrono_literals;

constexpr auto patience = 5s; // for one answer of the cluster

struct inspect_options : admin_options {
  std::string argument; ///< an instance or a request
};

using renderer = std::string (*)(const admin_document&, bool);

int print(const inspect_options& options, const admin_document& document, renderer render) {
  return write_out(
    options.json ? document.dump() + "\n" : render(document, colour_allowed(stdout)));
}

/// A scene is JSON for people, too.
std::string as_it_is(const admin_document& document, bool) {
  return document.dump() + "\n";
}

int show(const inspect_options& options, const std::string& path, renderer render) {
  auto document = admin_get(options.endpoint, path, patience);
  if (!document)
    return explain(options.endpoint, document.error());
  return print(options, *document, render);
}

/// An empty list may mean an idle instance or none of that name; null if the cluster has it.
std::optional<std::string> unknown_instance(const inspect_options& options) {
  auto cluster = admin_get(options.endpoint, "/admin/v1/cluster", patience);
  if (!cluster)
    return std::nullopt;
  std::vector<std::string> known;
  for (auto& each : cluster->value("instances", admin_document::array()))
    known.push_back(each.value("id", ""));
  auto& wanted = options.argument;
  if (std::ranges::find(known, wanted) != known.end())
    return std::nullopt;
  auto near = nearest_name(wanted, std::vector<std::string_view>{known.begin(), known.end()});
  return "there is no instance " + wanted
         + (near.empty() ? "; `llumnix status` lists them" : "; did you mean " + std::string{near} + "?");
}

int show_requests(const inspect_options& options) {
  auto& instance = options.argument;
  auto query = instance.empty() ? "" : "?instance=" + path_segment(instance);
  auto document = admin_get(options.endpoint, "/admin/v1/requests" + query, patience);
  if (!document)
    return explain(options.endpoint, document.error());
  if (!instance.empty() && document->value("requests", admin_document::array()).empty())
    if (auto wrong = unknown_instance(options)) {
      std::fprintf(stderr, "llumnix: %s\n", wrong->c_str());
      return exit_code::failed;
    }
  return print(options, *document, requests_text);
}

/// The member of that name; null if there is none.
const admin_document& member(const admin_document& from, const char* name) {
  static const admin_document nothing;
  auto found = from.is_object() ? from.find(name) : from.end();
  return found == from.end() ? nothing : *found;
}

struct profile_options {
  admin_options asked;
  std::string role = "neutral";
  std::string directory = ".";
};

/// Writes one profiling file and says what is in it. What is written can be read.
result<std::string> save(
  const profile_options& options, const admin_document& document, const char* name,
  profile_kind kind) {
  auto& file = member(document, name);
  if (!file.is_object())
    return {
      errc::not_found, fmt::format(
                         "no {} of a {} instance was seen; send requests first",
                         kind == profile_kind::ttft ? "prefill" : "decode step", options.role)};
  auto path = fmt::format("{}/{}_profile.json", options.directory, name);
  auto text = file.dump(2) + "\n";
  auto table = parse_profile(kind, text, path);
  if (!table)
    return std::move(table).error();
  if (auto written = write_profile(path, text); !written)
    return std::move(written).error();
  return fmt::format(
    "{}: {} points, of {} samples", path, table->table.size(),
    member(member(document, "samples"), name).dump());
}

int write_profiles(const profile_options& options) {
  auto document
    = admin_get(options.asked.endpoint, "/admin/v1/profile?role=" + options.role, patience);
  if (!document)
    return explain(options.asked.endpoint, document.error());
  if (options.asked.json)
    return write_out(document->dump() + "\n");
  for (auto [name, kind] : {std::pair{"ttft", profile_kind::ttft}, {"tpot", profile_kind::tpot}}) {
    auto said = save(options, *document, name, kind);
    if (!said) {
      std::fprintf(stderr, "llumnix: %s\n", said.error().context.c_str());
      return exit_code::failed;
    }
    if (auto code = write_out(*said + "\n"); code != exit_code::done)
      return code;
  }
  return exit_code::done;
}

} // namespace

void add_profile_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<profile_options>();
  auto* command = app.add_subcommand(
    "profile", "write what prefills and decode steps took, as files that policy slo predicts by");
  command
    ->add_option(
      "--out", options->directory, "directory of ttft_profile.json and tpot_profile.json")
    ->type_name("DIR")
    ->check(CLI::ExistingDirectory)
    ->capture_default_str();
  command->add_option("--role", options->role, "instances of this role")
    ->check(CLI::IsMember{{"neutral", "prefill", "decode"}})
    ->capture_default_str();
  add_admin_options(*command, options->asked);
  command->footer("After some load, and then with what was seen:\n"
                  "  llumnix profile --out profiles\n"
                  "  llumnix up --set scheduler.ttft_profile=profiles/ttft_profile.json \\\n"
                  "    --set scheduler.tpot_profile=profiles/tpot_profile.json\n");
  command->callback(
    [options, &chosen] { chosen = [options] { return write_profiles(*options); }; });
}

void add_status_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<inspect_options>();
  auto* command
    = app.add_subcommand("status", "the nodes and instances of a cluster and their load");
  add_admin_options(*command, *options);
  command->footer("The instances that are not ready:\n"
                  "  llumnix status --json | jq '.instances[] | select(.state != \"ready\")'\n");
  command->callback([options, &chosen] {
    chosen = [options] { return show(*options, "/admin/v1/cluster", status_text); };
  });
}

void add_actors_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<inspect_options>();
  auto* command = app.add_subcommand("actors", "every actor of every node and how busy it is");
  add_admin_options(*command, *options);
  command->footer("The actors of a cluster elsewhere:\n  llumnix actors --admin 127.0.0.1:9090\n");
  command->callback([options, &chosen] {
    chosen = [options] { return show(*options, "/admin/v1/actors", actors_text); };
  });
}

void add_requests_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<inspect_options>();
  auto* command = app.add_subcommand("requests", "the requests that are queued or running");
  command->add_option("--instance", options->argument, "only those of this instance")
    ->type_name("ID");
  add_admin_options(*command, *options);
  command->footer("What one engine is busy with:\n  llumnix requests --instance engine-0\n");
  command->callback([options, &chosen] { chosen = [options] { return show_requests(*options); }; });
}

void add_why_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<inspect_options>();
  auto* command = app.add_subcommand("why", "why a request went where it went, step by step");
  command->add_option("request", options->argument, "its x-request-id, or the id in an OpenAI body")
    ->required()
    ->type_name("REQUEST");
  auto scene = std::make_shared<bool>(false);
  command->add_flag(
    "--scene", *scene,
    "what its last placement saw, whole, for `llumnix decide` (with scheduler.recorded_scenes)");
  add_admin_options(*command, *options);
  command->footer("Of a reply with the id chatcmpl-my-request:\n"
                  "  llumnix why chatcmpl-my-request\n"
                  "  llumnix why my-request\n"
                  "The same decision again, or with something changed in the file:\n"
                  "  llumnix why my-request --scene > scene.json && llumnix decide scene.json\n");
  command->callback([options, scene, &chosen] {
    if (options->argument.empty())
      throw CLI::RuntimeError{"give a request id", exit_code::usage};
    chosen = [options, scene] {
      auto id = path_segment(bare_request_id(options->argument));
      if (*scene)
        return show(*options, "/admin/v1/requests/" + id + "/scene", as_it_is);
      return show(*options, "/admin/v1/requests/" + id + "/why", why_text);
    };
  });
}

} // namespace llumnix
