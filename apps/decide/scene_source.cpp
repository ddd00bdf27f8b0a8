#include "apps/decide/scene_source.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace llumnix {

namespace {

bool is_blank(const std::string& line) {
  return line.find_first_not_of(" \t\r\n") == line.npos;
}

/// A line that is a scene of its own begins like one; those of a spread-out scene hardly do.
bool looks_like_scene(const std::string& line) {
  return line.starts_with('{');
}

} // namespace

std::optional<std::string> scene_source::next() {
  if (!begun_) {
    begun_ = true;
    auto line = next_line();
    if (!line || nlohmann::json::accept(*line))
      return line;
    return first(std::move(*line));
  }
  if (!waiting_.empty()) {
    auto line = std::move(waiting_.front());
    waiting_.pop_front();
    return line;
  }
  if (ended_)
    return std::nullopt;
  return next_line();
}

/// The next line that is not blank, without its end.
std::optional<std::string> scene_source::next_line() {
  auto& bytes = *from_.rdbuf();
  constexpr auto end = std::istream::traits_type::eof();
  for (;;) {
    std::string line;
    auto next = bytes.sbumpc();
    for (; next != end && next != '\n'; next = bytes.sbumpc())
      if (line.size() <= size_max_)
        line += static_cast<char>(next);
    if (!is_blank(line))
      return line;
    if (next == end)
      return std::nullopt;
  }
}

/// The first text of a file whose first line is no JSON: a scene spread over lines, or a bad line.
std::string scene_source::first(std::string line) {
  auto whole = line;
  bool one_a_line = false;
  do {
    auto more = next_line();
    if (!more)
      break;
    one_a_line = one_a_line || looks_like_scene(*more);
    whole += '\n' + *more;
    waiting_.push_back(std::move(*more));
  } while (whole.size() <= size_max_);
  if (one_a_line && (whole.size() > size_max_ || !nlohmann::json::accept(whole)))
    return line;
  waiting_.clear();
  ended_ = true;
  whole.resize(std::min(whole.size(), size_max_ + 1));
  return whole;
}

} // namespace llumnix
