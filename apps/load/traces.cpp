#include "apps/load/traces.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <string_view>

namespace llumnix::load {

namespace {

using json = nlohmann::json;

constexpr std::size_t line_bytes_max = 1 << 20;
constexpr std::uint32_t tokens_max = 10'000'000; ///< above it a row is nonsense

template <class T>
bool take_number(std::string_view& text, T& value) {
  auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc{})
    return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, char expected) {
  if (text.empty() || text.front() != expected)
    return false;
  text.remove_prefix(1);
  return true;
}

/// "2023-11-16 18:15:46.6805900" as nanoseconds of the calendar.
bool take_timestamp(std::string_view& text, nanoseconds& at) {
  int year = 0;
  unsigned month = 0;
  unsigned day = 0;
  unsigned hour = 0;
  unsigned minute = 0;
  unsigned second = 0;
  if (
    !take_number(text, year) || !take(text, '-') || !take_number(text, month) || !take(text, '-')
    || !take_number(text, day) || !(take(text, ' ') || take(text, 'T')) || !take_number(text, hour)
    || !take(text, ':') || !take_number(text, minute) || !take(text, ':')
    || !take_number(text, second))
    return false;
  std::int64_t fraction = 0;
  if (take(text, '.')) {
    std::int64_t unit = 100'000'000;
    for (; !text.empty() && text.front() >= '0' && text.front() <= '9'; text.remove_prefix(1)) {
      fraction += (text.front() - '0') * unit;
      unit /= 10;
    }
  }
  std::chrono::year_month_day date{
    std::chrono::year{year}, std::chrono::month{month}, std::chrono::day{day}};
  if (!date.ok() || hour > 23 || minute > 59 || second > 60)
    return false;
  at = std::chrono::sys_days{date}.time_since_epoch() + std::chrono::hours{hour}
       + std::chrono::minutes{minute} + std::chrono::seconds{second} + nanoseconds{fraction};
  return true;
}

std::optional<trace_row> azure_row(std::string_view line) {
  trace_row row;
  if (
    !take_timestamp(line, row.at) || !take(line, ',') || !take_number(line, row.prompt_tokens)
    || !take(line, ',') || !take_number(line, row.output_tokens) || !line.empty())
    return std::nullopt;
  return row;
}

std::optional<trace_row> json_row(const std::string& line, trace_format format) {
  bool mooncake = format == trace_format::mooncake_jsonl;
  auto object = json::parse(line, nullptr, false);
  if (!object.is_object())
    return std::nullopt;
  auto number = [&](const char* name) { return object.contains(name) && object[name].is_number(); };
  auto whole = [&](const char* name) {
    return object.contains(name) && object[name].is_number_unsigned()
           && object[name].get<std::uint64_t>() <= tokens_max;
  };
  const char* at = mooncake ? "timestamp" : "at_ms";
  const char* input = mooncake ? "input_length" : "prompt_tokens";
  const char* output = mooncake ? "output_length" : "output_tokens";
  if (!number(at) || !whole(input) || !whole(output))
    return std::nullopt;
  auto ms = object[at].get<double>();
  if (!(ms >= 0 && ms < 1e12))
    return std::nullopt;
  trace_row row;
  row.at = nanoseconds{static_cast<std::int64_t>(ms * 1e6)};
  row.prompt_tokens = object[input].get<std::uint32_t>();
  row.output_tokens = object[output].get<std::uint32_t>();
  if (mooncake && object.contains("hash_ids")) {
    if (!object["hash_ids"].is_array())
      return std::nullopt;
    for (const auto& id : object["hash_ids"]) {
      if (!id.is_number_integer())
        return std::nullopt;
      row.blocks.push_back(id.get<std::uint64_t>());
    }
  }
  return row;
}

} // namespace

result<std::vector<trace_row>>
read_trace(std::istream& in, trace_format format, double scale, std::size_t limit) {
  std::vector<trace_row> rows;
  nanoseconds first{0};
  std::string line;
  for (std::size_t number = 1; rows.size() < limit && std::getline(in, line); ++number) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' '))
      line.pop_back();
    if (line.empty() || (number == 1 && format == trace_format::azure_csv && line[0] == 'T'))
      continue;
    std::optional<trace_row> row;
    if (line.size() <= line_bytes_max)
      row = format == trace_format::azure_csv ? azure_row(line) : json_row(line, format);
    if (!row || row->prompt_tokens > tokens_max || row->output_tokens > tokens_max)
      return error{errc::invalid_argument, "line " + std::to_string(number) + " is not a request"};
    if (rows.empty())
      first = row->at;
    auto pause = static_cast<double>((row->at - first).count()) / scale;
    row->at = nanoseconds{static_cast<std::int64_t>(pause)};
    if (row->at < (rows.empty() ? nanoseconds{0} : rows.back().at))
      return error{
        errc::invalid_argument, "line " + std::to_string(number) + " is before the line above it"};
    row->prompt_tokens = std::max(row->prompt_tokens, 1U);
    row->output_tokens = std::max(row->output_tokens, 1U);
    rows.push_back(std::move(*row));
  }
  if (rows.empty())
    return error{errc::invalid_argument, "no request in it"};
  return rows;
}

} // namespace llumnix::load
