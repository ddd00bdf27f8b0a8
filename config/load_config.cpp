#include "config/load_config.hpp"

#include "config/json_text.hpp"
#include "config/knob_value.hpp"
#include "config/knobs.hpp"

#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstring>
#include <fstream>

namespace llumnix {

namespace {

config_problem unknown(std::string path) {
  auto near = nearest_path(path);
  auto message = near.empty() ? std::string{"no such knob; `llumnix config` lists them"}
                              : "no such knob; did you mean " + std::string{near} + "?";
  return {std::move(path), std::move(message)};
}

/// "line 3, column 7" of a byte that nlohmann counts from 1.
std::string place_of(std::string_view text, std::size_t byte) {
  auto [line, column] = place_of_byte(text, byte);
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

/// nlohmann's sentence without its own prefix and position.
std::string reason_of(const nlohmann::json::parse_error& failure) {
  std::string_view text = failure.what();
  if (auto colon = text.find(": "); colon != text.npos)
    text.remove_prefix(colon + 2);
  return std::string{text};
}

void walk(
  const nlohmann::json& object, const std::string& prefix, cluster_config& config,
  std::vector<config_problem>& problems) {
  for (auto& [key, value] : object.items()) {
    auto path = prefix.empty() ? key : prefix + "." + key;
    if (auto* which = find_knob(path)) {
      if (auto wrong = read_json(*which, value, config); !wrong.empty())
        problems.push_back({path, std::move(wrong)});
    } else if (!is_section(path)) {
      problems.push_back(unknown(path));
    } else if (!value.is_object()) {
      problems.push_back({path, "is a section; its value is an object like {\"knob\": value}"});
    } else {
      walk(value, path, config, problems);
    }
  }
}

} // namespace

std::vector<config_problem> load_json(std::string_view text, cluster_config& config) {
  nlohmann::json document;
  std::vector<config_problem> problems;
  name_watch names;
  auto watch = [&](int, nlohmann::json::parse_event_t event, const nlohmann::json& part) {
    if (auto twice = names.hear(event, part))
      problems.push_back(std::move(*twice));
    return true;
  };
  try {
    document = nlohmann::json::parse(text, watch, true, true);
  } catch (const nlohmann::json::parse_error& failure) {
    return {{place_of(text, failure.byte), reason_of(failure)}};
  }
  if (!document.is_object())
    return {{"line 1, column 1", "the configuration is one JSON object"}};
  walk(document, "", config, problems);
  return problems;
}

std::vector<config_problem> load_file(const std::string& path, cluster_config& config) {
  std::ifstream file{path, std::ios::binary};
  std::string text;
  char chunk[4096];
  while (file.read(chunk, sizeof chunk) || file.gcount() > 0)
    text.append(chunk, static_cast<std::size_t>(file.gcount()));
  if (!file.is_open() || file.bad())
    return {{path, std::string{"cannot be read: "} + std::strerror(errno)}};
  auto problems = load_json(text, config);
  for (auto& each : problems)
    each.path = path + (each.path.starts_with("line ") ? ", " : ": ") + each.path;
  return problems;
}

std::vector<config_problem> apply_setting(std::string_view assignment, cluster_config& config) {
  auto equals = assignment.find('=');
  if (equals == assignment.npos || equals == 0)
    return {{std::string{assignment}, "a setting is written path.to.knob=value"}};
  std::string path{assignment.substr(0, equals)};
  auto* which = find_knob(path);
  if (which == nullptr && is_section(path))
    return {{path, "is a section; set one of its knobs, as in node.name=head"}};
  if (which == nullptr)
    return {unknown(path)};
  if (auto wrong = read_text(*which, assignment.substr(equals + 1), config); !wrong.empty())
    return {{path, std::move(wrong)}};
  return {};
}

} // namespace llumnix
