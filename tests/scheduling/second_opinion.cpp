#include "tests/scheduling/second_opinion.hpp"

#include <algorithm>
#include <limits>
#include <regex>

namespace llumnix::testing {

namespace {

/// Weakness 18 of spec/cms.md: what is reported is matched against what was dispatched.
template <class Account>
std::string dispatched_as(const std::string& reported, const Account& account) {
  if (account.count(reported))
    return reported;
  static const std::regex kind{"^(cmpl|chatcmpl|generate-tokens)-"};
  static const std::regex suffixes[]{
    std::regex{R"(\+.*$)"}, std::regex{"-[^-]*$"}, std::regex{"-[0-9]+-[0-9a-fA-F]{8}$"}};
  std::string id = std::regex_replace(reported, kind, "");
  if (account.count(id))
    return id;
  for (auto& suffix : suffixes)
    if (auto shorter = std::regex_replace(id, suffix, ""); account.count(shorter))
      return shorter;
  return "";
}

template <class Account>
std::set<std::string>
dispatched_as(const std::vector<std::string>& reported, const Account& account) {
  std::set<std::string> plain;
  for (auto& id : reported)
    plain.insert(dispatched_as(id, account));
  return plain;
}

/// Where the reference wraps (weakness 11 of spec/scheduling.md) a count stays at the limit.
std::int32_t kept_in_32_bits(std::int64_t count) {
  if (count > std::numeric_limits<std::int32_t>::max())
    return std::numeric_limits<std::int32_t>::max();
  if (count < std::numeric_limits<std::int32_t>::min())
    return std::numeric_limits<std::int32_t>::min();
  return static_cast<std::int32_t>(count);
}

} // namespace

void second_opinion::put(const instance_metadata& metadata, const node_life& life) {
  auto found = records_.find(metadata.instance_id);
  if (
    found != records_.end() && found->second.life.node == life.node
    && life.incarnation < found->second.life.incarnation)
    return;
  auto& x = records_[metadata.instance_id];
  if (x.life != life) {
    x.reported = false;
    x.status = {};
    if (config_.full_mode) // else it is another who speaks for the same engine
      x.account.clear();
    x.state = instance_state::ready;
  }
  if (x.state == instance_state::lost)
    x.state = instance_state::ready;
  x.metadata = metadata;
  x.life = life;
}

void second_opinion::update(const instance_status& status, unix_ms now) {
  auto found = records_.find(status.instance_id);
  if (found == records_.end())
    return;
  auto& x = found->second;
  // Weakness 9 of spec/cms.md: whose clock was set back is heard.
  bool set_back = x.status.timestamp_ms >= status.timestamp_ms + 10'000
                  && (status.update_id > x.status.update_id
                      || (x.status.update_id == 0 && status.update_id == 0));
  if (x.reported && status.timestamp_ms <= x.status.timestamp_ms && !set_back) // gate 1
    return;
  // Weakness 1 of spec/cms.md: who starts again below, or never counts, is not frozen.
  bool restarted = x.status.update_id - std::int64_t{16} >= status.update_id
                   || (x.status.update_id == 0 && status.update_id == 0);
  if (x.reported && status.update_id <= x.status.update_id && !restarted) { // gate 2
    x.status.timestamp_ms = status.timestamp_ms;
    x.status.schedulable = status.schedulable;
    forget_stale(now);
    return;
  }
  x.status = status;
  x.reported = true;
  if (!config_.full_mode)
    return;
  auto recent = dispatched_as(status.recent_waiting_requests, x.account);
  auto waiting = dispatched_as(status.waiting_requests, x.account);
  std::set<std::string> gone;
  for (auto& [id, b] : x.account) {
    if (!b.found && recent.count(id))
      b.found = true;
    b.waits = waiting.count(id) > 0;
    if (b.found && !b.waits)
      gone.insert(id);
  }
  for (auto& id : gone)
    x.account.erase(id);
  forget_stale(now);
}

/// Weakness 15 of spec/cms.md: what is never reported is forgotten by time, not by a status.
void second_opinion::forget_stale(unix_ms now) {
  if (!config_.full_mode)
    return;
  for (auto& [id, x] : records_)
    std::erase_if(x.account, [&](auto& entry) {
      auto& b = entry.second;
      return !b.found && !b.waits
             && (now - b.at) / 1000 >= std::int64_t{config_.local_account_staleness_s};
    });
}

void second_opinion::set_state(const std::string& id, instance_state state) {
  if (auto found = records_.find(id); found != records_.end())
    found->second.state = state;
}

void second_opinion::lose(const node_life& life) {
  for (auto& [id, x] : records_)
    if (x.life.node == life.node && x.life.incarnation <= life.incarnation) {
      if (x.state != instance_state::stopped)
        x.state = instance_state::lost;
      if (config_.full_mode)
        x.account.clear();
    }
}

void second_opinion::remove(const std::string& id) {
  records_.erase(id);
}

void second_opinion::release(const std::string& request) {
  for (auto& [id, x] : records_)
    x.account.erase(request);
}

void second_opinion::placed(const placement_query& query, const std::string& id, unix_ms now) {
  if (id.empty())
    return;
  last_ = id;
  if (config_.local_account || !config_.full_mode) // a request that is there already is not counted
                                                   // again
    records_.at(id).account.insert(
      {query.request_id, {now, kept_in_32_bits(query.prompt_tokens), false, false}});
}

float second_opinion::load(const record& x) const {
  std::int64_t in_flight = 0, tokens = 0;
  for (auto& [id, b] : x.account)
    if (!b.found) {
      ++in_flight;
      tokens += b.tokens;
    }
  auto& s = x.status;
  auto& name = config_.neutral_load_metric;
  if (!config_.full_mode)
    return static_cast<float>(kept_in_32_bits(name == "num_requests" ? in_flight : tokens));
  if (name == "kv_cache_usage_ratio_projected") {
    if (!x.reported)
      return 0;
    if (s.num_total_gpu_tokens == 0)
      return std::numeric_limits<float>::max();
    return static_cast<float>(kept_in_32_bits(
             tokens + s.num_used_gpu_tokens + s.num_uncomputed_tokens_all_waiting_prefills
             + s.num_unallocated_tokens_scheduler_running_prefills
             + s.num_unallocated_tokens_hybrid_scheduler_waiting_decodes))
           / static_cast<float>(s.num_total_gpu_tokens);
  }
  std::int64_t sum = 0;
  if (name == "decode_batch_size")
    sum = in_flight + s.hybrid_scheduler_waiting_to_decode_requests_num + s.num_loading_requests
          + s.scheduler_waiting_to_decode_requests_num + s.scheduler_running_to_decode_requests_num;
  else if (name == "num_waiting_requests")
    sum = in_flight + s.num_waiting_requests;
  else if (name == "all_prefills_tokens_num")
    sum = tokens + s.num_uncomputed_tokens_all_waiting_prefills
          + s.num_uncomputed_tokens_scheduler_running_prefills;
  else if (name == "num_requests")
    sum = 2 * in_flight + s.num_waiting_requests + s.num_loading_requests + s.num_running_requests;
  else
    sum = tokens + s.hybrid_scheduler_waiting_to_decode_tokens_num
          + s.scheduler_waiting_to_decode_tokens_num + s.scheduler_running_to_decode_tokens_num
          + s.num_tokens_loading_requests;
  return static_cast<float>(kept_in_32_bits(sum));
}

bool second_opinion::failing(const record& x, unix_ms now) const {
  if (x.state == instance_state::lost)
    return true;
  if (!x.reported || x.state == instance_state::stopped)
    return false;
  bool unfit = !x.status.schedulable && x.state != instance_state::draining; // else by our own will
  return unfit
         || (now - x.status.timestamp_ms) / 1000 > std::int64_t{config_.instance_staleness_s};
}

std::vector<std::string> second_opinion::neutral() const {
  std::vector<std::string> ids;
  for (auto& [id, x] : records_)
    if (x.metadata.instance_type == "neutral")
      ids.push_back(id);
  return ids;
}

std::set<std::string> second_opinion::failover(unix_ms now) const {
  std::set<std::string> set, nodes, units;
  if (!config_.full_mode)
    return set;
  bool parallel = false;
  for (auto& id : neutral()) {
    auto& x = records_.at(id);
    parallel = parallel || x.metadata.data_parallel_size > 1;
    if (failing(x, now)) {
      set.insert(id);
      if (!x.metadata.node_id.empty())
        nodes.insert(x.metadata.node_id);
    }
  }
  auto& domain = config_.failover_domain;
  if (domain == "node" || domain == "node-unit") {
    set.clear();
    for (auto& id : neutral())
      if (nodes.count(records_.at(id).metadata.node_id))
        set.insert(id);
  }
  if (parallel && (domain == "instance-unit" || domain == "node-unit")) {
    for (auto& id : set)
      units.insert(records_.at(id).metadata.unit_id);
    set.clear();
    for (auto& id : neutral())
      if (units.count(records_.at(id).metadata.unit_id))
        set.insert(id);
  }
  return set;
}

std::set<std::string> second_opinion::acceptable(const placement_query& query, unix_ms now) {
  forget_stale(now);
  auto in_domain = failover(now);
  std::set<std::string> excluded{query.exclude.begin(), query.exclude.end()};
  bool by_load = config_.policy == "load-balance";
  auto limit = static_cast<float>(config_.neutral_load_threshold);
  for (int pass = 1; pass <= 3; ++pass) {
    std::vector<std::string> left;
    for (auto& id : neutral()) {
      auto& x = records_.at(id);
      bool fit = x.state == instance_state::ready && !failing(x, now) && !in_domain.count(id);
      bool welcome = pass > 2 || !excluded.count(id);
      bool has_room = pass > 1 || !by_load || load(x) < limit;
      if (fit && welcome && has_room)
        left.push_back(id);
    }
    if (left.empty())
      continue;
    if (config_.policy == "flood")
      return {std::ranges::count(left, last_) ? last_ : left.front()};
    if (config_.policy == "round-robin") {
      for (auto& id : left)
        if (id > last_)
          return {id};
      return {left.front()};
    }
    if (!config_.full_mode) // those after the last choice come first among equals
      std::ranges::rotate(left, std::ranges::upper_bound(left, last_));
    std::ranges::stable_sort(
      left, [&](auto& x, auto& y) { return load(records_.at(x)) < load(records_.at(y)); });
    left.resize(std::min<std::size_t>(left.size(), config_.dispatch_top_k));
    return {left.begin(), left.end()};
  }
  return {};
}

} // namespace llumnix::testing
