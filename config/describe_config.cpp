#include "config/knob_value.hpp"
#include "config/knobs.hpp"
#include "config/load_config.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

namespace llumnix {

namespace {

using json = nlohmann::ordered_json;

std::pair<std::string, std::string> section_and_leaf(std::string_view path) {
  auto dot = path.find('.');
  return {std::string{path.substr(0, dot)}, std::string{path.substr(dot + 1)}};
}

json type_of(const knob& which, const knob_field& field) {
  return std::visit(
    [&](auto* member) -> json {
      using type = std::remove_pointer_t<decltype(member)>;
      if constexpr (std::is_same_v<type, bool>)
        return {{"type", "boolean"}};
      else if constexpr (std::is_unsigned_v<type>) {
        if (which.form == knob_form::bytes)
          return {
            {"type", {"integer", "string"}}, {"pattern", "^[0-9]+(\\.[0-9]+)?([KMGT]i?)?B?$"}};
        return {{"type", "integer"}, {"maximum", std::numeric_limits<type>::max()}};
      } else if constexpr (std::is_same_v<type, double>)
        return {{"type", "number"}};
      else if constexpr (std::is_same_v<type, milliseconds>)
        return {{"type", "string"}, {"pattern", "^[0-9]+(\\.[0-9]+)?(ms|s|m|h)$"}};
      else if constexpr (std::is_same_v<type, std::string>)
        return {{"type", "string"}};
      else
        return {{"type", "array"}, {"items", {{"type", "string"}}}};
    },
    field);
}

json schema_of(const knob& which, cluster_config& defaults) {
  auto field = which.field(defaults);
  auto schema = type_of(which, field);
  bool number = schema["type"] == "integer" || schema["type"] == "number";
  auto bound = [&](double value) {
    return schema["type"] == "integer" ? json(static_cast<std::int64_t>(value)) : json(value);
  };
  if (number && std::isfinite(which.minimum))
    schema["minimum"] = bound(which.minimum);
  if (number && std::isfinite(which.maximum))
    schema["maximum"] = bound(which.maximum);
  if (!which.choices.empty()) {
    auto& target = schema["type"] == "array" ? schema["items"] : schema;
    target["enum"] = which.choices;
  }
  if (which.secret)
    schema["writeOnly"] = true;
  schema["default"] = write_json(which, defaults);
  schema["description"] = which.doc;
  return schema;
}

std::string document_of(const cluster_config& config, secrets how) {
  json document = json::object();
  for (auto& each : knobs()) {
    auto [section, leaf] = section_and_leaf(each.path);
    document[section][leaf] = write_json(each, config, how);
  }
  return document.dump(2);
}

} // namespace

std::string to_json(const cluster_config& config) {
  return document_of(config, secrets::hidden);
}

std::string to_json_with_secrets(const cluster_config& config) {
  return document_of(config, secrets::shown);
}

std::string config_schema() {
  cluster_config defaults;
  json properties = json::object();
  for (auto& each : knobs()) {
    auto [section, leaf] = section_and_leaf(each.path);
    auto& object = properties[section];
    object["type"] = "object";
    object["additionalProperties"] = false;
    object["properties"][leaf] = schema_of(each, defaults);
  }
  json schema{
    {"$schema", "https://json-schema.org/draft/2020-12/schema"},
    {"title", "Configuration of llumnix"},
    {"type", "object"},
    {"additionalProperties", false},
    {"properties", std::move(properties)}};
  return schema.dump(2);
}

std::string describe(const cluster_config& config) {
  struct line {
    std::string path, value, standard;
    std::string_view doc;
  };
  cluster_config defaults;
  std::vector<line> lines{{"KNOB", "VALUE", "DEFAULT", "MEANING"}};
  for (auto& each : knobs()) {
    auto written = [&](const cluster_config& from) {
      auto text = write_text(each, from);
      return text.empty() ? std::string{"-"} : text;
    };
    lines.push_back({std::string{each.path}, written(config), written(defaults), each.doc});
  }
  auto width = [&](std::string line::*column) {
    std::size_t widest = 0;
    for (auto& each : lines)
      widest = std::max(widest, (each.*column).size());
    return widest + 2;
  };
  auto widths = std::array{width(&line::path), width(&line::value), width(&line::standard)};
  std::string text;
  for (auto& each : lines) {
    auto pad = [&](const std::string& cell, std::size_t to) {
      text += cell + std::string(to - cell.size(), ' ');
    };
    pad(each.path, widths[0]);
    pad(each.value, widths[1]);
    pad(each.standard, widths[2]);
    text += std::string{each.doc} + "\n";
  }
  return text;
}

} // namespace llumnix
