#include "apps/reference_flags.hpp"

#include "config/notation.hpp"
#include "integrations/discovery/engine_list.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>

namespace llumnix {

namespace {

const reference_flag* find_flag(std::string_view name) {
  auto all = reference_flags();
  auto found = std::ranges::find(all, name, &reference_flag::name);
  return found == all.end() ? nullptr : &*found;
}

std::string dashed(std::string_view name) {
  return "--" + std::string{name};
}

template <class T>
std::optional<T> number_in(std::string_view text) {
  T value{};
  auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size())
    return {};
  if constexpr (std::is_floating_point_v<T>)
    if (!std::isfinite(value))
      return {};
  return value;
}

std::optional<bool> truth_in(std::string_view text) {
  for (auto word : {"1", "t", "T", "TRUE", "true", "True"})
    if (text == word)
      return true;
  for (auto word : {"0", "f", "F", "FALSE", "false", "False"})
    if (text == word)
      return false;
  return {};
}

/// The one way to write a value of that form; nothing if it is none.
std::optional<std::string> in_one_form(flag_form form, std::string_view text) {
  switch (form) {
    case flag_form::text: return std::string{text};
    case flag_form::whole:
      if (auto value = number_in<std::int64_t>(text))
        return std::to_string(*value);
      return {};
    case flag_form::number:
      if (auto value = number_in<double>(text))
        return format_number(*value);
      return {};
    case flag_form::toggle:
      if (auto value = truth_in(text))
        return *value ? "true" : "false";
      return {};
    case flag_form::duration:
      if (milliseconds value{}; parse_go_duration(text, value))
        return format_duration(value);
      return {};
  }
  return {};
}

std::string wrong_form(flag_form form, std::string_view text) {
  auto shown = text.empty() ? std::string{"an empty value"} : std::string{text};
  switch (form) {
    case flag_form::text: break;
    case flag_form::whole: return shown + " is no whole number";
    case flag_form::number: return shown + " is no number";
    case flag_form::toggle: return shown + " is neither true nor false";
    case flag_form::duration: return shown + " is no duration; write it like 250ms, 10s or 1m30s";
  }
  return shown;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t\r\n";
  auto first = std::min(text.find_first_not_of(blanks), text.size());
  text.remove_prefix(first);
  return text.substr(0, text.find_last_not_of(blanks) + 1);
}

/// Splits at commas outside of quotes and brackets.
std::vector<std::string_view> items_of(std::string_view text) {
  std::vector<std::string_view> items;
  std::size_t begin = 0;
  char quote = 0;
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\\')
      ++i; // whatever follows stands for itself
    else if (quote != 0)
      quote = c == quote ? '\0' : quote;
    else if (depth == 0 && (c == '"' || c == '\''))
      quote = c;
    else if (c == '[')
      ++depth;
    else if (c == ']')
      depth = std::max(0, depth - 1);
    else if (c == ',' && depth == 0) {
      items.push_back(text.substr(begin, i - begin));
      begin = i + 1;
    }
  }
  items.push_back(text.substr(std::min(begin, text.size())));
  return items;
}

std::string_view without_quotes(std::string_view value) {
  bool quoted = value.size() >= 2 && (value.front() == '"' || value.front() == '\'')
                && value.back() == value.front();
  return quoted ? value.substr(1, value.size() - 2) : value;
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
    put_extra_args_on_top();
    keep_what_can_be_read();
    find_engines();
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

  void put_extra_args_on_top();
  void keep_what_can_be_read();
  void find_engines();
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

/// As the reference has it: what is wrong with them is passed over, aloud.
void applied_flags::put_extra_args_on_top() {
  const auto* text = given("extra-args");
  if (!text)
    return;
  auto extra = read_extra_args(*text);
  for (auto& warning : extra.warnings)
    note("extra-args", warning);
  for (auto& [name, value] : extra.flags) {
    const auto* flag = find_flag(name);
    if (!flag || name == "extra-args")
      note("extra-args", "there is no flag " + name + ": passed over");
    else if (!in_one_form(flag->form, value))
      note("extra-args", name + ": " + wrong_form(flag->form, value) + ": passed over");
    else
      given_[name] = value;
  }
}

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
  auto number = new_port ? number_in<std::int64_t>(*new_port).value_or(-1) : port;
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
  auto count = number_in<double>(value).value_or(-1) * (flag.unit == "s" ? 1000 : 1);
  if (!(count >= 0 && count <= 1e15))
    return wrong(flag.name, value + " is no time in " + std::string{flag.unit});
  set(
    flag.name, knob,
    format_duration(milliseconds{static_cast<milliseconds::rep>(std::ceil(count))}));
}

/// Those that are not done with elsewhere.
void applied_flags::work(std::string_view name, const std::string& value) {
  auto number = number_in<std::int64_t>(value).value_or(0);
  if (name == "v") {
    constexpr std::int64_t detailed = 4; // klog: debug level
    effects_.debug = number >= detailed;
  } else if (name == "retry-max-count") {
    constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max() - 1;
    if (number < 0)
      return wrong(name, value + " is below 0");
    config_.gateway.max_placements = std::max(
      config_.gateway.max_placements, static_cast<std::uint32_t>(std::min(number, most)) + 1);
  }
}

} // namespace

std::vector<std::string> without_go_style(const std::vector<std::string>& words) {
  std::vector<std::string> own;
  auto put = [&](std::string_view name, std::string_view value) {
    own.emplace_back("--flag");
    own.push_back(std::string{name} + "=" + std::string{value});
  };
  for (std::size_t i = 0; i < words.size(); ++i) {
    std::string_view word = words[i];
    auto dashes = std::min(word.find_first_not_of('-'), word.size());
    auto name = word.substr(dashes, word.find('=') - dashes);
    const auto* flag = dashes == 1 || dashes == 2 ? find_flag(name) : nullptr;
    if (word == "--") {
      own.insert(own.end(), words.begin() + static_cast<std::ptrdiff_t>(i), words.end());
      break;
    }
    if (!flag)
      own.push_back(dashes == 1 && name.size() > 1 ? "-" + words[i] : words[i]);
    else if (auto equals = word.find('='); equals != word.npos)
      put(name, word.substr(equals + 1));
    else if (flag->form == flag_form::toggle)
      put(name, "true");
    else if (i + 1 < words.size())
      put(name, words[++i]);
    else
      own.push_back(dashed(name)); // its value is missed by whoever reads this
  }
  return own;
}

extra_args read_extra_args(std::string_view text) {
  extra_args found;
  for (auto item : items_of(text)) {
    item = trimmed(item);
    if (item.empty())
      continue;
    auto equals = item.find('=');
    if (equals == item.npos) {
      found.warnings.push_back(std::string{item} + " has no '=': passed over");
      continue;
    }
    auto name = trimmed(item.substr(0, equals));
    auto value = trimmed(without_quotes(item.substr(equals + 1)));
    found.flags.emplace_back(name, value);
  }
  return found;
}

bool parse_go_duration(std::string_view text, milliseconds& value) {
  using unit = std::pair<std::string_view, double>; // in milliseconds
  constexpr unit units[] = {{"ns", 1e-6}, {"us", 1e-3}, {"\u00b5s", 1e-3}, {"\u03bcs", 1e-3},
                            {"ms", 1},    {"s", 1e3},   {"m", 6e4},        {"h", 3.6e6}};
  if (text.starts_with('+'))
    text.remove_prefix(1);
  if (text == "0") {
    value = milliseconds{0};
    return true;
  }
  double sum = 0;
  bool any = false;
  while (!text.empty()) {
    auto digits = std::min(text.find_first_not_of("0123456789."), text.size());
    auto count = number_in<double>(text.substr(0, digits));
    text.remove_prefix(digits);
    auto letters = std::min(text.find_first_of("0123456789."), text.size());
    auto found = std::ranges::find(units, text.substr(0, letters), &unit::first);
    if (!count || found == std::end(units))
      return false;
    text.remove_prefix(letters);
    sum += *count * found->second;
    any = true;
  }
  constexpr double most = 1e15;
  if (!any || sum > most)
    return false;
  constexpr double rounding = 1e-9; // 0.1s is not a little more than 100 ms
  value = milliseconds{static_cast<milliseconds::rep>(std::ceil(sum * (1 - rounding)))};
  return true;
}

void set_reference_defaults(cluster_config& config) {
  config.node.name = "gateway";
  config.node.roles = {"gateway", "scheduler", "cms", "console"};
  config.http.listen = "0.0.0.0:8001";
  config.scheduler.full_mode = false;
}

flag_effects apply_reference_flags(given_flags given, cluster_config& config) {
  return applied_flags{std::move(given), config}.run();
}

} // namespace llumnix
