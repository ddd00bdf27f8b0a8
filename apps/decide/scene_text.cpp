#include "apps/decide/scene_text.hpp"

#include "config/json_text.hpp"

#include <functional>
#include <string>
#include <utility>

namespace llumnix {

namespace {

/// Watches a document while it is read: how deep it is, how large, and whether a name stands twice
/// in one object.
class watch {
public:
  explicit watch(std::optional<config_problem>& problem) : problem_{problem} {}

  /// As nlohmann calls it for each part of the document. Throws `stopped` to end the reading.
  bool operator()(int depth, nlohmann::json::parse_event_t event, const nlohmann::json& part) {
    using enum nlohmann::json::parse_event_t;
    if (auto twice = names_.hear(event, part))
      stop(std::move(*twice));
    if ((event == object_start || event == array_start) && depth >= scene_depth_max)
      stop(
        {"", "lists and objects stand more than " + std::to_string(scene_depth_max) + " deep"});
    if (
      (event == object_start || event == array_start || event == value)
      && ++values_ > scene_values_max)
      stop({"", "has more than " + std::to_string(scene_values_max) + " values"});
    return true;
  }

  struct stopped {};

private:
  [[noreturn]] void stop(config_problem found) {
    problem_ = std::move(found);
    throw stopped{};
  }

  std::optional<config_problem>& problem_;
  name_watch names_;
  std::size_t values_ = 0;
};

/// "line 3, column 7: " of a byte that nlohmann counts from 1; of a text of one line the column.
std::string place_of(std::string_view text, std::size_t byte) {
  auto [line, column] = place_of_byte(text, byte);
  auto place = "column " + std::to_string(column) + ": ";
  return text.find('\n') == text.npos ? place : "line " + std::to_string(line) + ", " + place;
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
