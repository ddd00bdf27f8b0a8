#include "runtime/cluster/reported_requests.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace llumnix {

namespace {

constexpr const char* unknown_gateway = "gateway not found";
constexpr const char* unknown_request = "request state not exists";

/// So that no sum of requests runs over.
std::uint64_t counted(std::uint64_t tokens) {
  return std::min(tokens, std::uint64_t{1} << 40);
}

} // namespace

std::vector<std::string> reported_requests::remove_gateway(const std::string& gateway) {
  std::vector<std::string> ended;
  auto known = gateways_.find(gateway);
  if (known == gateways_.end())
    return ended;
  for (std::size_t type = 0; type < stores_.size(); ++type)
    for (const auto& request : known->second[type]) {
      auto at = stores_[type].find(request);
      forget(at->second);
      stores_[type].erase(at);
      ended.push_back(request);
    }
  gateways_.erase(known);
  return ended;
}

void reported_requests::remove_instances(const std::set<instance_id>& gone) {
  for (std::size_t type = 0; type < stores_.size(); ++type)
    for (auto at = stores_[type].begin(); at != stores_[type].end();)
      at = gone.contains(at->second.instance) ? erase(type, at) : std::next(at);
  for (const auto& instance : gone)
    loads_.erase(instance);
}

reported_requests::store::iterator reported_requests::erase(std::size_t type, store::iterator at) {
  gateways_.find(at->second.gateway)->second[type].erase(at->first);
  forget(at->second);
  return stores_[type].erase(at);
}

/// Its instance has it no more.
void reported_requests::forget(const entry& ended) {
  auto& x = loads_.find(ended.instance)->second;
  x.tokens -= counted(ended.tokens);
  --x.requests;
  if (ended.prefill_done)
    return;
  x.waiting_tokens -= counted(ended.tokens);
  --x.waiting_requests;
}

result<void> reported_requests::allocate(
  infer_type type, const std::string& request, const std::string& gateway,
  const instance_id& instance, std::uint64_t tokens) {
  if (of(type).contains(request))
    return {errc::invalid_argument, "request state exists"};
  auto known = gateways_.find(gateway);
  if (known == gateways_.end())
    return {errc::not_found, unknown_gateway};
  if (size() >= requests_max_)
    return {errc::queue_full, "too many requests are counted already"};
  of(type).emplace(request, entry{instance, gateway, tokens, false});
  known->second[static_cast<std::size_t>(type)].insert(request);
  auto& x = loads_[instance];
  x.tokens += counted(tokens);
  x.waiting_tokens += counted(tokens);
  ++x.requests;
  ++x.waiting_requests;
  return {};
}

result<reported_requests::entry*> reported_requests::find(const request_progress& news) {
  auto type = parse_infer_type(news.at.store);
  if (!type)
    return {errc::invalid_argument, "not match infer type"};
  auto at = of(*type).find(news.request);
  if (at == of(*type).end())
    return {errc::not_found, unknown_request};
  if (!gateways_.contains(news.gateway))
    return {errc::not_found, unknown_gateway};
  return &at->second;
}

result<bool> reported_requests::hear(const request_progress& news) {
  if (!news.prefill_done)
    return update(news);
  if (auto done = prefill_done(news); !done)
    return std::move(done).error();
  return false;
}

result<bool> reported_requests::update(const request_progress& news) {
  auto found = find(news);
  if (!found)
    return std::move(found).error();
  auto& known = **found;
  if (known.instance != news.at.instance)
    return {errc::not_found, unknown_request};
  if (known.gateway != news.gateway)
    return {errc::invalid_argument, "request gateway changed"};
  if (news.tokens <= known.tokens)
    return false;
  auto more = counted(news.tokens) - counted(std::exchange(known.tokens, news.tokens));
  auto& x = loads_.find(known.instance)->second;
  x.tokens += more;
  if (!known.prefill_done)
    x.waiting_tokens += more;
  return true;
}

result<void> reported_requests::prefill_done(const request_progress& news) {
  auto found = find(news);
  if (!found)
    return std::move(found).error();
  auto& known = **found;
  if (known.instance != news.at.instance || std::exchange(known.prefill_done, true))
    return {};
  auto& x = loads_.find(known.instance)->second;
  x.waiting_tokens -= counted(known.tokens);
  --x.waiting_requests;
  return {};
}

bool reported_requests::release(
  const std::string& request, const std::string& gateway, const request_place& where) {
  auto type = parse_infer_type(where.store);
  if (!type)
    return false;
  auto at = of(*type).find(request);
  if (
    at == of(*type).end() || at->second.instance != where.instance || at->second.gateway != gateway)
    return false;
  erase(static_cast<std::size_t>(*type), at);
  return true;
}

std::vector<std::pair<instance_id, dispatched_request>>
reported_requests::places(const std::string& request) const {
  constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max();
  std::vector<std::pair<instance_id, dispatched_request>> all;
  for (auto type : all_roles)
    if (auto at = of(type).find(request); at != of(type).end()) {
      auto tokens = static_cast<std::int32_t>(std::min(at->second.tokens, most));
      all.push_back({at->second.instance, {request, type, tokens, tokens}});
    }
  return all;
}

std::size_t reported_requests::size() const {
  return stores_[0].size() + stores_[1].size() + stores_[2].size();
}

} // namespace llumnix
