#include "integrations/vllm/engine_facts.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <set>
#include <simdjson.h>

namespace llumnix {
namespace {

constexpr std::size_t id_bytes_max = 512;
constexpr std::size_t version_bytes_max = 64;

/// The text of each object in `data`; none if there is no such array. `body` is valid JSON.
std::optional<std::vector<std::string>>
slice_entries(const simdjson::padded_string& body, bool& cut) {
  simdjson::ondemand::parser parser;
  simdjson::ondemand::document document;
  simdjson::ondemand::array data;
  if (
    parser.iterate(body).get(document) != simdjson::SUCCESS
    || document["data"].get_array().get(data) != simdjson::SUCCESS)
    return std::nullopt;
  std::vector<std::string> slices;
  for (auto element : data) {
    simdjson::ondemand::object object;
    std::string_view raw;
    if (
      element.get_object().get(object) == simdjson::SUCCESS
      && object.raw_json().get(raw) == simdjson::SUCCESS)
      slices.emplace_back(raw.substr(0, raw.find_last_of('}') + 1)); // blanks may follow it
    else
      cut = true;
  }
  return slices;
}

std::string text_of(simdjson::dom::element object, std::string_view name) {
  std::string_view text;
  return object[name].get_string().get(text) == simdjson::SUCCESS ? std::string{text}
                                                                  : std::string{};
}

std::uint32_t length_of(simdjson::dom::element object) {
  std::uint64_t length = 0;
  if (object["max_model_len"].get_uint64().get(length) != simdjson::SUCCESS)
    return 0;
  constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
  return static_cast<std::uint32_t>(std::min(length, most));
}

/// The first three numbers of "v0.10.2rc1"; nothing if it does not begin with one.
std::optional<std::array<std::uint32_t, 3>> parse_version(std::string_view text) {
  if (text.starts_with('v'))
    text.remove_prefix(1);
  std::array<std::uint32_t, 3> numbers{};
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto* begin = text.data();
    auto [end, failure] = std::from_chars(begin, begin + text.size(), numbers[i]);
    if (failure == std::errc::result_out_of_range || (failure != std::errc{} && i == 0))
      return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - begin));
    if (failure != std::errc{} || !text.starts_with('.'))
      break;
    text.remove_prefix(1);
  }
  return numbers;
}

} // namespace

result<model_list> read_models(std::string_view body) {
  simdjson::padded_string padded{body};
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  // Slicing believes what it does not look at: the whole is checked first.
  if (parser.parse(padded).get(document) != simdjson::SUCCESS)
    return {errc::bad_message, "the list of models is not JSON"};
  model_list list;
  auto slices = document.is_object() ? slice_entries(padded, list.cut) : std::nullopt;
  if (!slices)
    return {errc::bad_message, "the list of models has no array 'data'"};
  std::set<std::string> seen;
  for (auto& slice : *slices) {
    simdjson::dom::element entry;
    if (parser.parse(slice).get(entry) != simdjson::SUCCESS)
      return {errc::bad_message, "a model's entry is not JSON"};
    auto id = text_of(entry, "id");
    bool usable = !id.empty() && id.size() <= id_bytes_max && seen.insert(id).second;
    if (!usable) {
      list.cut = true;
      continue;
    }
    if (list.ids.empty())
      list.owned_by = text_of(entry, "owned_by");
    if (list.max_model_len == 0)
      list.max_model_len = length_of(entry);
    if (!text_of(entry, "parent").empty())
      list.adapters.push_back(id);
    list.ids.push_back(std::move(id));
    list.entries.push_back(std::move(slice));
  }
  return list;
}

result<std::string> read_version(std::string_view body) {
  simdjson::padded_string padded{body};
  simdjson::dom::parser parser;
  simdjson::dom::element document;
  if (parser.parse(padded).get(document) != simdjson::SUCCESS)
    return {errc::bad_message, "the version is not JSON"};
  auto version = text_of(document, "version");
  bool shows
    = std::all_of(version.begin(), version.end(), [](char c) { return c > ' ' && c < 127; });
  if (version.empty() || version.size() > version_bytes_max || !shows)
    return {errc::bad_message, "the version is not a short word"};
  return version;
}

bool tells_token_ids(std::string_view owned_by, std::string_view version) {
  if (owned_by != "vllm" || version.empty())
    return false;
  auto numbers = parse_version(version);
  return !numbers || *numbers >= std::array<std::uint32_t, 3>{0, 10, 2};
}

bool goes_on_with_text(std::string_view owned_by) {
  return owned_by == "vllm" || owned_by == "sglang";
}

bool takes_tokens(int status) {
  return status == 400 || status == 422;
}

std::string name_engine(std::string_view owned_by, std::string_view version) {
  std::string name = owned_by == "vllm"     ? "vLLM"
                     : owned_by == "sglang" ? "SGLang"
                                            : "OpenAI-compatible";
  if (!version.empty()) {
    name += ' ';
    name += version;
  }
  return name;
}

} // namespace llumnix
