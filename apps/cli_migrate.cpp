#include "apps/admin_options.hpp"
#include "apps/admin_orders.hpp"
#include "apps/cli_common.hpp"
#include "apps/cli_options.hpp"
#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "apps/inspect_text.hpp"
#include "apps/moves_summary.hpp"
#include "apps/text_table.hpp"
#include "config/notation.hpp"

#include <algorithm>
#include <cstdio>
#include <future>
#include <memory>
#include <optional>

/// `migrate`, `drain` and `undrain`: requests and instances moved by hand.
namespace llumnix {

namespace {

using namespace std::chrono_literals;

constexpr auto patience = 10s;         // for an answer that comes at once
constexpr auto moves_patience = 140s;  // longer than the cluster gives hand-overs
constexpr auto progress_every = 500ms; // two looks at an instance that drains
constexpr std::uint64_t count_max = 1'000'000'000;

struct migrate_options : admin_options {
  std::string request; ///< or `from`
  std::string from;
  std::string to;
  std::string policy;
  std::int64_t num_requests = 0; ///< -1: all; 0: not given, as for the two below
  std::uint64_t num_tokens = 0;
  double kv_ratio = 0;
};

struct drain_options : admin_options {
  std::string instance;
  milliseconds timeout{drain_timeout_usual};
};

[[noreturn]] void complain(const std::string& sentence) {
  throw CLI::RuntimeError{sentence, exit_code::usage};
}

/// What is wrong between the options; each by itself is right.
void check(const migrate_options& options) {
  if (options.to.empty())
    complain("say where to: --to INSTANCE");
  if (options.request.empty() == options.from.empty())
    complain(
      options.from.empty() ? "say what is to move: a request id, or --from INSTANCE"
                           : "give a request id or --from INSTANCE, not both");
  int rules = (options.num_requests != 0) + (options.num_tokens != 0) + (options.kv_ratio != 0);
  if (rules > 1)
    complain("--num-requests, --num-tokens and --kv-ratio exclude each other; give one of them");
  if (options.from.empty() && (rules > 0 || !options.policy.empty()))
    complain("--policy, --num-requests, --num-tokens and --kv-ratio choose among the requests of "
             "--from INSTANCE; a request that is named needs no choice");
}

std::string body_of(const migrate_options& options) {
  admin_document body;
  if (options.from.empty())
    body["request"] = bare_request_id(options.request);
  else
    body["from"] = options.from;
  body["to"] = options.to;
  if (!options.policy.empty())
    body["policy"] = options.policy;
  if (options.num_requests != 0)
    body["num_requests"] = options.num_requests;
  if (options.num_tokens != 0)
    body["num_tokens"] = options.num_tokens;
  if (options.kv_ratio != 0)
    body["kv_ratio"] = options.kv_ratio;
  return body.dump(-1, ' ', false, admin_document::error_handler_t::replace);
}

int print(const admin_options& options, const admin_document& document, const std::string& text) {
  return write_out(options.json ? document.dump() + "\n" : text);
}

int migrate(const migrate_options& options) {
  auto answer = admin_post(options.endpoint, "/admin/v1/migrate", body_of(options), moves_patience);
  if (!answer)
    return explain(options.endpoint, answer.error());
  auto printed = print(options, *answer, moves_text(*answer, colour_allowed(stdout)));
  return printed == exit_code::done ? exit_code_for(summary_of(*answer)) : printed;
}

/// Requests at an instance, nothing if that cannot be had: as its engine says, or as the gateways
/// have streams there, whichever is more. In lite mode engines say nothing.
std::optional<std::uint64_t>
requests_at(const admin_endpoint& endpoint, const std::string& instance) {
  auto cluster = admin_get(endpoint, "/admin/v1/cluster", patience);
  auto listed = admin_get(
    endpoint, "/admin/v1/requests?instance=" + path_segment(instance), patience);
  if (!cluster || !listed)
    return std::nullopt;
  auto streams = listed->value("requests", admin_document::array()).size();
  for (auto& each : cluster->value("instances", admin_document::array()))
    if (auto at = each.find("scheduling"); each.value("id", "") == instance && at != each.end())
      return std::max<std::uint64_t>(
        streams, at->value("running", std::uint64_t{0}) + at->value("waiting", std::uint64_t{0}));
  return std::nullopt;
}

int drain(const drain_options& options) {
  auto path = "/admin/v1/instances/" + path_segment(options.instance)
              + "/drain?timeout=" + format_duration(options.timeout);
  auto answer = std::async(std::launch::async, [&] {
    return admin_post(options.endpoint, path, {}, options.timeout + patience);
  });
  std::optional<std::uint64_t> told;
  while (answer.wait_for(progress_every) != std::future_status::ready) {
    auto now = options.json ? std::nullopt : requests_at(options.endpoint, options.instance);
    if (!now || now == told)
      continue;
    told = now;
    std::fprintf(
      stderr, "%s drains: %llu %s there\n", options.instance.c_str(),
      static_cast<unsigned long long>(*now), *now == 1 ? "request is" : "requests are");
  }
  auto document = answer.get();
  if (!document)
    return explain(options.endpoint, document.error());
  auto printed = print(options, *document, drain_text(*document));
  if (printed != exit_code::done)
    return printed;
  return document->value("left", 0) == 0 ? exit_code::done : exit_code::failed;
}

int undrain(const drain_options& options) {
  auto path = "/admin/v1/instances/" + path_segment(options.instance) + "/undrain";
  auto document = admin_post(options.endpoint, path, {}, patience);
  if (!document)
    return explain(options.endpoint, document.error());
  return print(options, *document, options.instance + " takes requests again\n");
}

void add_instance(CLI::App& command, drain_options& options) {
  command.add_option("instance", options.instance, "the instance, as `llumnix status` has it")
    ->required()
    ->type_name("INSTANCE");
}

void check(const drain_options& options) {
  if (options.instance.empty())
    complain("give an instance");
  if (options.timeout < 1ms || options.timeout > drain_timeout_max)
    complain("--timeout is from 1ms to " + format_duration(drain_timeout_max));
}

void add_num_requests(CLI::App& command, migrate_options& options) {
  auto read = [&options](const std::string& text) {
    options.num_requests = read_count_or_all("--num-requests", text, count_max);
  };
  command
    .add_option_function<std::string>(
      "--num-requests", read, "so many requests (default: 1); -1: all")
    ->type_name("N");
}

} // namespace

void add_migrate_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<migrate_options>();
  auto* command
    = app.add_subcommand("migrate", "move running requests to another instance; no token is lost");
  command->add_option("request", options->request, "its x-request-id, or the id in an OpenAI body")
    ->type_name("REQUEST");
  command->add_option("--to", options->to, "the instance that takes them")->type_name("INSTANCE");
  command->add_option("--from", options->from, "requests of this instance, as many as said below")
    ->type_name("INSTANCE");
  add_choice_option<std::string>(
    *command, "--policy", options->policy,
    "which go first: SR shortest, LR longest, LCR latest, FCR earliest of the running; FCW "
    "waiting; FCWSR waiting, then shortest; LPSR shortest, of high priority last (default: SR)",
    {{"SR", "SR"},
     {"LR", "LR"},
     {"LCR", "LCR"},
     {"FCR", "FCR"},
     {"FCW", "FCW"},
     {"FCWSR", "FCWSR"},
     {"LPSR", "LPSR"}});
  add_num_requests(*command, *options);
  add_count_option(
    *command, "--num-tokens", options->num_tokens, "requests of at most so many tokens, prompt and output",
    1, count_max);
  add_number_option(
    *command, "--kv-ratio", options->kv_ratio,
    "requests that take this share of the instance's KV, up to 1", 0.001, 1);
  add_admin_options(*command, *options);
  command->footer(
    "One request, all its choices with it:\n"
    "  llumnix migrate my-request --to engine-1\n"
    "The three longest requests of an instance:\n"
    "  llumnix migrate --from engine-0 --to engine-1 --policy LR --num-requests 3\n"
    "Where it has been since:\n"
    "  llumnix why my-request\n"
    "Exit code 0: moved, or finished meanwhile, or there already beside others that moved; 1: "
    "failed, it runs on where it was; 4: "
    "refused, the reason says what can be done.\n");
  command->callback([options, &chosen] {
    check(*options);
    chosen = [options] { return migrate(*options); };
  });
}

void add_drain_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<drain_options>();
  auto* command = app.add_subcommand(
    "drain", "empty an instance: it takes no new work, what it has moves or finishes");
  add_instance(*command, *options);
  add_duration_option(*command, "--timeout", options->timeout, "how long to wait for its end");
  add_admin_options(*command, *options);
  command->footer(
    "Before its machine is serviced, and after:\n"
    "  llumnix drain engine-2 --timeout 5m\n"
    "  llumnix undrain engine-2\n"
    "Exit code 0: it is empty; 1: something is still there. Either way it takes no new "
    "work until it is taken back.\n");
  command->callback([options, &chosen] {
    check(*options);
    chosen = [options] { return drain(*options); };
  });
}

void add_undrain_command(CLI::App& app, command_action& chosen) {
  auto options = std::make_shared<drain_options>();
  auto* command = app.add_subcommand("undrain", "let a drained instance take requests again");
  add_instance(*command, *options);
  add_admin_options(*command, *options);
  command->footer("  llumnix undrain engine-2\n");
  command->callback([options, &chosen] {
    check(*options);
    chosen = [options] { return undrain(*options); };
  });
}

} // namespace llumnix
