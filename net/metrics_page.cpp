#include "net/metrics_page.hpp"

#include "net/http_message.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

namespace llumnix::net {

namespace {

constexpr std::string_view plain_type
  = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
constexpr std::string_view openmetrics_type
  = "application/openmetrics-text; version=1.0.0; charset=utf-8";
constexpr std::string_view total = "_total";
constexpr std::string_view help_mark = "# HELP ";
constexpr std::string_view type_mark = "# TYPE ";
constexpr std::string_view unit_mark = "# UNIT ";

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blanks = " \t";
  auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos)
    return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

/// Takes what comes before the first `separator`, which is dropped.
std::string_view take(std::string_view& rest, char separator) {
  auto end = rest.find(separator);
  auto part = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return part;
}

/// A media range of an `accept` header.
struct media_range {
  std::string_view type;
  std::string_view version;
  double weight = 1;
};

/// A weight from 0 to 1; what is none counts as 0.
double read_weight(std::string_view text) {
  double weight = 0;
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), weight);
  bool whole = failed == std::errc{} && end == text.data() + text.size();
  return whole && weight >= 0 && weight <= 1 ? weight : 0;
}

media_range read_range(std::string_view text) {
  media_range made;
  made.type = trimmed(take(text, ';'));
  while (!text.empty()) {
    auto value = take(text, ';');
    auto name = trimmed(take(value, '='));
    if (equal_ignoring_case(name, "version"))
      made.version = trimmed(value);
    else if (equal_ignoring_case(name, "q"))
      made.weight = read_weight(trimmed(value));
  }
  return made;
}

/// How much a type is wanted: by the range that comes closest to naming it.
struct preference {
  int closeness = 0; ///< 0: no range has it
  double weight = 0;

  void note(int close, double weighed) {
    if (close > closeness || (close == closeness && weighed > weight))
      *this = {close, weighed};
  }
};

/// Only who names OpenMetrics gets it; `*/*` is what everybody sends.
bool wants_openmetrics(std::string_view accept) {
  preference open, plain;
  while (!accept.empty()) {
    auto [type, version, weight] = read_range(take(accept, ','));
    auto is = [&, type = type](std::string_view name) { return equal_ignoring_case(type, name); };
    if (is("application/openmetrics-text") && (version.empty() || version == "1.0.0"))
      open.note(3, weight);
    else if (is("text/plain") && (version.empty() || version == "0.0.4"))
      plain.note(3, weight);
    else if (is("text/*"))
      plain.note(2, weight);
    else if (is("*/*"))
      plain.note(1, weight);
  }
  return open.weight > 0 && open.weight >= plain.weight;
}

struct family {
  std::string_view name;
  std::string_view type;
};

/// What follows `# TYPE `.
family read_family(std::string_view line) {
  auto name = take(line, ' ');
  return {name, line};
}

std::set<std::string_view> family_names(std::string_view text) {
  std::set<std::string_view> names;
  while (!text.empty())
    if (auto line = take(text, '\n'); line.starts_with(type_mark))
      names.insert(read_family(line.substr(type_mark.size())).name);
  return names;
}

/// Counters lose their `_total`, unless another family has the name that is left.
family renamed(family given, const std::set<std::string_view>& taken) {
  if (given.type == "untyped")
    return {given.name, "unknown"};
  if (given.type != "counter")
    return given;
  auto name = given.name.substr(0, given.name.size() - std::min(given.name.size(), total.size()));
  if (!name.empty() && given.name.ends_with(total) && !taken.contains(name))
    return {name, given.type};
  return {given.name, "unknown"};
}

/// The unit that a family's name ends in; empty: none.
std::string_view unit_of(std::string_view name) {
  for (std::string_view unit : {"seconds", "milliseconds", "bytes", "percent"})
    if (name.ends_with(unit) && name.substr(0, name.size() - unit.size()).ends_with('_'))
      return unit;
  return {};
}

/// A `# HELP NAME TEXT`: in OpenMetrics quotes are escaped in it, too.
void add_help(std::string& out, std::string_view family, std::string_view text) {
  out.append(help_mark).append(family).append(" ");
  for (auto c : text) {
    if (c == '"')
      out += '\\';
    out += c;
  }
  out += '\n';
}

/// Where in the sample of a bucket a whole number is its bound: right after it.
std::optional<std::size_t> end_of_whole_bound(std::string_view sample) {
  constexpr std::string_view label = "le=\"";
  auto at = sample.rfind(label);
  auto name_end = sample.find('{');
  if (
    at == std::string_view::npos || name_end >= at
    || !sample.substr(0, name_end).ends_with("_bucket")
    || (sample[at - 1] != '{' && sample[at - 1] != ','))
    return std::nullopt;
  auto end = sample.find_first_not_of("-0123456789", at + label.size());
  if (end == std::string_view::npos || sample[end] != '"')
    return std::nullopt;
  return end;
}

void add_sample(std::string& out, std::string_view sample) {
  if (auto end = end_of_whole_bound(sample))
    out.append(sample.substr(0, *end)).append(".0").append(sample.substr(*end));
  else
    out.append(sample);
  out += '\n';
}

} // namespace

std::string to_openmetrics(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 16);
  auto taken = family_names(text);
  std::string_view helped, help; // of a family whose type, which names it, is still to come
  while (!text.empty()) {
    auto line = take(text, '\n');
    if (line.starts_with(help_mark)) {
      help = line.substr(help_mark.size());
      helped = take(help, ' ');
    } else if (line.starts_with(type_mark)) {
      auto given = read_family(line.substr(type_mark.size()));
      auto told = renamed(given, taken);
      if (given.name == helped)
        add_help(out, told.name, help);
      out.append(type_mark).append(told.name).append(" ").append(told.type).append("\n");
      if (auto unit = unit_of(told.name); !unit.empty())
        out.append(unit_mark).append(told.name).append(" ").append(unit).append("\n");
    } else if (!line.empty() && line.front() != '#') {
      add_sample(out, line);
    }
  }
  return out + "# EOF\n";
}

metrics_page make_metrics_page(std::string_view accept, std::string text) {
  if (wants_openmetrics(accept))
    return {openmetrics_type, to_openmetrics(text)};
  return {plain_type, std::move(text)};
}

} // namespace llumnix::net
