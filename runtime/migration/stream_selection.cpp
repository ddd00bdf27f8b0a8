#include "runtime/migration/stream_selection.hpp"

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

namespace llumnix {

result<std::vector<stream_info>> select_streams(
  const instance_id& from, const request_selection& wanted, std::vector<stream_info> streams) {
  if (wanted.rule == selection_rule::kv_ratio)
    return error{
      errc::unsupported, "how much KV " + from
                           + " holds is its own business; choose by --num-requests or "
                             "--num-tokens"};
  std::erase_if(streams, [&](const stream_info& x) { return x.instance != from; });
  std::ranges::stable_sort(streams, std::greater{}, &stream_info::age_ms);
  request_lists lists;
  auto& running = lists.running.emplace();
  auto& waiting = lists.waiting.emplace();
  for (std::size_t i = 0; i < streams.size(); ++i) {
    auto output = static_cast<std::int32_t>(streams[i].output_tokens);
    auto tokens = static_cast<std::int32_t>(streams[i].prompt_tokens) + output;
    (output > 0 ? running : waiting).push_back({std::to_string(i), tokens, output});
  }
  auto places = select_within(wanted, lists, 0);
  if (!places)
    return std::move(places).error();
  std::vector<stream_info> chosen;
  for (const auto& place : *places)
    chosen.push_back(streams[std::stoul(place)]);
  return chosen;
}

} // namespace llumnix
