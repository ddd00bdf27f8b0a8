#include "runtime/engine/modeled_setup.hpp"

#include "config/near_name.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace llumnix {

namespace {

template <class... Ts>
error bad(fmt::format_string<Ts...> text, Ts&&... xs) {
  return {errc::invalid_argument, fmt::format(text, std::forward<Ts>(xs)...)};
}

/// The model of that name; where there is none, the error names one that is near, or some there
/// are.
result<latency_model> choose_latency(const std::string& id) {
  constexpr std::size_t shown = 3;
  auto ids = latency_model_ids();
  if (std::ranges::find(ids, id) != ids.end())
    return find_latency_model(id);
  auto sentence
    = fmt::format("engine.latency: no model \"{}\" among the {} built in", id, ids.size());
  std::vector<std::string_view> known{ids.begin(), ids.end()};
  if (auto near = nearest_name(id, known); !near.empty())
    return {errc::not_found, fmt::format("{}; did you mean \"{}\"?", sentence, near)};
  known.resize(std::min(known.size(), shown));
  return {errc::not_found, fmt::format("{}, such as {}", sentence, fmt::join(known, ", "))};
}

result<void> check_numbers(const engine_config& config) {
  if (!std::isfinite(config.speed) || config.speed < 0)
    return bad("engine.speed: {} is not 0 or more", config.speed);
  if (config.block_tokens == 0)
    return bad("engine.block_tokens: must be at least 1");
  if (config.kv_bytes_per_token < 16 || config.kv_bytes_per_token % 8 != 0)
    return bad(
      "engine.kv_bytes_per_token: {} is not a multiple of 8 of at least 16",
      config.kv_bytes_per_token);
  if (config.max_num_seqs == 0)
    return bad("engine.max_num_seqs: must be at least 1");
  if (config.max_num_batched_tokens == 0)
    return bad("engine.max_num_batched_tokens: must be at least 1");
  return {};
}

result<std::uint32_t> count_blocks(const engine_config& config, const latency_model& latency) {
  std::uint64_t blocks = config.blocks;
  if (blocks == 0 && !latency.kv_capacity_tokens)
    return bad(
      "engine.blocks: the latency model \"{}\" does not say how many tokens fit; set engine.blocks",
      latency.id);
  if (blocks == 0)
    blocks = *latency.kv_capacity_tokens / config.block_tokens;
  if (blocks == 0)
    return bad(
      "engine.block_tokens: {} is more than the {} tokens that fit", config.block_tokens,
      *latency.kv_capacity_tokens);
  // Token counts are 32-bit signed numbers in the status.
  constexpr std::uint64_t tokens_max = std::numeric_limits<std::int32_t>::max();
  if (blocks > tokens_max / config.block_tokens)
    return bad(
      "engine.blocks: {} blocks of {} tokens are too many for an engine, which counts up to {} "
      "tokens; set it to {} or less",
      blocks, config.block_tokens, tokens_max, tokens_max / config.block_tokens);
  return static_cast<std::uint32_t>(blocks);
}

result<std::optional<corrupt_block>> parse_corrupt(const std::string& text) {
  if (text.empty())
    return std::optional<corrupt_block>{};
  auto colon = text.rfind(':');
  corrupt_block parsed{text.substr(0, colon), 0};
  if (colon != std::string::npos && colon > 0) {
    const auto* end = text.data() + text.size();
    auto [stop, failure] = std::from_chars(text.data() + colon + 1, end, parsed.block);
    if (failure == std::errc{} && stop == end)
      return std::optional{std::move(parsed)};
  }
  return bad("engine.corrupt: \"{}\" is not REQUEST:BLOCK, such as cmpl-1:0", text);
}

} // namespace

result<modeled_setup> make_modeled_setup(const engine_config& config) {
  auto latency = choose_latency(config.latency);
  if (!latency)
    return std::move(latency).error();
  if (auto sound = check_numbers(config); !sound)
    return std::move(sound).error();
  auto blocks = count_blocks(config, *latency);
  if (!blocks)
    return std::move(blocks).error();
  auto corrupt = parse_corrupt(config.corrupt);
  if (!corrupt)
    return std::move(corrupt).error();
  auto capacity = *blocks * config.block_tokens;
  if (config.max_model_len > capacity)
    return bad(
      "engine.max_model_len: {} tokens do not fit in {} blocks of {}; lower it or raise "
      "engine.blocks to {}",
      config.max_model_len, *blocks, config.block_tokens,
      (std::uint64_t{config.max_model_len} + config.block_tokens - 1) / config.block_tokens);
  return modeled_setup{
    .latency = *std::move(latency),
    .speed = config.speed,
    .blocks = *blocks,
    .block_tokens = config.block_tokens,
    .kv_bytes_per_token = config.kv_bytes_per_token,
    .max_model_len = config.max_model_len == 0 ? capacity : config.max_model_len,
    .max_waiting = config.max_waiting,
    .limits = {config.max_num_seqs, config.max_num_batched_tokens},
    .prefix_cache = config.prefix_cache,
    .poison_freed = config.poison_freed,
    .corrupt = *std::move(corrupt),
  };
}

} // namespace llumnix
