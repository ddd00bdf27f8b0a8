#include "apps/cli_common.hpp"
#include "apps/cli_options.hpp"
#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "apps/load/load_client.hpp"
#include "config/load_config.hpp"

#include <cstdio>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <unistd.h>

namespace llumnix {

namespace {

struct load_command {
  std::string url = "http://127.0.0.1:8089";
  std::string duration;
  std::string timeout = "5m";
  std::string prompt_tokens = "64";
  std::string max_tokens = "64";
  std::string trace;
  load::trace_format format = load::trace_format::azure_csv;
  double scale = 1;
  std::size_t limit = 100'000;
  bool chat = false;
  bool completions = false;
  bool json = false;
  load::run_options run;
  load::pattern_options pattern;
};

int refuse(const std::string& why) {
  std::fprintf(stderr, "load: %s\n", why.c_str());
  return exit_code::usage;
}

/// Fills in what was typed as text; says what is wrong with it, or nothing.
std::string complete(load_command& command) {
  auto endpoint = load::parse_endpoint(command.url);
  if (!endpoint)
    return endpoint.error().context;
  command.run.endpoint = *endpoint;
  command.run.url = command.url;
  if (!parse_duration(command.timeout, command.run.timeout) || command.run.timeout.count() <= 0)
    return "--timeout: '" + command.timeout + "' is not a duration such as 30s";
  if (!command.duration.empty()) {
    milliseconds duration{0};
    if (!parse_duration(command.duration, duration) || duration.count() <= 0)
      return "--duration: '" + command.duration + "' is not a duration such as 30s";
    command.run.duration = duration;
  }
  for (auto [text, range] :
       {std::pair{&command.prompt_tokens, &command.pattern.prompt_tokens},
        std::pair{&command.max_tokens, &command.pattern.max_tokens}}) {
    auto parsed = load::parse_token_range(*text);
    if (!parsed)
      return (text == &command.max_tokens ? "--max-tokens: " : "--prompt-tokens: ")
             + parsed.error().context;
    *range = *parsed;
  }
  command.pattern.chat = !command.completions;
  if (command.pattern.requests == 0 && !command.run.duration && command.trace.empty())
    command.pattern.requests = 100;
  if (!command.trace.empty())
    command.pattern.ignore_eos = true; // a recorded answer has its length
  command.run.progress = isatty(STDERR_FILENO) != 0 && !command.json;
  return {};
}

int run(load_command& command) {
  if (auto problem = complete(command); !problem.empty())
    return refuse(problem);
  std::vector<load::trace_row> trace;
  if (!command.trace.empty()) {
    std::ifstream file{command.trace};
    if (!file)
      return refuse("cannot read " + command.trace);
    auto rows = load::read_trace(file, command.format, command.scale, command.limit);
    if (!rows)
      return refuse(command.trace + ": " + rows.error().context);
    trace = std::move(*rows);
  }
  auto done = load::run_load(command.run, command.pattern, std::move(trace));
  if (!done) {
    bool unreachable = done.error().code == errc::unreachable;
    std::fprintf(
      stderr, "load: %s%s: %s\n", unreachable ? "cannot reach " : "", command.url.c_str(),
      done.error().context.c_str());
    return unreachable ? exit_code::unreachable : exit_code::failed;
  }
  auto report = command.json ? done->stats.json(done->about) : done->stats.text(done->about);
  auto written = write_out(report);
  if (done->about.interrupted)
    return exit_code::interrupted;
  bool failed = done->stats.failed() > 0;
  return failed && (command.run.verify || done->stats.ok() == 0) ? exit_code::failed : written;
}

} // namespace

void add_load_command(CLI::App& app, command_action& chosen) {
  auto command = std::make_shared<load_command>();
  auto* load
    = app.add_subcommand("load", "Drive an OpenAI endpoint; report latencies; check every token");
  load->footer(
    "Exit code 1: with --verify a request failed or was answered wrongly, otherwise none "
    "succeeded;\n"
    "3: the endpoint cannot be reached; 130: interrupted, after the report so far.\n\n"
    "Example: 200 requests, 32 at a time, every token checked against the modeled engine:\n"
    "  llumnix load http://127.0.0.1:8089 --requests 200 --concurrency 32 --max-tokens 16-256 "
    "--verify\n"
    "Example: half a minute of bursts, 20 requests per second on average:\n"
    "  llumnix load --duration 30s --rate 20 --arrival gamma --cv 4");
  auto& run_options = command->run;
  auto& pattern = command->pattern;
  load->add_option("url", command->url, "The endpoint, http://HOST:PORT")->capture_default_str();
  add_count_option(
    *load, "--requests", pattern.requests,
    "Stop after that many; default 100 without --duration and --trace", 1, 1'000'000'000'000);
  load->add_option("--duration", command->duration, "Start no request after that time, e.g. 30s");
  add_count_option(
    *load, "--concurrency", run_options.concurrency,
    "Requests under way at most; default 16, with --rate or --trace 10000", 1, 60'000);
  auto* rate = add_number_option(
    *load, "--rate", pattern.rate, "Requests per second, whether earlier ones have ended or not",
    1e-3, 1e6);
  using enum load::arrival_process;
  add_choice_option<load::arrival_process>(
    *load, "--arrival", pattern.arrival, "Pauses between requests: poisson, uniform or gamma",
    {{"poisson", poisson}, {"uniform", uniform}, {"gamma", gamma}})
    ->needs(rate);
  add_number_option(
    *load, "--cv", pattern.cv, "Coefficient of variation of gamma pauses; above 1 comes in bursts",
    0.01, 100)
    ->needs(rate);
  load->add_flag("--stream,!--no-stream", pattern.stream, "Stream the answers (default)");
  auto* completions = load->add_flag("--completions", command->completions, "Use /v1/completions");
  load->add_flag("--chat", command->chat, "Use /v1/chat/completions (default)")
    ->excludes(completions);
  load->add_option("--prompt-tokens", command->prompt_tokens, "Tokens of a prompt: N or MIN-MAX")
    ->capture_default_str();
  load->add_option("--max-tokens", command->max_tokens, "Tokens of an answer at most: N or MIN-MAX")
    ->capture_default_str();
  load->add_option("--model", pattern.model, "Model name; default: the first of /v1/models");
  add_count_option(
    *load, "--n", pattern.choices,
    "Choices of each request; servers limit it, ours to gateway.max_choices, which is "
      + std::to_string(gateway_config{}.max_choices) + " by default",
    1, 128);
  add_count_option(
    *load, "--seed", pattern.seed, "The same seed makes the same requests", 0,
    std::numeric_limits<std::uint64_t>::max())
    ->default_str(std::to_string(pattern.seed));
  load->add_flag("--ignore-eos", pattern.ignore_eos, "Go on to --max-tokens");
  add_number_option(
    *load, "--temperature", pattern.temperature, "Above 0 each request carries a seed of its own",
    0, 2)
    ->default_str("0");
  auto* trace
    = load->add_option("--trace", command->trace, "Replay a recorded file: lengths and times")
        ->excludes(rate);
  using enum load::trace_format;
  add_choice_option<load::trace_format>(
    *load, "--format", command->format, "Of the trace: azure_csv, mooncake_jsonl or jsonl",
    {{"azure_csv", azure_csv}, {"mooncake_jsonl", mooncake_jsonl}, {"jsonl", jsonl}})
    ->needs(trace);
  add_number_option(
    *load, "--scale", command->scale, "Replay that many times faster than recorded", 1e-3, 1e6)
    ->needs(trace);
  add_count_option(*load, "--limit", command->limit, "Rows of the trace at most", 1, 10'000'000)
    ->needs(trace);
  load->add_flag(
    "--verify", run_options.verify, "Recompute every token as a modeled engine makes it");
  load->add_option("--timeout", command->timeout, "A request that takes longer failed")
    ->capture_default_str();
  load->add_option("--key", run_options.key, "Bearer key of the endpoint");
  load->add_flag("--json", command->json, "One JSON document");
  load->callback([load, command, &chosen] {
    bool timed = command->pattern.rate > 0 || !command->trace.empty();
    if (timed && load->count("--concurrency") == 0)
      command->run.concurrency = 10'000;
    chosen = [command] { return run(*command); };
  });
}

} // namespace llumnix
