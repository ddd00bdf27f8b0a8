#include "runtime/engine/latency_model.hpp"

#include <nlohmann/json.hpp>
#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace llumnix {

namespace {

using nlohmann::json;

/// A number of an entry; absent and null ones count as `missing`.
double number(const json& object, const char* name, double missing = 0) {
  auto it = object.find(name);
  return it != object.end() && it->is_number() ? it->get<double>() : missing;
}

std::optional<std::uint64_t> count(const json& object, const char* name) {
  auto it = object.find(name);
  if (it == object.end() || !it->is_number_unsigned())
    return std::nullopt;
  return it->get<std::uint64_t>();
}

/// Insertions, deletions and replacements between two words.
std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      auto replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
    }
  }
  return row.back();
}

latency_model read_entry(const json& entry) {
  const auto& prefill = entry.at("prefill");
  const auto& decode = entry.at("decode");
  return {
    .id = entry.at("id").get<std::string>(),
    .prefill_floor_ms = number(prefill, "floor_ms"),
    .a0_ms = number(prefill, "a0_ms"),
    .a1_ms_per_token = number(prefill, "a1_ms_per_token"),
    .a2_ms_per_token2 = number(prefill, "a2_ms_per_token2"),
    .c0_ms = number(decode, "c0_ms"),
    .c1_ms_per_seq = number(decode, "c1_ms_per_seq"),
    .c2_ms_per_ctx_token = number(decode, "c2_ms_per_ctx_token"),
    .kv_bytes_per_token = count(entry, "kv_bytes_per_token"),
    .kv_capacity_tokens = count(entry, "kv_capacity_tokens_est"),
  };
}

} // namespace

void step_load::add_prefill(std::uint32_t tokens, std::uint32_t before) {
  prefill_tokens += tokens;
  prefill_pairs += static_cast<double>(tokens) * (static_cast<double>(tokens) + 2.0 * before);
}

void step_load::add_decode(std::uint32_t context) {
  ++decodes;
  decode_context += context;
}

double latency_model::step_ms(const step_load& load) const {
  auto tokens = static_cast<double>(load.prefill_tokens);
  if (load.decodes > 0)
    return c0_ms + c1_ms_per_seq * load.decodes
           + c2_ms_per_ctx_token * static_cast<double>(load.decode_context)
           + a1_ms_per_token * tokens;
  if (load.prefill_tokens == 0)
    return 0;
  return std::max(
    prefill_floor_ms, a0_ms + a1_ms_per_token * tokens + a2_ms_per_token2 * load.prefill_pairs);
}

nanoseconds latency_model::step_time(const step_load& load, double speed) const {
  if (speed == 0)
    return nanoseconds{0};
  // A tiny speed may ask for more than the type holds; a century is as good as never.
  constexpr double longest = 3.15e18;
  return nanoseconds{std::llround(std::min(step_ms(load) * 1e6 / speed, longest))};
}

std::vector<std::string> latency_model_ids() {
  auto file = json::parse(latency_models_json());
  std::vector<std::string> ids;
  for (const auto& entry : file.at("models"))
    ids.push_back(entry.at("id").get<std::string>());
  return ids;
}

result<latency_model> find_latency_model(std::string_view id) {
  auto file = json::parse(latency_models_json());
  const auto& models = file.at("models");
  std::string nearest;
  auto distance = static_cast<std::size_t>(-1);
  for (const auto& entry : models) {
    const auto& name = entry.at("id").get_ref<const std::string&>();
    if (name == id)
      return read_entry(entry);
    if (auto d = edits(id, name); d < distance) {
      distance = d;
      nearest = name;
    }
  }
  return {
    errc::not_found,
    fmt::format(
      "engine.latency: no model \"{}\" among the {} built in; did you mean \"{}\"?", id,
      models.size(), nearest)};
}

} // namespace llumnix
