#include "apps/reference/common_flags.hpp"
#include "apps/reference/gateway_flags.hpp"

namespace llumnix {

namespace {

using enum flag_form;
using enum flag_fate;

constexpr std::string_view serving = "Serving and queue";
constexpr std::string_view found = common_flags::discovery;
constexpr std::string_view tokens = "Tokenizer and parsers";
constexpr std::string_view routes = "Routing, retry, fallback";
constexpr std::string_view placing = "Disaggregation and scheduling";
constexpr std::string_view batches = "Batch service";

constexpr std::string_view tokenizers = "tokenizers: engines tokenize themselves";
constexpr std::string_view traffic = "routes to other services";
constexpr std::string_view fallback = "fallback to other services";
constexpr std::string_view pd = "prefill and decode apart at engines behind HTTP; engines of its own do that: llumnix up --prefill 2 --decode 2";
constexpr std::string_view batch = "batch service";

// clang-format off
constexpr auto own_flags = std::to_array<reference_flag>({
  {serving, "host", text, "0.0.0.0", "listen address", works},
  {serving, "port", whole, "8001", "listen port; 0 picks a free one", works},
  {serving, "max-queue-size", whole, "512", "requests waiting for an engine; above it 429", knob, "gateway.max_queue"},
  {serving, "wait-queue-threads", whole, "5", "scheduling workers", taken, "requests are placed as they come, without workers"},
  {serving, "wait-queue-interval", duration, "1s", "pause while the queue is full", taken, "a request above --max-queue-size gets 429 at once"},
  {serving, "service-token", text, "", "authorization towards the scheduler", knob, "gateway.scheduler_token"},
  {serving, "wait-scheduling-timeout", duration, "5s", "a request without an engine waits this long, then 503", knob, "gateway.wait_for_instance"},
  {serving, "wait-scheduling-retry-interval", duration, "1s", "pause between two tries to place a request", taken, "a request that waits is placed as soon as an engine can take it"},
  {serving, "forward-tokens", toggle, "true", "tell the scheduler the prompt's tokens, where a client gives them", knob, "gateway.scheduler_tokens"},
  {serving, "enable-log-input", toggle, "false", "log request bodies", missing, "log of request bodies"},
  {serving, "enable-pprof", toggle, "false", "profiling listener", missing, "profiling listener"},
  {serving, "extra-args", text, "", "more flags, as in port=80,host=::1; they win over others", works},

  {found, "llm-backend-discovery", text, "redis", "where engines are found: redis, etcd, endpoints", works},
  {found, "llm-backend-endpoints", text, "", "the engines, as HOST:PORT,HOST:PORT", works},
  {found, "scheduler-discovery", text, "endpoints", "where the scheduler is found: endpoints", works},
  {found, "scheduler-endpoints", text, "", "the scheduler, as HOST:PORT; none: the gateway schedules by itself", works},

  {tokens, "tokenizer-name", text, "", "a built-in tokenizer", missing, tokenizers},
  {tokens, "tokenizer-path", text, "", "directory or file of a tokenizer", missing, tokenizers},
  {tokens, "chat-template", text, "", "chat template file", missing, tokenizers},
  {tokens, "max-model-len", whole, "0", "tokens of prompt and output; 0: as the model says", missing, "length limit of its own: engines tell theirs"},
  {tokens, "tool-call-parser", text, "", "parser of tool calls", missing, "tool call parsers: engines parse themselves"},
  {tokens, "reasoning-parser", text, "", "parser of reasoning", missing, "reasoning parsers: engines parse themselves"},

  {routes, "route-policy", text, "", "weight or prefix", missing, traffic},
  {routes, "route-config", text, "", "the routes, a JSON array", missing, traffic},
  {routes, "retry-max-count", whole, "0", "further engines that a request is tried on, at least", works},
  {routes, "fallback-retry-queue-enabled", toggle, "false", "try again after 429", missing, fallback},
  {routes, "fallback-retry-queue-size", whole, "100", "requests that wait to be tried again", missing, fallback},
  {routes, "fallback-retry-worker-size", whole, "10", "requests tried again at once", missing, fallback},
  {routes, "fallback-retry-max-count", whole, "3", "tries per request", missing, fallback},
  {routes, "fallback-retry-init-delay-ms", whole, "500", "before the first", missing, fallback},
  {routes, "fallback-retry-max-delay-ms", whole, "5000", "longest pause between them", missing, fallback},

  {placing, "pd-disagg-protocol", text, "", "vllm-kvt, vllm-mooncake, sglang-mooncake", missing, pd},
  {placing, "separate-pd-scheduling", toggle, "false", "choose the decode instance after the prefill", missing, pd},
  {placing, "scheduling-policy", text, "load-balance", "how an engine is chosen: load-balance, flood, slo (by a scheduler of its own), round-robin", works},
  {placing, "enable-full-mode-scheduling", toggle, "true", "use loads that engines report", taken, "a scheduler of its own knows loads; here they are counted, as engines behind HTTP report none"},
  {placing, "requests-report-duration", number, "0", "seconds between reports to a scheduler in lite mode; 0: none", works},
  {placing, "dispatch-top-k", whole, "1", "how many of the best engines one is drawn from", knob, "scheduler.dispatch_top_k"},
  {placing, "dispatch-neutral-load-metric", text, "all_prefills_tokens_num", "load of an engine: num_requests, or num_tokens for any other name", knob, "scheduler.neutral_load_metric"},
  {placing, "dispatch-neutral-load-threshold", number, "8192", "load from which an engine is passed over", knob, "scheduler.neutral_load_threshold"},
  {placing, "instance-staleness-seconds", whole, "60", "an engine that was silent for this long gets no work", knob, "scheduler.instance_staleness_s"},

  {batches, "batch-oss-path", text, "", "object store with files and batches", missing, batch},
  {batches, "batch-oss-endpoint", text, "", "its endpoint", missing, batch},
  {batches, "batch-redis-addrs", text, "redis.roles:10000", "Redis of the batches", missing, batch},
  {batches, "batch-redis-username", text, "default", "its user", missing, batch},
  {batches, "batch-redis-password", text, "default", "that user's password", missing, batch},
  {batches, "batch-redis-retry-times", whole, "3", "tries of a command", missing, batch},
  {batches, "batch-parallel", whole, "8", "shards at work", missing, batch},
  {batches, "batch-lines-per-shard", whole, "1000", "lines of a shard", missing, batch},
  {batches, "batch-request-timeout", duration, "3m", "for one line", missing, batch},
  {batches, "batch-request-retry-times", whole, "3", "further tries of a line", missing, batch},
});
// clang-format on

constexpr auto table = join_tables(own_flags, common_flags::record_stores, common_flags::log);

} // namespace

flag_table gateway_flags() {
  return table;
}

} // namespace llumnix
