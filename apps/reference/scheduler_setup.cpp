#include "apps/reference/scheduler_setup.hpp"

#include "apps/reference/flag_names.hpp"
#include "config/knob_value.hpp"
#include "config/knobs.hpp"
#include "config/notation.hpp"
#include "integrations/discovery/engine_list.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

namespace llumnix {

namespace {

flag_value value_of(const scheduler_flag_values& values, const reference_flag& flag) {
  switch (flag.form) {
    case flag_form::toggle: return values.toggle(flag.name);
    case flag_form::whole: return values.whole(flag.name);
    case flag_form::number: return values.number(flag.name);
    case flag_form::text:
    case flag_form::duration: return values.text(flag.name);
  }
  return false;
}

/// HOST:PORT of two flags.
std::string address(
  const scheduler_flag_values& values, std::string_view host_name, std::string_view port_name) {
  auto host = values.text(host_name);
  if (host.find(':') != host.npos && !host.starts_with('['))
    host = "[" + host + "]";
  return host + ":" + std::to_string(values.whole(port_name));
}

bool is_changed(const scheduler_flag_values& values, const reference_flag& flag) {
  return read_flag(flag.form, flag.preset) != value_of(values, flag);
}

std::string has_no(const reference_flag& flag) {
  return "this build has no " + std::string{flag.word};
}

/// A number of a unit as the duration that a knob holds; nothing if it is none.
std::optional<milliseconds> duration_of(const reference_flag& flag, const flag_value& value) {
  const auto* whole = std::get_if<std::int64_t>(&value);
  auto count = whole ? static_cast<double>(*whole) : std::get<double>(value);
  count *= flag.unit == "s" ? 1000 : 1;
  if (flag.word.starts_with("cms.pull_")) // 0 or less: never (spec/cms.md 1.3)
    count = std::max(count, 0.0);
  if (!(count >= 0 && count <= 1e15))
    return std::nullopt;
  return milliseconds{static_cast<milliseconds::rep>(std::ceil(count))};
}

std::string no_time(const reference_flag& flag, const flag_value& value) {
  return to_text(value) + " is no time in " + std::string{flag.unit};
}

class setup {
public:
  setup(scheduler_flags_read read, cluster_config& config)
    : values_{std::move(read.values)}, config_{config} {
    effects_.warnings = std::move(read.warnings);
    for (auto& [name, message] : read.problems)
      wrong(name, std::move(message));
  }

  flag_effects run() {
    if (!effects_.problems.empty())
      return std::move(effects_); // without them the values do not hold
    config_.node.name = "scheduler";
    config_.node.roles = {"scheduler", "cms", "console"};
    config_.scheduler = scheduler_config_of(values_);
    set("host", "scheduler.http", address(values_, "host", "port"));
    choose_index();
    for (const auto& flag : scheduler_flags())
      apply(flag);
    if (config_.scheduler.full_mode)
      set("cms-redis-host", "redis.address", address(values_, "cms-redis-host", "cms-redis-port"));
    else
      find_engines();
    constexpr std::int64_t detailed = 4; // klog: debug level
    effects_.debug = values_.whole("v") >= detailed;
    return std::move(effects_);
  }

private:
  void wrong(std::string_view name, std::string message) {
    effects_.problems.push_back({name.empty() ? std::string{} : dashed(name), std::move(message)});
  }
  void set(std::string_view name, std::string_view knob, const std::string& value) {
    for (auto& problem : apply_setting(std::string{knob} + "=" + value, config_))
      wrong(name, std::move(problem.message));
  }

  /// Those that are more than a preset of `scheduler_config_of`.
  void apply(const reference_flag& flag) {
    auto value = value_of(values_, flag);
    bool changed = is_changed(values_, flag);
    switch (flag.fate) {
      case flag_fate::knob:
        if (!flag.word.starts_with("scheduler."))
          set_knob(flag, value);
        return;
      case flag_fate::works: return;
      case flag_fate::taken:
        if (changed)
          effects_.notes.push_back(dashed(flag.name) + ": " + std::string{flag.word});
        return;
      case flag_fate::missing:
        if (changed)
          wrong(flag.name, has_no(flag) + "; leave the flag out to go on");
        return;
    }
  }

  void set_knob(const reference_flag& flag, const flag_value& value) {
    if (flag.unit.empty())
      return set(flag.name, flag.word, to_text(value));
    auto time = duration_of(flag, value);
    if (!time)
      return wrong(flag.name, no_time(flag, value));
    set(flag.name, flag.word, format_duration(*time));
  }

  /// Which store the flags name means nothing where they want no lookups.
  void choose_index() {
    auto& index = config_.scheduler.kv_index;
    if (index == "v6d" && config_.scheduler.cache_aware)
      wrong(
        "kvs-backend",
        "this build has no v6d KV store; leave the flag out to ask a Mooncake metadata service, or "
        "--enable-cache-aware-scheduling to place by load");
    else if (index == "v6d")
      effects_.notes.emplace_back(
        "--kvs-backend: is not used without --enable-cache-aware-scheduling");
    if (index == "v6d" || !config_.scheduler.cache_aware)
      index = "own";
  }

  void find_engines() {
    const auto& source = values_.text("llm-backend-discovery");
    config_.discovery.instance_type = "all";
    if (source == "redis")
      set(
        "discovery-redis-host", "discovery.redis",
        address(values_, "discovery-redis-host", "discovery-redis-port"));
    else if (source == "etcd")
      set("discovery-etcd-endpoints", "discovery.etcd", values_.text("discovery-etcd-endpoints"));
    else
      read_endpoints();
  }

  void read_endpoints() {
    constexpr auto name = "llm-backend-endpoints";
    const auto& text = values_.text(name);
    if (text.find('@') != text.npos)
      return wrong(
        name, "takes no options of engines; write them to a file and --set discovery.files=FILE");
    auto list = read_engine_list(text);
    for (auto& problem : list.problems)
      wrong(name, problem.sentence);
    if (list.engines.empty() && list.problems.empty())
      wrong(name, "names no engine; write HOST:PORT,HOST:PORT");
    for (auto& engine : list.engines)
      config_.gateway.engines.push_back("http://" + engine.address);
  }

  scheduler_flag_values values_;
  cluster_config& config_;
  flag_effects effects_;
};

} // namespace

flag_effects set_up_scheduler(const given_flags& given, cluster_config& config) {
  return setup{read_scheduler_flags(given), config}.run();
}

std::vector<config_problem>
refused_numbers(const scheduler_flag_values& values, const scheduler_config& placing) {
  std::vector<config_problem> found;
  std::vector<const reference_flag*> numbers;
  for (const auto& flag : scheduler_flags())
    if (
      flag.fate == flag_fate::knob && is_changed(values, flag)
      && (flag.form == flag_form::whole || flag.form == flag_form::number))
      numbers.push_back(&flag);
  cluster_config config;
  config.scheduler = placing;
  for (const auto* flag : numbers) {
    if (flag->unit.empty() || flag->word.starts_with("scheduler."))
      continue;
    auto value = value_of(values, *flag);
    if (auto time = duration_of(*flag, value))
      static_cast<void>( // what is wrong with it, the check says
        apply_setting(std::string{flag->word} + "=" + format_duration(*time), config));
    else
      found.push_back({std::string{flag->name}, no_time(*flag, value)});
  }
  for (auto& problem : check(config))
    for (const auto* flag : numbers)
      if (flag->word == problem.path)
        found.push_back({std::string{flag->name}, problem.message});
  return found;
}

std::vector<std::string> missing_parts(const scheduler_flag_values& values) {
  std::vector<std::string> warnings;
  for (const auto& flag : scheduler_flags())
    if (flag.fate == flag_fate::missing && is_changed(values, flag))
      warnings.push_back(dashed(flag.name) + ": a start refuses it, for " + has_no(flag));
  return warnings;
}

std::vector<std::string> overruled_flags(
  const scheduler_flag_values& values, const scheduler_config& by_flags,
  const scheduler_config& now) {
  cluster_config before, after;
  before.scheduler = by_flags;
  after.scheduler = now;
  std::vector<std::string> warnings;
  for (const auto& flag : scheduler_flags()) {
    if (
      flag.fate != flag_fate::knob || !flag.word.starts_with("scheduler.")
      || !is_changed(values, flag))
      continue;
    const auto* which = find_knob(flag.word);
    if (auto wins = write_text(*which, after); wins != write_text(*which, before))
      warnings.push_back(
        dashed(flag.name) + ": is passed over: " + std::string{flag.word} + "=" + shown_value(wins)
        + " wins over it");
  }
  return warnings;
}

void name_scheduler_flags(given_flags given, std::vector<config_problem>& problems) {
  // Those that work by code of their own and set a knob.
  static constexpr flag_and_knob own[] = {
    {"port", "scheduler.http"},
    {"host", "scheduler.http"},
    {"cms-redis-host", "redis.address"},
    {"cms-redis-port", "redis.address"},
    {"llm-backend-endpoints", "gateway.engines"},
    {"discovery-redis-host", "discovery.redis"},
    {"discovery-redis-port", "discovery.redis"},
    {"discovery-etcd-endpoints", "discovery.etcd"}};
  name_flags(scheduler_flags(), own, std::move(given), problems);
}

} // namespace llumnix
