#pragma once

#include "config/cluster_config.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// One thing wrong with a configuration: where and what, with the way out.
/// "migration.overloaded_at: 1.7 is above 1", "engine.sped: no such knob; did you mean
/// engine.speed?".
struct config_problem {
  std::string path;
  std::string message;
};

/// Reads a JSON document (comments allowed) into `config`. Every problem is reported, none stops
/// the others; a name that stands twice in one object is one.
std::vector<config_problem> load_json(std::string_view text, cluster_config& config);
/// The same from a file, whose name begins each problem's path; it is all of it if the file cannot
/// be read.
std::vector<config_problem> load_file(const std::string& path, cluster_config& config);
/// Applies one "path.to.knob=value": durations `250ms`, `10s`, `2m`; sizes `64KiB`; lists `a,b`;
/// true/false.
std::vector<config_problem> apply_setting(std::string_view assignment, cluster_config& config);
/// Checks ranges and what must hold between knobs (TLS files come as three, a listener off loopback
/// needs a key, `node.insecure_cluster` or TLS, intervals below expiry, known roles, addresses
/// HOST:PORT, ...).
std::vector<config_problem> check(const cluster_config& config);

/// Whether engines are looked for, by files, Redis or etcd.
bool has_discovery(const discovery_config& discovery);
/// Whether engines behind HTTP serve, those of `gateway.engines` or whatever discovery finds.
bool has_http_engines(const cluster_config& config);

/// The configuration as JSON; secrets (keys, passwords) are shown as "***" when set.
std::string to_json(const cluster_config& config);
/// The same with its secrets, so that `load_json` gets the whole of it back; not for human eyes.
std::string to_json_with_secrets(const cluster_config& config);
/// A JSON schema of the configuration with defaults and descriptions.
std::string config_schema();
/// A table for people: path, value, default, meaning.
std::string describe(const cluster_config& config);

/// "250ms", "10s", "2m", "1h" to milliseconds; false if it is none.
bool parse_duration(std::string_view text, milliseconds& value);
/// "64KiB", "2GiB", "100", "8MB" to bytes; false if it is none.
bool parse_size(std::string_view text, std::size_t& value);
/// Splits "HOST:PORT" ("[::1]:80" too); false if it is none.
bool split_address(std::string_view address, std::string& host, std::uint16_t& port);
/// HOST:PORT of an engine's URL, `http://HOST:PORT` or the same with a closing slash; the host in
/// lower case, so that equal engines have equal texts. Empty if it is no such URL.
std::string engine_address(std::string_view url);
/// The same text for all addresses of one place: localhost is 127.0.0.1. ([::1] is another, where
/// another server may listen.)
std::string place_of(std::string_view address);
/// Whether the host part of HOST:PORT is loopback (127.0.0.0/8, ::1, localhost).
bool is_loopback(std::string_view address);

/// Whether placements look at who holds a prompt's prefix: `cache_aware`, or the policy of that
/// name.
bool is_cache_aware(const scheduler_config& config);

} // namespace llumnix
