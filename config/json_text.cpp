#include "config/json_text.hpp"

#include <algorithm>

namespace llumnix {

std::optional<config_problem>
name_watch::hear(nlohmann::json::parse_event_t event, const nlohmann::json& part) {
  using enum nlohmann::json::parse_event_t;
  if (event == object_start)
    open_.emplace_back();
  else if (event == object_end)
    open_.pop_back();
  if (event != key)
    return std::nullopt;
  const auto& name = part.get_ref<const std::string&>();
  open_.back().latest = name;
  if (open_.back().names.insert(name).second)
    return std::nullopt;
  std::string path;
  for (auto& each : open_)
    path += (path.empty() ? "" : ".") + each.latest;
  return config_problem{std::move(path), "is given twice; keep one of them"};
}

bool is_utf8(std::string_view text) {
  try {
    nlohmann::json(text).dump();
    return true;
  } catch (const nlohmann::json::type_error&) {
    return false;
  }
}

text_place place_of_byte(std::string_view text, std::size_t byte) {
  auto before = text.substr(0, std::min(byte == 0 ? 0 : byte - 1, text.size()));
  auto start = before.rfind('\n');
  return {
    1 + static_cast<std::size_t>(std::ranges::count(before, '\n')),
    before.size() - (start == before.npos ? 0 : start + 1) + 1};
}

} // namespace llumnix
