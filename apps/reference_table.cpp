#include "apps/reference_flags.hpp"

namespace llumnix {

namespace {

using enum flag_form;
using enum flag_fate;

constexpr std::string_view serving = "Serving and queue";
constexpr std::string_view found = "Discovery";
constexpr std::string_view tokens = "Tokenizer and parsers";
constexpr std::string_view routes = "Routing, retry, fallback";
constexpr std::string_view placing = "Disaggregation and scheduling";
constexpr std::string_view batches = "Batch service";
constexpr std::string_view logs = "Log, as klog has it";

constexpr std::string_view tokenizers = "tokenizers: engines tokenize themselves";
constexpr std::string_view traffic = "routes to other services";
constexpr std::string_view fallback = "fallback to other services";
constexpr std::string_view pd = "prefill and decode instances";
constexpr std::string_view batch = "batch service";
constexpr std::string_view remote = "scheduler over HTTP: the gateway schedules by itself";
constexpr std::string_view files = "log files: the log goes to stderr";
constexpr std::string_view always_stderr = "the log goes to stderr";

// clang-format off
constexpr reference_flag table[] = {
  {serving, "host", text, "0.0.0.0", "listen address", works},
  {serving, "port", whole, "8001", "listen port; 0 picks a free one", works},
  {serving, "max-queue-size", whole, "512", "requests waiting for an engine; above it 429", knob, "gateway.max_queue"},
  {serving, "wait-queue-threads", whole, "5", "scheduling workers", taken, "requests are placed as they come, without workers"},
  {serving, "wait-queue-interval", duration, "1s", "pause while the queue is full", taken, "a request above --max-queue-size gets 429 at once"},
  {serving, "service-token", text, "", "authorization towards the scheduler", missing, remote},
  {serving, "wait-scheduling-timeout", duration, "5s", "a request without an engine waits this long, then 503", knob, "gateway.wait_for_instance"},
  {serving, "wait-scheduling-retry-interval", duration, "1s", "pause between two tries to place a request", taken, "a request that waits is placed as soon as an engine can take it"},
  {serving, "forward-tokens", toggle, "true", "tell the scheduler the prompt's tokens", taken, "requests are placed by their size"},
  {serving, "enable-log-input", toggle, "false", "log request bodies", missing, "log of request bodies"},
  {serving, "enable-pprof", toggle, "false", "profiling listener", missing, "profiling listener"},
  {serving, "extra-args", text, "", "more flags, as in port=80,host=::1; they win over others", works},

  {found, "llm-backend-discovery", text, "redis", "where engines are found: redis, etcd, endpoints", works},
  {found, "llm-backend-endpoints", text, "", "the engines, as HOST:PORT,HOST:PORT", works},
  {found, "scheduler-discovery", text, "endpoints", "where the scheduler is found", missing, remote},
  {found, "scheduler-endpoints", text, "", "the scheduler", missing, remote},
  {found, "discovery-redis-host", text, "redis", "host of the Redis with the records", works},
  {found, "discovery-redis-port", whole, "6379", "its port", works},
  {found, "discovery-redis-username", text, "", "its user", knob, "discovery.redis_username"},
  {found, "discovery-redis-password", text, "", "that user's password", knob, "discovery.redis_password"},
  {found, "discovery-redis-socket-timeout", number, "1.0", "for a connection and a reply, in seconds", knob, "discovery.timeout", "s"},
  {found, "discovery-redis-retry-times", whole, "1", "tries of a command", taken, "reads are repeated for ever, and the last list stays meanwhile"},
  {found, "discovery-redis-status-ttl-ms", whole, "60000", "a record as old as this is dead", knob, "discovery.record_expiry", "ms"},
  {found, "discovery-redis-refresh-interval-ms", whole, "1000", "between two reads", knob, "discovery.redis_interval", "ms"},
  {found, "discovery-etcd-endpoints", text, "etcd:2379", "members of the etcd with the records", works},
  {found, "discovery-etcd-username", text, "", "its user", knob, "discovery.etcd_username"},
  {found, "discovery-etcd-password", text, "", "that user's password", knob, "discovery.etcd_password"},
  {found, "discovery-etcd-dial-timeout", number, "5.0", "for a connection and a reply, in seconds", knob, "discovery.timeout", "s"},
  {found, "discovery-etcd-lease-ttl", number, "60", "a record as old as this is dead, in seconds", knob, "discovery.record_expiry", "s"},
  {found, "discovery-etcd-refresh-interval-sec", whole, "3600", "between two reads of everything beside the watch", knob, "discovery.etcd_interval", "s"},

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
  {placing, "scheduling-policy", text, "load-balance", "how an engine is chosen: load-balance, flood, round-robin", knob, "scheduler.policy"},
  {placing, "enable-full-mode-scheduling", toggle, "true", "use loads that engines report", taken, "engines behind HTTP report none, so loads are counted here"},
  {placing, "requests-report-duration", number, "0", "seconds between reports to the scheduler", taken, "the scheduler is in this process and hears of every request at once"},
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

  {logs, "v", whole, "0", "detail; from 4 on each request is logged", works},
  {logs, "logtostderr", toggle, "true", "log to stderr", taken, always_stderr},
  {logs, "alsologtostderr", toggle, "false", "log to stderr too", taken, always_stderr},
  {logs, "stderrthreshold", text, "2", "least level on stderr", taken, "--log-level says what is logged"},
  {logs, "log_dir", text, "", "directory of log files", missing, files},
  {logs, "log_file", text, "", "a log file", missing, files},
  {logs, "log_file_max_size", whole, "1800", "its largest size in MB", taken, always_stderr},
  {logs, "log_backtrace_at", text, ":0", "FILE:LINE that logs its callers", missing, "log lines with callers"},
  {logs, "vmodule", text, "", "detail by source file", missing, "log levels by source file"},
  {logs, "skip_headers", toggle, "false", "log without headers", taken, "log lines have one form; see --log-json"},
  {logs, "skip_log_headers", toggle, "false", "log files without headers", taken, always_stderr},
  {logs, "add_dir_header", toggle, "false", "log with directories of source files", taken, "log lines have one form; see --log-json"},
  {logs, "one_output", toggle, "false", "log to one level's file only", taken, always_stderr},
};
// clang-format on

} // namespace

std::span<const reference_flag> reference_flags() {
  return table;
}

} // namespace llumnix
