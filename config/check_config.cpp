#include "config/knobs.hpp"
#include "config/load_config.hpp"
#include "config/near_name.hpp"
#include "config/notation.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>

namespace llumnix {

namespace {

using problems = std::vector<config_problem>;

template <class Format>
void check_range(const knob& which, double value, Format format, problems& found) {
  if (value < which.minimum)
    found.push_back(
      {std::string{which.path}, format(value) + " is below " + format(which.minimum)});
  else if (value > which.maximum)
    found.push_back(
      {std::string{which.path}, format(value) + " is above " + format(which.maximum)});
}

std::string as_duration(double count) {
  return format_duration(milliseconds{static_cast<milliseconds::rep>(count)});
}

void check_choice(const knob& which, std::string_view value, problems& found) {
  if (which.choices.empty() || std::ranges::find(which.choices, value) != which.choices.end())
    return;
  auto message = std::string{value} + " is none of";
  for (auto choice : which.choices)
    message += (choice == which.choices.front() ? " " : ", ") + std::string{choice};
  if (auto near = nearest_name(value, which.choices); !near.empty())
    message += "; did you mean " + std::string{near} + "?";
  found.push_back({std::string{which.path}, std::move(message)});
}

bool is_name(std::string_view text) {
  constexpr std::string_view letters
    = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  return !text.empty() && text.size() <= 128 && text.find_first_not_of(letters) == text.npos;
}

void check_address(const knob& which, const std::string& value, problems& found) {
  std::string host;
  std::uint16_t port = 0;
  if (!split_address(value, host, port))
    found.push_back(
      {std::string{which.path},
       (value.empty() ? "an empty value" : value) + " is no address; write HOST:PORT"});
  else if (which.form == knob_form::peer_address && port == 0)
    found.push_back({std::string{which.path}, value + " has port 0, which nobody can dial"});
}

void check_string(const knob& which, const std::string& value, bool item, problems& found) {
  check_choice(which, value, found);
  switch (which.form) {
    case knob_form::name:
      if (!is_name(value))
        found.push_back(
          {std::string{which.path},
           "\"" + value + "\" is no name; use 1 to 128 letters, digits, '_', '.' and '-'"});
      break;
    case knob_form::address: check_address(which, value, found); break;
    case knob_form::optional_address:
    case knob_form::peer_address:
      if (item || !value.empty())
        check_address(which, value, found);
      break;
    case knob_form::engine_url: {
      std::string address;
      if (auto wrong = read_engine_url(value, address); !wrong.empty())
        found.push_back({std::string{which.path}, value + wrong});
      break;
    }
    case knob_form::plain:
    case knob_form::bytes: break;
  }
}

/// What one knob's own row in the table demands.
void check_knob(const knob& which, cluster_config& config, problems& found) {
  std::visit(
    [&](auto* member) {
      using type = std::remove_pointer_t<decltype(member)>;
      if constexpr (std::is_same_v<type, milliseconds>)
        check_range(which, static_cast<double>(member->count()), as_duration, found);
      else if constexpr (std::is_same_v<type, std::string>)
        check_string(which, *member, false, found);
      else if constexpr (std::is_same_v<type, std::vector<std::string>>)
        for (auto& item : *member)
          check_string(which, item, true, found);
      else if constexpr (!std::is_same_v<type, bool>)
        check_range(which, static_cast<double>(*member), format_number, found);
    },
    which.field(config));
}

void check_node(const node_config& node, problems& found) {
  std::set<std::string> seen;
  for (auto& role : node.roles)
    if (!seen.insert(role).second)
      found.push_back({"node.roles", role + " is listed twice"});
  if (node.heartbeat >= node.connection_timeout)
    found.push_back(
      {"node.heartbeat", "must be below node.connection_timeout, or every link looks dead"});
  if (node.redial_min > node.redial_max)
    found.push_back({"node.redial_min", "is above node.redial_max"});
  bool whole = !node.tls_certificate.empty() && !node.tls_key.empty() && !node.tls_ca.empty();
  bool none = node.tls_certificate.empty() && node.tls_key.empty() && node.tls_ca.empty();
  for (auto [path, value] :
       {std::pair{"node.tls_certificate", &node.tls_certificate},
        {"node.tls_key", &node.tls_key},
        {"node.tls_ca", &node.tls_ca}})
    if (!whole && !none && value->empty())
      found.push_back({path, "is missing; tls_certificate, tls_key and tls_ca come together"});
  std::string host;
  std::uint16_t port = 0;
  if (
    split_address(node.listen, host, port) && !is_loopback(node.listen) && !whole
    && !node.insecure_cluster)
    found.push_back(
      {"node.listen", node.listen
                        + " is off loopback; set node.tls_certificate, tls_key and tls_ca, or "
                          "allow it with --insecure-cluster"});
}

void check_listeners(const http_config& http, const admin_config& admin, problems& found) {
  std::string host, other;
  std::uint16_t http_port = 0, admin_port = 0;
  bool has_http = split_address(http.listen, host, http_port);
  bool has_admin = split_address(admin.listen, other, admin_port);
  if (has_http && !is_loopback(http.listen) && http.key.empty() && !http.insecure)
    found.push_back(
      {"http.listen",
       http.listen + " is off loopback; set http.key, or allow it with http.insecure=true"});
  if (has_admin && !is_loopback(admin.listen) && admin.key.empty())
    found.push_back({"admin.listen", admin.listen + " is off loopback; set admin.key"});
  if (has_http && has_admin && http_port != 0 && http_port == admin_port && host == other)
    found.push_back({"admin.listen", admin.listen + " is also http.listen"});
}

/// Whoever reaches the scheduler's API can fill the account of every instance.
void check_scheduler_listener(const scheduler_config& scheduler, problems& found) {
  std::string host;
  std::uint16_t port = 0;
  if (
    split_address(scheduler.http, host, port) && !is_loopback(scheduler.http)
    && scheduler.http_key.empty() && !scheduler.http_insecure)
    found.push_back(
      {"scheduler.http", scheduler.http
                           + " is off loopback; set scheduler.http_key, or allow it with "
                             "scheduler.http_insecure=true"});
}

/// Whoever reaches a llumlet can move and end its requests.
void check_llumlet_listener(
  const llumlet_config& llumlet, const node_config& node, problems& found) {
  std::string host;
  std::uint16_t port = 0;
  if (
    split_address(llumlet.grpc, host, port) && !is_loopback(llumlet.grpc)
    && llumlet.grpc_key.empty() && !node.insecure_cluster)
    found.push_back(
      {"llumlet.grpc", llumlet.grpc
                         + " is off loopback; set llumlet.grpc_key, or allow it with "
                           "--insecure-cluster"});
  if (!std::ranges::all_of(llumlet.grpc_key, [](char byte) { return byte > ' ' && byte < 127; }))
    found.push_back(
      {"llumlet.grpc_key", "holds a blank or another character that no header may have"});
}

/// The settings by which engines behind HTTP are found.
std::vector<std::string> engine_sources(const cluster_config& config) {
  std::vector<std::string> paths;
  if (!config.gateway.engines.empty())
    paths.emplace_back("gateway.engines");
  if (!config.discovery.files.empty())
    paths.emplace_back("discovery.files");
  if (!config.discovery.redis.empty())
    paths.emplace_back("discovery.redis");
  if (!config.discovery.etcd.empty())
    paths.emplace_back("discovery.etcd");
  return paths;
}

void check_discovery(const discovery_config& discovery, problems& found) {
  std::set<std::string> seen;
  for (auto& file : discovery.files)
    if (file.empty())
      found.push_back({"discovery.files", "has an empty name"});
    else if (!seen.insert(file).second)
      found.push_back({"discovery.files", file + " is listed twice"});
  for (auto& member : discovery.etcd)
    if (!member.empty() && !seen.insert(member).second)
      found.push_back({"discovery.etcd", member + " is listed twice"});
  bool records = !discovery.redis.empty() || !discovery.etcd.empty();
  if (records && discovery.networks.empty())
    found.push_back({"discovery.networks", "are none, so no record would be believed"});
  if (!discovery.redis.empty() && discovery.redis_interval >= discovery.record_expiry)
    found.push_back(
      {"discovery.redis_interval",
       "must be below discovery.record_expiry, or records look dead between two reads"});
}

/// Engines behind HTTP: their load is known only as what the gateway sent them.
void check_engines(const cluster_config& config, problems& found) {
  std::map<std::string, std::string> seen; // by place
  for (auto& url : config.gateway.engines) {
    auto address = engine_address(url);
    if (address.empty())
      continue;
    if (auto [first, fresh] = seen.emplace(place_of(address), address); !fresh)
      found.push_back(
        {"gateway.engines", first->second == address
                              ? url + " is listed twice"
                              : url + " is the same place as " + first->second});
  }
  if (!std::ranges::all_of(
        config.gateway.engine_key, [](char byte) { return byte > ' ' && byte < 127; }))
    found.push_back(
      {"gateway.engine_key", "holds a blank or another character that no header may have"});
  if (!has_http_engines(config) && !config.gateway.scheduler.empty())
    found.push_back(
      {"gateway.scheduler", "places what engines behind HTTP get, and there are none; set "
                            "gateway.engines, or have them found (discovery.*)"});
  if (!has_http_engines(config))
    return;
  if (config.gateway.serving_mode != "neutral")
    found.push_back(
      {"gateway.serving_mode", "is " + config.gateway.serving_mode
                                 + ", and engines behind HTTP serve prefill and decode together; "
                                   "leave it out"});
  if (
    is_cache_aware(config.scheduler) && config.scheduler.kv_index == "own"
    && config.scheduler.kv_events.empty())
    found.push_back(
      {"scheduler.kv_events", "is missing; without it nobody knows what engines behind HTTP have "
                              "cached (or set scheduler.kv_index=mooncake)"});
  if (config.scheduler.full_mode)
    for (auto& path : engine_sources(config))
      found.push_back(
        {path, "wants lite mode, because engines behind HTTP do not report their load; set "
               "scheduler.full_mode=false"});
  if (
    config.gateway.engine_check_interval
    >= std::chrono::seconds{config.scheduler.instance_staleness_s})
    found.push_back(
      {"gateway.engine_check_interval",
       "must be below scheduler.instance_staleness_s, or engines look dead between two checks"});
}

/// What needs what, when placement goes by predictions or by prefixes.
void check_scheduler(const scheduler_config& scheduler, problems& found) {
  bool by_goals = scheduler.policy == "slo";
  for (auto [path, value] :
       {std::pair{"scheduler.ttft_profile", &scheduler.ttft_profile},
        {"scheduler.tpot_profile", &scheduler.tpot_profile}})
    if (by_goals && value->empty())
      found.push_back({path, "is missing; policy slo goes by measured times"});
  if (scheduler.adaptive_pd && !by_goals)
    found.push_back({"scheduler.adaptive_pd", "wants scheduler.policy=slo"});
  if (scheduler.adaptive_pd && scheduler.tpot_migrate_out_floor > scheduler.tpot_migrate_out_ceil)
    found.push_back(
      {"scheduler.tpot_migrate_out_floor", "is above scheduler.tpot_migrate_out_ceil"});
  if (scheduler.power_of_two && scheduler.dispatch_top_k > 1)
    found.push_back(
      {"scheduler.power_of_two",
       "draws two and takes the better; scheduler.dispatch_top_k above 1 draws another way"});
  if (scheduler.hysteresis > 0 && (scheduler.power_of_two || scheduler.dispatch_top_k > 1))
    found.push_back(
      {"scheduler.hysteresis",
       "keeps a choice; scheduler.power_of_two and scheduler.dispatch_top_k above 1 draw anew"});
  if (is_cache_aware(scheduler) && scheduler.kv_index == "mooncake" && scheduler.mooncake.empty())
    found.push_back(
      {"scheduler.mooncake", "is missing; scheduler.kv_index=mooncake asks it for prefixes"});
  for (auto [path, wanted] :
       {std::pair{"scheduler.adaptive_pd", scheduler.adaptive_pd},
        {"scheduler.predict_progress", scheduler.predict_progress}})
    if (wanted && !scheduler.full_mode)
      found.push_back(
        {path, "wants full mode, because lite mode knows no statuses; set "
               "scheduler.full_mode=true"});
}

/// Terms of the load that not every policy and mode has.
void check_terms(const scheduler_config& scheduler, problems& found) {
  bool by_load = scheduler.policy == "load-balance" || scheduler.policy == "cache-aware";
  for (auto [path, wanted, why] :
       {std::tuple{
          "scheduler.lora_affinity", scheduler.lora_affinity,
          "adapters are known only of engines behind HTTP"},
        {"scheduler.priority_aware", scheduler.priority_aware, "statuses tell no priorities"}}) {
    if (wanted && !by_load)
      found.push_back(
        {path,
         "is not looked at by policy " + scheduler.policy + "; set scheduler.policy=load-balance"});
    if (wanted && scheduler.full_mode)
      found.push_back(
        {path, std::string{"wants lite mode, because "} + why + "; set scheduler.full_mode=false"});
  }
  if (scheduler.priority_aware && is_cache_aware(scheduler))
    found.push_back(
      {"scheduler.priority_aware", "does not go with prefixes, which are weighed against the load "
                                   "of all priorities; set scheduler.policy=load-balance and "
                                   "scheduler.cache_aware=false"});
}

/// KV events: who publishes them, and who asks.
void check_kv_events(const cluster_config& config, problems& found) {
  const auto& scheduler = config.scheduler;
  constexpr auto path = "scheduler.kv_events";
  if (scheduler.kv_events.empty()) {
    if (!scheduler.kv_events_replay.empty())
      found.push_back({"scheduler.kv_events_replay", "wants scheduler.kv_events"});
    return;
  }
  if (!has_http_engines(config))
    found.push_back(
      {path, "is where engines behind HTTP publish, and there are none; set gateway.engines, or "
             "have them found (discovery.*)"});
  if (!is_cache_aware(scheduler))
    found.push_back({path, "is looked at by no policy but scheduler.policy=cache-aware"});
  if (scheduler.kv_index == "mooncake")
    found.push_back({path, "is not looked at with scheduler.kv_index=mooncake"});
}

void check_engine(const engine_config& engine, problems& found) {
  if (engine.kv_bytes_per_token % 8 != 0)
    found.push_back(
      {"engine.kv_bytes_per_token",
       std::to_string(engine.kv_bytes_per_token) + " is no multiple of 8"});
  auto capacity = std::uint64_t{engine.blocks} * engine.block_tokens;
  if (engine.blocks != 0 && engine.max_model_len > capacity)
    found.push_back(
      {"engine.max_model_len", std::to_string(engine.max_model_len) + " is above the "
                                 + std::to_string(capacity) + " tokens that engine.blocks hold"});
  auto colon = engine.corrupt.rfind(':');
  auto block = colon == std::string::npos ? "" : engine.corrupt.substr(colon + 1);
  if (
    !engine.corrupt.empty()
    && (colon == 0 || block.empty() || block.find_first_not_of("0123456789") != block.npos))
    found.push_back({"engine.corrupt", engine.corrupt + " is not REQUEST:BLOCK"});
}

void check_intervals(const cluster_config& config, problems& found) {
  if (config.llumlet.status_min_interval > config.llumlet.status_max_interval)
    found.push_back({"llumlet.status_min_interval", "is above llumlet.status_max_interval"});
  auto expiry = std::chrono::seconds{config.cms.expiry_s};
  if (config.cms.metadata_interval >= expiry)
    found.push_back(
      {"cms.metadata_interval", "must be below cms.expiry_s, or records vanish in between"});
  if (config.cms.status_interval >= expiry)
    found.push_back(
      {"cms.status_interval", "must be below cms.expiry_s, or records vanish in between"});
}

} // namespace

bool has_discovery(const discovery_config& discovery) {
  return !discovery.files.empty() || !discovery.redis.empty() || !discovery.etcd.empty();
}

bool has_http_engines(const cluster_config& config) {
  return !config.gateway.engines.empty() || has_discovery(config.discovery);
}

std::vector<config_problem> check(const cluster_config& config) {
  problems found;
  auto copy = config;
  for (auto& each : knobs())
    check_knob(each, copy, found);
  check_node(config.node, found);
  check_listeners(config.http, config.admin, found);
  check_scheduler_listener(config.scheduler, found);
  check_llumlet_listener(config.llumlet, config.node, found);
  check_discovery(config.discovery, found);
  check_engines(config, found);
  check_scheduler(config.scheduler, found);
  check_terms(config.scheduler, found);
  check_kv_events(config, found);
  check_engine(config.engine, found);
  check_intervals(config, found);
  return found;
}

bool is_cache_aware(const scheduler_config& config) {
  return config.cache_aware || config.policy == "cache-aware";
}

} // namespace llumnix
