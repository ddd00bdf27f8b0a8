#include "apps/reference/gateway_flags.hpp"

#include "apps/reference/extra_args.hpp"
#include "apps/reference/flag_names.hpp"
#include "config/notation.hpp"
#include "integrations/discovery/engine_list.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace llumnix {

namespace {

const reference_flag* find_flag(std::string_view name) {
  return llumnix::find_flag(gateway_flags(), name);
}

/// The one way to write a value of that form; nothing if it is none.
std::optional<std::string> in_one_form(flag_form form, std::string_view text) {
  auto value = read_flag(form, text);
  return value ? std::optional{to_text(*value)} : std::nullopt;
}

/// Of text that was read by a form that is written as one.
std::int64_t whole_of(std::string_view text) {
  auto value = read_flag(flag_form::whole, text);
  return value ? std::get<std::int64_t>(*value) : -1;
}
double number_of(std::string_view text) {
  auto value = read_flag(flag_form::number, text);
  return value ? std::get<double>(*value) : -1;
}

/// A list of addresses, written with http:// or not.
std::string without_schemes(std::string list) {
  constexpr std::string_view scheme = "http://";
  for (auto at = list.find(scheme); at != list.npos; at = list.find(scheme, at))
    if (at == 0 || list[at - 1] == ',')
      list.erase(at, scheme.size());
    else
      ++at;
  return list;
}

/// Applies flags one by one; where engines are found is known first.
class applied_flags {
public:
  applied_flags(given_flags given, cluster_config& config)
    : given_{std::move(given)}, config_{config} {}

  flag_effects run() {
    for (const auto& warning : put_extra_args_on_top(gateway_flags(), given_))
      note("extra-args", warning);
    keep_what_can_be_read();
    find_engines();
    find_scheduler();
    listen();
    for (const auto& [name, value] : given_)
      apply(*find_flag(name), value);
    return std::move(effects_);
  }

private:
  void wrong(std::string_view name, std::string message) {
    effects_.problems.push_back({dashed(name), std::move(message)});
  }
  void note(std::string_view name, std::string_view why) {
    effects_.notes.push_back(dashed(name) + ": " + std::string{why});
  }
  const std::string* given(std::string_view name) const {
    auto found = given_.find(name);
    return found == given_.end() ? nullptr : &found->second;
  }
  std::string given_or_preset(std::string_view name) const {
    const auto* value = given(name);
    return value ? *value : std::string{find_flag(name)->preset};
  }
  void set(std::string_view name, const std::string& knob, const std::string& value) {
    for (auto& problem : apply_setting(knob + "=" + value, config_))
      wrong(name, std::move(problem.message));
  }

  void keep_what_can_be_read();
  void find_engines();
  void find_scheduler();
  void set_reports(const std::string& seconds);
  void read_endpoints();
  void listen();
  void apply(const reference_flag& flag, const std::string& value);
  void set_knob(const reference_flag& flag, const std::string& value);
  void work(std::string_view name, const std::string& value);

  given_flags given_;
  cluster_config& config_;
  std::string source_; ///< redis, etcd or endpoints; empty: what the configuration says
  flag_effects effects_;
};

void applied_flags::keep_what_can_be_read() {
  for (const auto& [name, value] : std::exchange(given_, {})) {
    const auto* flag = find_flag(name);
    auto read = flag ? in_one_form(flag->form, value) : std::nullopt;
    if (!flag)
      wrong(name, "is no flag");
    else if (!read)
      wrong(name, wrong_form(flag->form, value));
    else
      given_[name] = std::move(*read);
  }
}

void applied_flags::find_engines() {
  if (const auto* wanted = given("llm-backend-discovery"))
    source_ = *wanted;
  else if (!has_http_engines(config_))
    source_ = "redis";
  if (source_ == "redis")
    set(
      "discovery-redis-host", "discovery.redis",
      given_or_preset("discovery-redis-host") + ":" + given_or_preset("discovery-redis-port"));
  else if (source_ == "etcd")
    set(
      "discovery-etcd-endpoints", "discovery.etcd",
      without_schemes(given_or_preset("discovery-etcd-endpoints")));
  else if (source_ == "endpoints")
    read_endpoints();
  else if (!source_.empty())
    wrong("llm-backend-discovery", source_ + " is none of redis, etcd, endpoints");
}

/// A scheduler that is asked over HTTP, unless the policy is one that gateways have themselves.
void applied_flags::find_scheduler() {
  if (const auto* source = given("scheduler-discovery"); source && *source != "endpoints")
    return wrong("scheduler-discovery", *source + " is none of endpoints");
  constexpr auto name = "scheduler-endpoints";
  const auto policy = given_or_preset("scheduling-policy");
  auto list = without_schemes(given_or_preset(name));
  bool wanted = !list.empty() && policy != "round-robin";
  if (!list.empty() && !wanted)
    note(name, "is not asked: round-robin is what gateways do by themselves");
  if (wanted) {
    auto first = list.substr(0, list.find(','));
    if (first.size() < list.size())
      note(name, "of several the first is asked, " + first);
    bool has_port = first.find_last_of(':') != first.npos && !first.ends_with(']');
    set(name, "gateway.scheduler", has_port ? first : first + ":80");
  }
  if (given("scheduling-policy") && !(wanted && policy == "slo")) // which is the scheduler's alone
    set("scheduling-policy", "scheduler.policy", policy);
}

/// Reports are for schedulers in lite mode, as in the reference.
void applied_flags::set_reports(const std::string& seconds) {
  constexpr auto name = "requests-report-duration";
  auto count = number_of(seconds) * 1000;
  if (!(count >= 0 && count <= 1e15))
    return wrong(name, seconds + " is no time in s");
  if (count == 0)
    return;
  if (given_or_preset("enable-full-mode-scheduling") != "false")
    return note(name, "a scheduler in full mode wants none; --enable-full-mode-scheduling=false");
  auto every = milliseconds{static_cast<milliseconds::rep>(std::ceil(count))};
  set(name, "gateway.scheduler_reports", format_duration(every));
}

void applied_flags::read_endpoints() {
  constexpr auto name = "llm-backend-endpoints";
  auto text = given_or_preset(name);
  if (text.find('@') != text.npos)
    return wrong(
      name, "takes no options of engines; write them to a file and --set "
            "discovery.files=FILE");
  auto list = read_engine_list(text);
  for (auto& problem : list.problems)
    wrong(name, problem.sentence);
  if (list.engines.empty() && list.problems.empty())
    wrong(name, "names no engine; write HOST:PORT,HOST:PORT");
  config_.gateway.engines.clear();
  for (auto& engine : list.engines)
    config_.gateway.engines.push_back("http://" + engine.address);
}

void applied_flags::listen() {
  const auto* new_host = given("host");
  const auto* new_port = given("port");
  if (!new_host && !new_port)
    return;
  std::string host;
  std::uint16_t port = 0;
  split_address(config_.http.listen, host, port);
  if (new_host)
    host = *new_host;
  auto number = new_port ? whole_of(*new_port) : port;
  if (number < 0 || number > std::numeric_limits<std::uint16_t>::max())
    return wrong("port", *new_port + " is no port; write 0 to 65535");
  if (host.find(':') != host.npos && !host.starts_with('['))
    host = "[" + host + "]";
  auto address = host + ":" + std::to_string(number);
  if (!split_address(address, host, port))
    return wrong("host", (new_host->empty() ? "an empty value" : *new_host) + " is no address");
  config_.http.listen = address;
}

void applied_flags::apply(const reference_flag& flag, const std::string& value) {
  auto of_another_source = [&](std::string_view prefix, std::string_view source) {
    return flag.name.starts_with(prefix) && source_ != source;
  };
  if (
    of_another_source("discovery-redis-", "redis") || of_another_source("discovery-etcd-", "etcd")
    || of_another_source("llm-backend-endpoints", "endpoints"))
    return note(
      flag.name, "is not used: engines are found by "
                   + (source_.empty() ? std::string{"other settings"} : source_));
  switch (flag.fate) {
    case flag_fate::knob: return set_knob(flag, value);
    case flag_fate::works: return work(flag.name, value);
    case flag_fate::taken:
      if (value != in_one_form(flag.form, flag.preset))
        note(flag.name, flag.word);
      return;
    case flag_fate::missing:
      if (value != in_one_form(flag.form, flag.preset))
        wrong(
          flag.name,
          "this build has no " + std::string{flag.word} + "; leave the flag out to go on");
      return;
  }
}

void applied_flags::set_knob(const reference_flag& flag, const std::string& value) {
  std::string knob{flag.word};
  if (flag.unit.empty())
    return set(flag.name, knob, value);
  auto count = number_of(value) * (flag.unit == "s" ? 1000 : 1);
  if (!(count >= 0 && count <= 1e15))
    return wrong(flag.name, value + " is no time in " + std::string{flag.unit});
  set(
    flag.name, knob,
    format_duration(milliseconds{static_cast<milliseconds::rep>(std::ceil(count))}));
}

/// Those that are not done with elsewhere.
void applied_flags::work(std::string_view name, const std::string& value) {
  auto number = whole_of(value);
  if (name == "v") {
    constexpr std::int64_t detailed = 4; // klog: debug level
    effects_.debug = number >= detailed;
  } else if (name == "requests-report-duration") {
    set_reports(value);
  } else if (name == "retry-max-count") {
    constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max() - 1;
    if (number < 0)
      return wrong(name, value + " is below 0");
    config_.gateway.max_placements = std::max(
      config_.gateway.max_placements, static_cast<std::uint32_t>(std::min(number, most)) + 1);
  }
}

} // namespace

void set_reference_defaults(cluster_config& config) {
  config.node.name = "gateway";
  config.node.roles = {"gateway", "scheduler", "cms", "console"};
  config.http.listen = "0.0.0.0:8001";
  config.scheduler.full_mode = false;
}

flag_effects apply_reference_flags(given_flags given, cluster_config& config) {
  return applied_flags{std::move(given), config}.run();
}

void name_flags(given_flags given, std::vector<config_problem>& problems) {
  // Those that work by code of their own and set a knob.
  static constexpr flag_and_knob own[] = {
    {"port", "http.listen"},
    {"host", "http.listen"},
    {"llm-backend-endpoints", "gateway.engines"},
    {"discovery-redis-host", "discovery.redis"},
    {"discovery-redis-port", "discovery.redis"},
    {"discovery-etcd-endpoints", "discovery.etcd"},
    {"scheduler-endpoints", "gateway.scheduler"},
    {"scheduling-policy", "scheduler.policy"},
    {"requests-report-duration", "gateway.scheduler_reports"},
    {"retry-max-count", "gateway.max_placements"}};
  name_flags(gateway_flags(), own, std::move(given), problems);
}

} // namespace llumnix
