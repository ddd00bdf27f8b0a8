#include "runtime/scheduling/profile_file.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

namespace llumnix {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t largest_file = 64 * 1024 * 1024;
constexpr std::size_t most_problems = 5; // told at once

bool wanted(profile_kind kind, std::string_view field) {
  auto [row, column, ms] = fields_of(kind);
  return field == ms || field == row || (column != nullptr && field == column);
}

std::string clipped(std::string text, std::size_t most) {
  if (text.size() > most)
    text.replace(most, text.npos, "...");
  return text;
}

/// What is wrong with a field as a number of at least 0; empty if nothing is, and then `number` is
/// set.
std::string read_number(const json& entry, const char* field, double& number) {
  auto found = entry.find(field);
  if (found == entry.end())
    return fmt::format("{} is absent", field);
  if (!found->is_number())
    return fmt::format("{} is not a number but {}", field, found->type_name());
  number = found->get<double>();
  if (!std::isfinite(number) || number < 0)
    return fmt::format("{} is {}, which is not a finite number of at least 0", field, number);
  return {};
}

/// Gathers the points of one file, and what is wrong with it.
class point_collector {
public:
  point_collector(profile_kind kind, std::string name) : kind_{kind}, name_{std::move(name)} {}

  /// Takes the next entry; `where` says where it stands. False if there are problems enough.
  bool take(const json& entry, std::string_view where) {
    profile_point point;
    if (auto wrong = read(entry, point); !wrong.empty())
      return complain(fmt::format("{}{}", where, wrong));
    auto whole = fields_of(kind_).row;
    if (point.row != std::floor(point.row))
      doubt(fmt::format("{}.{} is {}, no whole number", where, whole, point.row));
    points_.push_back(point);
    return true;
  }

  bool complain(std::string problem) {
    problems_.push_back(std::move(problem));
    return problems_.size() < most_problems;
  }

  /// Something that is probably not meant so, but has a meaning. The first few are told.
  void doubt(const std::string& what) {
    if (doubts_.size() < most_problems)
      doubts_.push_back(name_ + what);
  }

  void restart() {
    points_.clear();
    doubts_.clear();
  }

  result<profile_table> finish() && {
    if (problems_.empty() && points_.empty())
      complain(": `results` has no entries");
    if (!problems_.empty())
      return {errc::invalid_argument, fmt::format("{}", fmt::join(problems_named(), "; "))};
    profile_table read{interpolation_table{std::move(points_)}, std::move(doubts_)};
    warn_of_reach(read);
    warn_of_holes(read);
    return read;
  }

private:
  std::string read(const json& entry, profile_point& point) const {
    if (!entry.is_object())
      return fmt::format(" is not an object but {}", entry.type_name());
    auto [row, column, ms] = fields_of(kind_);
    auto wrong = read_number(entry, row, point.row);
    if (wrong.empty() && column != nullptr)
      wrong = read_number(entry, column, point.column);
    if (wrong.empty())
      wrong = read_number(entry, ms, point.ms);
    return wrong.empty() ? wrong : "." + wrong;
  }

  std::vector<std::string> problems_named() const {
    std::vector<std::string> all;
    for (auto& each : problems_)
      all.push_back(name_ + each);
    if (all.size() == most_problems)
      all.push_back("there may be more");
    return all;
  }

  void warn_of_reach(profile_table& read) const {
    auto [row, column, ms] = fields_of(kind_);
    auto warn = [&](const char* field, double smallest, double wanted) {
      if (smallest > wanted)
        read.warnings.push_back(fmt::format(
          "{}: the smallest {} is {}: nothing is predicted for less", name_, field, smallest));
    };
    warn(row, read.table.rows().front(), 1);
    if (column != nullptr)
      warn(column, read.table.columns().front(), 8);
  }

  void warn_of_holes(profile_table& read) const {
    auto holes = read.table.missing(4);
    if (holes.empty())
      return;
    auto [row, column, ms] = fields_of(kind_);
    std::vector<std::string> named;
    for (auto& hole : holes)
      named.push_back(fmt::format("{} {} with {} {}", row, hole.row, column, hole.column));
    auto grid = read.table.rows().size() * read.table.columns().size();
    read.warnings.push_back(fmt::format(
      "{}: {} of the {} points of its grid are missing: nothing is predicted beside them ({}{})",
      name_, grid - read.table.size(), grid, fmt::join(named, ", "),
      grid - read.table.size() > holes.size() ? ", ..." : ""));
  }

  profile_kind kind_;
  std::string name_;
  std::vector<profile_point> points_;
  std::vector<std::string> problems_;
  std::vector<std::string> doubts_;
};

/// Characters of a text for a parser, noting the last one it took that is no white space: so the
/// parser's events can be given lines.
struct watched_text {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** last_solid;

  reference operator*() const { return *at; }
  watched_text& operator++() {
    if (*at != ' ' && *at != '\n' && *at != '\r' && *at != '\t')
      *last_solid = at;
    ++at;
    return *this;
  }
  friend bool operator==(const watched_text& x, const watched_text& y) { return x.at == y.at; }
  friend bool operator!=(const watched_text& x, const watched_text& y) { return x.at != y.at; }
};

/// Reads a profiling file as its parts are parsed. Of the document only the wanted fields of one
/// entry are ever kept, so memory follows the points, not the raw data that may stand beside them.
class file_reader final : public nlohmann::json_sax<json> {
public:
  file_reader(profile_kind kind, std::string_view text, point_collector& points)
    : kind_{kind}, text_{text}, points_{points}, solid_{text.data()}, counted_{text.data()} {}

  void read() {
    auto end = text_.data() + text_.size();
    if (json::sax_parse(watched_text{text_.data(), &solid_}, watched_text{end, &solid_}, this))
      if (!results_)
        complain("the file ends without `results`");
  }

  bool null() override { return value(json{}); }
  bool boolean(bool x) override { return value(json(x)); }
  bool number_integer(number_integer_t x) override { return value(json(x)); }
  bool number_unsigned(number_unsigned_t x) override { return value(json(x)); }
  bool number_float(number_float_t x, const string_t&) override { return value(json(x)); }
  bool string(string_t&) override { return value(json("")); }
  bool binary(binary_t&) override { return value(json{}); }

  bool start_object(std::size_t) override {
    if (depth_ == 2 && in_results_) {
      entry_ = json::object();
      entry_line_ = line();
    } else if (depth_ > 0 && !value(json::object())) {
      return false;
    }
    return deeper();
  }

  bool end_object() override {
    --depth_;
    if (depth_ != 2 || !in_results_)
      return true;
    return take(entry_, entry_line_);
  }

  bool start_array(std::size_t) override {
    if (depth_ == 1 && top_key_ == "results") {
      results_ = in_results_ = true;
      index_ = 0;
      points_.restart();
    } else if (!value(json::array())) {
      return false;
    }
    return deeper();
  }

  bool end_array() override {
    --depth_;
    if (depth_ == 1)
      in_results_ = false;
    return true;
  }

  bool key(string_t& name) override {
    if (depth_ == 1)
      top_key_ = std::move(name);
    else if (depth_ == 3)
      field_ = std::move(name);
    return true;
  }

  bool parse_error(
    std::size_t byte, const std::string&, const nlohmann::detail::exception& failure) override {
    auto before = text_.substr(0, std::min(byte == 0 ? 0 : byte - 1, text_.size()));
    auto start = before.rfind('\n');
    auto column = before.size() - (start == before.npos ? 0 : start + 1) + 1;
    std::string_view reason = failure.what();
    reason.remove_prefix(std::min(reason.find("] ") + 2, reason.size()));
    if (auto colon = reason.find(": "); reason.starts_with("parse error") && colon != reason.npos)
      reason.remove_prefix(colon + 2);
    points_.complain(fmt::format(
      ", line {}, column {}: {}", 1 + std::ranges::count(before, '\n'), column,
      clipped(std::string{reason}, 200)));
    return false;
  }

private:
  /// Anything but an entry that is an object, and the lists and objects around it.
  bool value(const json& x) {
    if (depth_ == 0)
      return complain("the file is not an object but " + std::string{x.type_name()});
    if (depth_ == 1 && top_key_ == "results")
      return complain("`results` is not a list but " + std::string{x.type_name()});
    if (depth_ == 2 && in_results_)
      return take(x, line());
    if (depth_ == 3 && in_results_ && wanted(kind_, field_)) {
      if (entry_.contains(field_))
        points_.doubt(fmt::format(
          ", line {}: results[{}].{} stands twice: the last one counts", line(), index_, field_));
      entry_[field_] = x;
    }
    return true;
  }

  bool deeper() {
    constexpr std::size_t most = 64; // far more than any profile nests
    return ++depth_ <= most || complain(fmt::format("it nests more than {} deep", most));
  }

  bool take(const json& entry, std::size_t at) {
    return points_.take(entry, fmt::format(", line {}: results[{}]", at, index_++));
  }

  bool complain(const std::string& problem) {
    points_.complain(fmt::format(", line {}: {}", line(), problem));
    return false;
  }

  /// Of the part being read. Lines are counted once, as reading goes on.
  std::size_t line() {
    line_ += static_cast<std::size_t>(std::count(counted_, solid_, '\n'));
    counted_ = solid_;
    return line_;
  }

  profile_kind kind_;
  std::string_view text_;
  point_collector& points_;
  const char* solid_;
  const char* counted_;
  std::size_t line_ = 1;
  std::size_t depth_ = 0; // objects and lists open
  bool results_ = false;  // were there
  bool in_results_ = false;
  std::size_t index_ = 0;
  std::string top_key_, field_;
  json entry_;
  std::size_t entry_line_ = 0;
};

result<std::string> read_text(const std::string& path) {
  std::error_code wrong;
  auto status = fs::status(path, wrong);
  if (status.type() == fs::file_type::not_found)
    return {errc::not_found, path + ": cannot be read: there is no such file"};
  if (status.type() == fs::file_type::none)
    return {errc::invalid_argument, path + ": cannot be read: " + wrong.message()};
  if (!fs::is_regular_file(status))
    return {errc::invalid_argument, path + ": cannot be read: it is not a file"};
  auto too_large = error{errc::invalid_argument, path + ": is larger than 64 MiB"};
  if (fs::file_size(path, wrong) > largest_file && !wrong)
    return too_large;
  std::ifstream file{path, std::ios::binary};
  std::string text;
  char chunk[65536];
  while (file.read(chunk, sizeof chunk) || file.gcount() > 0) {
    text.append(chunk, static_cast<std::size_t>(file.gcount()));
    if (text.size() > largest_file) // it grew
      return too_large;
  }
  if (!file.is_open() || file.bad())
    return {errc::invalid_argument, path + ": cannot be read"};
  return text;
}

result<profile_table> read_profile(profile_kind kind, const std::string& path) {
  auto text = read_text(path);
  if (!text)
    return std::move(text).error();
  return parse_profile(kind, *text, path);
}

} // namespace

profile_fields fields_of(profile_kind kind) {
  return kind == profile_kind::ttft ? profile_fields{"tokens_num", nullptr}
                                    : profile_fields{"batch_size", "tokens_per_request"};
}

result<profile_table> read_ttft_profile(const std::string& path) {
  return read_profile(profile_kind::ttft, path);
}

result<profile_table> read_tpot_profile(const std::string& path) {
  return read_profile(profile_kind::tpot, path);
}

result<profile_table>
parse_profile(profile_kind kind, std::string_view text, std::string_view name) {
  point_collector points{kind, std::string{name}};
  file_reader{kind, text, points}.read();
  return std::move(points).finish();
}

result<profile_table>
profile_from_results(profile_kind kind, const json& results, std::string_view name) {
  point_collector points{kind, std::string{name}};
  if (!results.is_array())
    points.complain(fmt::format(" is not a list but {}", results.type_name()));
  else
    for (std::size_t i = 0; i < results.size(); ++i)
      if (!points.take(results[i], fmt::format("[{}]", i)))
        break;
  return std::move(points).finish();
}

result<void> write_profile(const std::string& path, std::string_view text) {
  auto beside = path + ".new";
  std::error_code wrong;
  std::ofstream file{beside, std::ios::binary | std::ios::trunc};
  file << text;
  file.close();
  if (!file)
    return {errc::invalid_argument, path + ": cannot be written"};
  fs::rename(beside, path, wrong);
  if (!wrong)
    return {};
  auto why = wrong.message();
  fs::remove(beside, wrong);
  return {errc::invalid_argument, path + ": cannot be written: " + why};
}

} // namespace llumnix
