#include "apps/commands.hpp"
#include "apps/exit_codes.hpp"
#include "apps/load/load_client.hpp"
#include "config/load_config.hpp"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <fstream>
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
      return parsed.error().context;
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
  std::fputs(report.c_str(), stdout);
  std::fflush(stdout);
  if (done->about.interrupted)
    return exit_code::interrupted;
  bool failed = done->stats.failed() > 0;
  return failed && (command.run.verify || done->stats.ok() == 0) ? exit_code::failed
                                                                 : exit_code::done;
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
  using CLI::Range;
  load->add_option("url", command->url, "The endpoint, http://HOST:PORT")->capture_default_str();
  load
    ->add_option(
      "--requests", pattern.requests,
      "Stop after that many; default 100 without --duration and --trace")
    ->check(CLI::PositiveNumber);
  load->add_option("--duration", command->duration, "Start no request after that time, e.g. 30s");
  load
    ->add_option(
      "--concurrency", run_options.concurrency,
      "Requests under way at most; default 16, with --rate or --trace 10000")
    ->check(Range(1, 60000));
  auto* rate
    = load
        ->add_option(
          "--rate", pattern.rate, "Requests per second, whether earlier ones have ended or not")
        ->check(Range(1e-3, 1e6));
  load
    ->add_option("--arrival", pattern.arrival, "Pauses between requests: poisson, uniform or gamma")
    ->transform(CLI::CheckedTransformer(std::map<std::string, llumnix::load::arrival_process>{
      {"poisson", llumnix::load::arrival_process::poisson},
      {"uniform", llumnix::load::arrival_process::uniform},
      {"gamma", llumnix::load::arrival_process::gamma}}))
    ->option_text("NAME")
    ->needs(rate);
  load
    ->add_option(
      "--cv", pattern.cv, "Coefficient of variation of gamma pauses; above 1 comes in bursts")
    ->check(Range(0.01, 100.0))
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
  load->add_option("--n", pattern.choices, "Choices of each request")->check(Range(1, 128));
  load->add_option("--seed", pattern.seed, "The same seed makes the same requests")
    ->capture_default_str();
  load->add_flag("--ignore-eos", pattern.ignore_eos, "Go on to --max-tokens");
  load
    ->add_option(
      "--temperature", pattern.temperature, "Above 0 each request carries a seed of its own")
    ->check(Range(0.0, 2.0))
    ->capture_default_str();
  auto* trace
    = load->add_option("--trace", command->trace, "Replay a recorded file: lengths and times")
        ->excludes(rate);
  load->add_option("--format", command->format, "Of the trace: azure_csv, mooncake_jsonl or jsonl")
    ->transform(CLI::CheckedTransformer(std::map<std::string, llumnix::load::trace_format>{
      {"azure_csv", llumnix::load::trace_format::azure_csv},
      {"mooncake_jsonl", llumnix::load::trace_format::mooncake_jsonl},
      {"jsonl", llumnix::load::trace_format::jsonl}}))
    ->option_text("NAME")
    ->needs(trace);
  load->add_option("--scale", command->scale, "Replay that many times faster than recorded")
    ->check(Range(1e-3, 1e6))
    ->needs(trace);
  load->add_option("--limit", command->limit, "Rows of the trace at most")
    ->check(Range(1, 10'000'000))
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
