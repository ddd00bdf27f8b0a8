#include "actors/prefix_watch.hpp"

#include <algorithm>
#include <limits>

namespace llumnix {

namespace {

constexpr std::chrono::seconds ask_again_every{1}; ///< of one instance

} // namespace

prefix_watch::prefix_watch(std::uint64_t seed) : index_{{.seed = seed}} {}

void prefix_watch::on_node(
  const node_life& life, const std::map<instance_id, llumlet_actor>& instances) {
  for (auto at = sources_.begin(); at != sources_.end();) {
    auto here = at++;
    const auto& known = here->second;
    if (known.life.node != life.node)
      continue;
    auto now = instances.find(here->first);
    if (known.life != life || now == instances.end() || now->second != known.llumlet)
      forget(here);
  }
  for (const auto& [id, llumlet] : instances) {
    auto [at, is_new] = sources_.try_emplace(id);
    if (is_new)
      at->second.life = life, at->second.llumlet = llumlet;
    anyone_due_ = anyone_due_ || is_new;
  }
}

void prefix_watch::lose(const node_life& life) {
  for (auto at = sources_.begin(); at != sources_.end();) {
    auto here = at++;
    const auto& its = here->second.life;
    if (its.node == life.node && its.incarnation <= life.incarnation)
      forget(here);
  }
}

void prefix_watch::forget(std::map<instance_id, source>::iterator at) {
  index_.forget(at->first);
  sources_.erase(at);
  places_stale_ = true;
}

std::vector<prefix_watch::question> prefix_watch::due(time_point now) {
  std::vector<question> questions;
  if (!std::exchange(anyone_due_, false))
    return questions;
  for (auto& [id, it] : sources_) {
    if (it.watch != 0)
      continue;
    if (now < it.asked_next) {
      anyone_due_ = true;
      continue;
    }
    it.watch = ++watches_;
    it.heard = 0;
    it.asked_next = now + ask_again_every;
    questions.push_back({it.llumlet, it.watch});
  }
  return questions;
}

std::optional<prefix_watch::receipt> prefix_watch::hear(const kv_changes_msg& msg) {
  auto at = sources_.find(msg.instance);
  if (at == sources_.end() || at->second.watch == 0 || at->second.watch != msg.watch)
    return std::nullopt; // of a life or a question before
  auto& it = at->second;
  if (msg.number == it.heard && msg.changes.sound()) {
    ++it.heard;
    apply(msg.instance, msg.changes);
    if (!it.number) {
      it.number = index_.number_of(msg.instance);
      places_stale_ = places_stale_ || it.number;
    }
    if (it.heard % kv_heard_msg::every != 0)
      return std::nullopt;
    return receipt{it.llumlet, it.watch, it.heard};
  }
  ++gaps_;
  index_.cleared(msg.instance);
  it.watch = 0;
  anyone_due_ = true;
  return std::nullopt;
}

void prefix_watch::apply(const instance_id& instance, const kv_changes& changes) {
  if (changes.cleared)
    index_.cleared(instance);
  std::span hashes{changes.hashes};
  std::span tokens{changes.tokens};
  for (const auto& run : changes.runs) {
    auto blocks = hashes.first(run.blocks);
    hashes = hashes.subspan(run.blocks);
    if (!run.stored) {
      index_.removed(instance, blocks);
      continue;
    }
    auto parent = run.parent == 0 ? std::nullopt : std::optional{run.parent};
    auto count = std::size_t{run.blocks} * changes.block_tokens;
    index_.stored(instance, {blocks, parent, tokens.first(count), changes.block_tokens, 0, {}});
    tokens = tokens.subspan(count);
  }
}

void prefix_watch::find_places() {
  std::vector<instance_id> who;
  places_.clear();
  for (const auto& [id, it] : sources_)
    if (it.number)
      who.push_back(id), places_.push_back(*it.number);
  who_ = std::make_shared<const std::vector<instance_id>>(std::move(who));
}

prefix_hits prefix_watch::find(std::span<const token_id> prompt) {
  constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
  prefix_hits hits{true, static_cast<std::uint32_t>(std::min(most, prompt.size())), {}};
  index_.match(prompt, 0, held_);
  if (std::ranges::none_of(held_, [](auto tokens) { return tokens > 0; }))
    return hits;
  if (std::exchange(places_stale_, false))
    find_places();
  std::vector<std::uint32_t> tokens(places_.size());
  std::ranges::transform(places_, tokens.begin(), [this](std::uint32_t place) {
    return place < held_.size() ? held_[place] : 0;
  });
  hits.instances = {who_, std::move(tokens)};
  return hits;
}

prefix_watch::counts prefix_watch::count() const {
  return {sources_.size(), index_.blocks(), index_.counters().evicted, gaps_};
}

} // namespace llumnix
