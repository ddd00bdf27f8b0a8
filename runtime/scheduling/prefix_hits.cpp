#include "runtime/scheduling/prefix_hits.hpp"

#include <algorithm>

namespace llumnix {

bool prefix_runs::add(std::span<const std::string> holders) {
  if (!open_)
    return false;
  open_ = false;
  for (const auto& name : holders) {
    if (chunks_ == 0) {
      runs_[name] = 1;
      open_ = true;
    } else if (auto run = runs_.find(name); run != runs_.end() && run->second == chunks_) {
      ++run->second;
      open_ = true;
    }
  }
  ++chunks_;
  return open_;
}

std::vector<prefix_holder> prefix_runs::holders() const {
  std::vector<prefix_holder> made;
  made.reserve(runs_.size());
  for (const auto& [name, chunks] : runs_) {
    auto tokens = std::min<std::uint64_t>(std::uint64_t{chunks} * chunk_tokens_, prompt_tokens_);
    if (tokens > 0)
      made.push_back({name, static_cast<std::uint32_t>(tokens)});
  }
  std::sort(made.begin(), made.end(), [](auto& a, auto& b) { return a.name < b.name; });
  return made;
}

std::uint32_t prefix_hits::hit_tokens(const instance_id& id) const {
  auto found = std::lower_bound(
    instances.begin(), instances.end(), id,
    [](const hit& each, const instance_id& wanted) { return each.instance < wanted; });
  return found != instances.end() && found->instance == id ? found->tokens : 0;
}

float prefix_hits::hit_ratio(const instance_id& id) const {
  if (prompt_tokens == 0)
    return 0;
  return static_cast<float>(hit_tokens(id)) / static_cast<float>(prompt_tokens);
}

std::uint32_t prefix_hits::miss_tokens(const instance_id& id) const {
  return asked ? prompt_tokens - std::min(prompt_tokens, hit_tokens(id)) : 0;
}

prefix_hits find_hits(
  const prefix_holders& holders, std::uint32_t prompt_tokens,
  const instances_by_address& addresses) {
  prefix_hits made{true, prompt_tokens, {}};
  auto credit = [&](const instance_id& id, std::uint32_t tokens) {
    if (tokens > 0)
      made.instances.push_back({id, tokens});
  };
  for (const auto& holder : holders.list) {
    auto tokens = std::min(holder.tokens, prompt_tokens);
    if (holders.named_by == holder_naming::instance)
      credit(holder.name, tokens);
    else if (auto at = addresses.find(holder.name); at != addresses.end())
      for (const auto& id : at->second)
        credit(id, tokens);
  }
  auto& list = made.instances; // the longest hit of each id in front, and only that stays
  std::sort(list.begin(), list.end(), [](auto& a, auto& b) {
    return a.instance != b.instance ? a.instance < b.instance : a.tokens > b.tokens;
  });
  auto same = [](auto& a, auto& b) { return a.instance == b.instance; };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
  return made;
}

prefix_hits
find_hits(const prefix_holders& holders, std::uint32_t prompt_tokens, const cluster_view& view) {
  prefix_hits made{true, prompt_tokens, {}};
  for (const auto& [id, known] : view.instances()) { // in order
    const auto& name = holders.named_by == holder_naming::instance ? id : known.metadata.ip_kvs;
    auto found = std::ranges::lower_bound(holders.list, name, {}, &prefix_holder::name);
    if (found == holders.list.end() || found->name != name)
      continue;
    if (auto tokens = std::min(found->tokens, prompt_tokens); tokens > 0)
      made.instances.push_back({id, tokens});
  }
  return made;
}

} // namespace llumnix
