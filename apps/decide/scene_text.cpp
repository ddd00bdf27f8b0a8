#include "apps/decide/scene_text.hpp"

#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

namespace {

/// Watches a document while it is read: how deep it is, how large, and whether a name stands twice
/// in one object, which would quietly lose the first value.
class watch {
public:
  explicit watch(std::optional<config_problem>& problem) : problem_{problem} {}

  /// As nlohmann calls it for each part of the document. Throws `stopped` to end the reading.
  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& part) {
    using enum nlohmann::json::parse_event_t;
    if (event == object_start)
      open_.emplace_back();
    else if (event == object_end)
      open_.pop_back();
    else if (event == key)
      take(part.get_ref<const std::string&>());
    if ((event == object_start || event == array_start) && depth >= scene_depth_max)
      stop("", "lists and objects stand more than " + std::to_string(scene_depth_max) + " deep");
    if (
      (event == object_start || event == array_start || event == value)
      && ++values_ > scene_values_max)
      stop("", "has more than " + std::to_string(scene_values_max) + " values");
    return true;
  }

  struct stopped {};

private:
  struct object {
    std::set<std::string> names;
    std::string latest;
  };

  void take(const std::string& name) {
    open_.back().latest = name;
    if (open_.back().names.insert(name).second)
      return;
    std::string path;
    for (auto& each : open_)
      path += (path.empty() ? "" : ".") + each.latest;
    stop(std::move(path), "is given twice; keep one of them");
  }

  [[noreturn]] void stop(std::string path, std::string message) {
    problem_ = {std::move(path), std::move(message)};
    throw stopped{};
  }

  std::optional<config_problem>& problem_;
  std::vector<object> open_;
  std::size_t values_ = 0;
};

/// "line 3, column 7: " of a byte that nlohmann counts from 1; of a text of one line the column.
std::string place_of(std::string_view text, std::size_t byte) {
  auto before = text.substr(0, std::min(byte == 0 ? 0 : byte - 1, text.size()));
  auto start = before.rfind('\n');
  auto column = before.size() - (start == before.npos ? 0 : start + 1) + 1;
  auto place = "column " + std::to_string(column) + ": ";
  if (text.find('\n') == text.npos)
    return place;
  return "line " + std::to_string(1 + std::ranges::count(before, '\n')) + ", " + place;
}

/// nlohmann's sentence without its own prefix.
std::string reason_of(const nlohmann::json::exception& failure) {
  std::string_view text = failure.what();
  if (auto bracket = text.find("] "); bracket != text.npos)
    text.remove_prefix(bracket + 2);
  if (auto colon = text.find(": "); text.starts_with("parse error") && colon != text.npos)
    text.remove_prefix(colon + 2);
  return std::string{text};
}

} // namespace

nlohmann::json parse_scene_text(std::string_view text, std::optional<config_problem>& problem) {
  if (text.size() > scene_size_max) {
    problem = {"", "is longer than " + std::to_string(scene_size_max >> 20) + " MiB"};
    return nullptr;
  }
  watch watching{problem};
  try {
    return nlohmann::json::parse(text, std::ref(watching));
  } catch (const watch::stopped&) {
  } catch (const nlohmann::json::parse_error& failure) {
    problem = {"", place_of(text, failure.byte) + reason_of(failure)};
  } catch (const nlohmann::json::exception& failure) { // a number beyond what a double holds
    problem = {"", reason_of(failure)};
  }
  return nullptr;
}

} // namespace llumnix
