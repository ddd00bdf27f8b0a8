#include "runtime/scheduling/prefix_hits.hpp"

#include "runtime/base/assert.hpp"

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

instance_hits::instance_hits(const std::vector<prefix_hit>& hits) {
  std::vector<instance_id> who;
  who.reserve(hits.size());
  tokens_.reserve(hits.size());
  for (auto& hit : hits)
    who.push_back(hit.instance), tokens_.push_back(hit.tokens);
  if (!who.empty())
    who_ = std::make_shared<const std::vector<instance_id>>(std::move(who));
}

instance_hits::instance_hits(names who, std::vector<std::uint32_t> tokens)
  : who_{std::move(who)}, tokens_{std::move(tokens)} {
  LLUMNIX_ASSERT(tokens_.size() == (who_ ? who_->size() : 0));
}

std::uint32_t instance_hits::tokens_of(const instance_id& id) const {
  if (!who_)
    return 0;
  auto found = std::ranges::lower_bound(*who_, id);
  if (found == who_->end() || *found != id)
    return 0;
  return tokens_[static_cast<std::size_t>(found - who_->begin())];
}

std::vector<prefix_hit> instance_hits::list() const {
  std::vector<prefix_hit> made;
  for (std::size_t at = 0; at < tokens_.size(); ++at)
    if (tokens_[at] > 0)
      made.push_back({(*who_)[at], tokens_[at]});
  return made;
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
  std::vector<prefix_hit> list;
  auto credit = [&](const instance_id& id, std::uint32_t tokens) {
    if (tokens > 0)
      list.push_back({id, tokens});
  };
  for (const auto& holder : holders.list) {
    auto tokens = std::min(holder.tokens, prompt_tokens);
    if (holders.named_by == holder_naming::instance)
      credit(holder.name, tokens);
    else if (auto at = addresses.find(holder.name); at != addresses.end())
      for (const auto& id : at->second)
        credit(id, tokens);
  }
  // The longest hit of each id in front, and only that stays.
  std::sort(list.begin(), list.end(), [](auto& a, auto& b) {
    return a.instance != b.instance ? a.instance < b.instance : a.tokens > b.tokens;
  });
  auto same = [](auto& a, auto& b) { return a.instance == b.instance; };
  list.erase(std::unique(list.begin(), list.end(), same), list.end());
  return {true, prompt_tokens, list};
}

prefix_hits
find_hits(const prefix_holders& holders, std::uint32_t prompt_tokens, const cluster_view& view) {
  std::vector<prefix_hit> list;
  for (const auto& [id, known] : view.instances()) { // in order
    const auto& name = holders.named_by == holder_naming::instance ? id : known.metadata.ip_kvs;
    auto found = std::ranges::lower_bound(holders.list, name, {}, &prefix_holder::name);
    if (found == holders.list.end() || found->name != name)
      continue;
    if (auto tokens = std::min(found->tokens, prompt_tokens); tokens > 0)
      list.push_back({id, tokens});
  }
  return {true, prompt_tokens, list};
}

} // namespace llumnix
