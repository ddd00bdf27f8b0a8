#include "apps/admin_options.hpp"
#include "apps/cli_common.hpp"
#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "apps/inspect_text.hpp"
#include "apps/text_table.hpp"
#include "config/near_name.hpp"

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

} // namespace

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
