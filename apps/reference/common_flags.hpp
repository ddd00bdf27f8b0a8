#pragma once

#include "apps/reference/flag_table.hpp"

/// Flags that several of the reference's programs have.
namespace llumnix::common_flags {

inline constexpr std::string_view discovery = "Discovery";
inline constexpr std::string_view logs = "Log, as klog has it";
inline constexpr std::string_view files = "log files: the log goes to stderr";
inline constexpr std::string_view always_stderr = "the log goes to stderr";

using enum flag_form;
using enum flag_fate;

// clang-format off
/// Where records of engines are.
inline constexpr auto record_stores = std::to_array<reference_flag>({
  {discovery, "discovery-redis-host", text, "redis", "host of the Redis with the records", works},
  {discovery, "discovery-redis-port", whole, "6379", "its port", works},
  {discovery, "discovery-redis-username", text, "", "its user", knob, "discovery.redis_username"},
  {discovery, "discovery-redis-password", text, "", "that user's password", knob, "discovery.redis_password"},
  {discovery, "discovery-redis-socket-timeout", number, "1.0", "for a connection and a reply, in seconds", knob, "discovery.timeout", "s"},
  {discovery, "discovery-redis-retry-times", whole, "1", "tries of a command", taken, "reads are repeated for ever, and the last list stays meanwhile"},
  {discovery, "discovery-redis-status-ttl-ms", whole, "60000", "a record not written anew for so long is dead", knob, "discovery.record_expiry", "ms"},
  {discovery, "discovery-redis-refresh-interval-ms", whole, "1000", "between two reads", knob, "discovery.redis_interval", "ms"},
  {discovery, "discovery-etcd-endpoints", text, "etcd:2379", "members of the etcd with the records", works},
  {discovery, "discovery-etcd-username", text, "", "its user", knob, "discovery.etcd_username"},
  {discovery, "discovery-etcd-password", text, "", "that user's password", knob, "discovery.etcd_password"},
  {discovery, "discovery-etcd-dial-timeout", number, "5.0", "for a connection and a reply, in seconds", knob, "discovery.timeout", "s"},
  {discovery, "discovery-etcd-lease-ttl", whole, "60", "a record not written anew for so many seconds is dead", knob, "discovery.record_expiry", "s"},
  {discovery, "discovery-etcd-refresh-interval-sec", whole, "3600", "between two reads of everything beside the watch", knob, "discovery.etcd_interval", "s"},
});

/// Of the reference's logging library.
inline constexpr auto log = std::to_array<reference_flag>({
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
});
// clang-format on

} // namespace llumnix::common_flags
