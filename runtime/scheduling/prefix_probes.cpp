#include "runtime/scheduling/prefix_probes.hpp"

#include <algorithm>

namespace llumnix {

namespace {

double percent_of(std::uint32_t tokens, std::uint32_t prompt_tokens) {
  if (prompt_tokens == 0)
    return 0;
  return static_cast<double>(std::uint64_t{std::min(tokens, prompt_tokens)} * 100 / prompt_tokens);
}

} // namespace

void prefix_probes::saw_choice(const prefix_hits& hits, std::uint32_t hit_tokens) {
  hit_percent.observe(percent_of(hit_tokens, hits.prompt_tokens));
  if (!hits.asked)
    return;
  std::uint32_t most = 0;
  for (auto tokens : hits.instances.tokens())
    most = std::max(most, tokens);
  best_percent.observe(percent_of(most, hits.prompt_tokens));
}

} // namespace llumnix
