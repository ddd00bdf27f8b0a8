#pragma once

#include "config/load_config.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

/// What documents that people write are told about their text.
namespace llumnix {

/// Finds names that stand twice in one object while a document is read, which would quietly lose
/// the first value.
class name_watch {
public:
  /// As nlohmann calls it for each part of the document. A problem where a name stands twice.
  std::optional<config_problem>
  hear(nlohmann::json::parse_event_t event, const nlohmann::json& part);

private:
  struct object {
    std::set<std::string> names;
    std::string latest;
  };
  std::vector<object> open_; // from the document itself to the object being read
};

/// Whether `text` is well-formed UTF-8: JSON holds no other.
bool is_utf8(std::string_view text);

/// Where a byte that nlohmann counts from 1 stands, both counted from 1.
struct text_place {
  std::size_t line = 1;
  std::size_t column = 1;
};
text_place place_of_byte(std::string_view text, std::size_t byte);

} // namespace llumnix
