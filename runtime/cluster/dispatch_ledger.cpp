#include "runtime/cluster/dispatch_ledger.hpp"

#include <algorithm>
#include <cctype>
#include <tuple>

namespace llumnix {

namespace {

/// The counters of a load, in the order of `dispatch_ledger::totals`.
constexpr std::array counters{
  &inflight_load::requests,        &inflight_load::prefill_requests,
  &inflight_load::decode_requests, &inflight_load::prefill_tokens,
  &inflight_load::decode_tokens,   &inflight_load::urgent_requests,
  &inflight_load::urgent_tokens,   &inflight_load::low_requests,
  &inflight_load::low_tokens};

/// The stage counters a dispatch adds (spec/cms.md 4.2); `requests` is left to the caller.
inflight_load stage_share(const dispatched_request& request) {
  inflight_load share;
  if (request.stage != infer_type::decode) {
    share.prefill_requests = 1;
    share.prefill_tokens = request.num_uncomputed;
  }
  if (request.stage != infer_type::prefill) {
    share.decode_requests = 1;
    share.decode_tokens = request.num_tokens;
  }
  return share;
}

/// Without what says which API a request came by.
std::string_view without_kind(std::string_view engine_id) {
  for (std::string_view prefix : {"cmpl-", "chatcmpl-", "generate-tokens-"})
    if (engine_id.starts_with(prefix))
      return engine_id.substr(prefix.size());
  return engine_id;
}

bool is_random_suffix(std::string_view text) {
  return text.size() == 8
         && std::ranges::all_of(text, [](unsigned char c) { return std::isxdigit(c) != 0; });
}

bool is_number(std::string_view text) {
  return !text.empty()
         && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c) != 0; });
}

constexpr std::uint64_t length_bit(std::string_view id) {
  return std::uint64_t{1} << (id.size() % 64);
}

} // namespace

std::string_view to_string(infer_type role) {
  switch (role) {
    case infer_type::neutral: return "neutral";
    case infer_type::prefill: return "prefill";
    case infer_type::decode: return "decode";
  }
  return "neutral";
}

std::optional<infer_type> parse_infer_type(std::string_view name) {
  for (auto role : all_roles)
    if (to_string(role) == name)
      return role;
  return std::nullopt;
}

request_id_forms::request_id_forms(std::string_view engine_id) {
  auto add = [this](std::string_view id) { ids[count++] = id; };
  add(engine_id);
  auto bare = without_kind(engine_id);
  if (bare.size() != engine_id.size())
    add(bare);
  if (auto plus = bare.find('+'); plus != bare.npos)
    add(bare.substr(0, plus));
  auto last = bare.rfind('-');
  if (last == bare.npos)
    return;
  auto shorter = bare.substr(0, last);
  add(shorter);
  auto before = shorter.rfind('-');
  if (
    before != shorter.npos && is_random_suffix(bare.substr(last + 1))
    && is_number(shorter.substr(before + 1)))
    add(shorter.substr(0, before));
}

/// The entry of what an engine reports under that id. Most forms have a length that no id has had,
/// and are not looked up.
template <class Account>
auto dispatch_ledger::find(Account& where, std::string_view engine_id) {
  for (auto id : request_id_forms{engine_id})
    if (where.lengths & length_bit(id))
      if (auto found = where.entries.find(id); found != where.entries.end())
        return found;
  return where.entries.end();
}

bool dispatch_ledger::book(
  const instance_id& instance, const dispatched_request& request, unix_ms now, bool is_found) {
  auto at = accounts_.try_emplace(instance).first;
  auto& where = at->second;
  auto [found, is_new] = where.entries.try_emplace(request.request_id);
  where.lengths |= length_bit(request.request_id);
  auto& what = found->second;
  where.instance = &at->first;
  auto share = stage_share(request);
  if (is_new) {
    share.requests = 1;
    what.request = &found->first;
    what.where = &where;
    what.stage = request.stage;
    what.dispatched = now;
    what.num_uncomputed = request.num_uncomputed;
    what.priority = request.priority;
    what.found = is_found && staleness_s_;
    if (!what.found) {
      count(where, what, share);
      let_expire(what);
    }
    instances_of_[request.request_id].push_back(instance);
    return true;
  }
  if (what.stage == request.stage || what.stage == infer_type::neutral)
    return false;
  if (what.found) { // the first stage has shown already; this one has yet to
    what.found = false;
    what.dispatched = now;
    let_expire(what);
  }
  what.stage = infer_type::neutral;
  count(where, what, share);
  return true;
}

std::vector<instance_id> dispatch_ledger::release(const std::string& request_id) {
  auto indexed = instances_of_.find(request_id);
  if (indexed == instances_of_.end())
    return {};
  auto instances = std::move(indexed->second);
  instances_of_.erase(indexed);
  for (auto& instance : instances) {
    auto& where = accounts_.find(instance)->second;
    auto found = where.entries.find(request_id);
    take_back(where, found->second);
    keep(found->second);
    where.entries.erase(found);
  }
  return instances;
}

void dispatch_ledger::reconcile(const instance_status& status, unix_ms now) {
  if (!staleness_s_)
    return;
  auto known = accounts_.find(status.instance_id);
  if (known == accounts_.end() || known->second.entries.empty())
    return;
  auto& where = known->second;
  ++round_;
  auto mark = [&](const std::vector<std::string>& engine_ids, std::uint64_t entry::*list) {
    for (auto& id : engine_ids)
      if (auto found = find(where, id); found != where.entries.end())
        found->second.*list = round_;
  };
  mark(status.recent_waiting_requests, &entry::recent_round);
  mark(status.waiting_requests, &entry::waiting_round);
  for (auto at = where.entries.begin(); at != where.entries.end();) {
    auto& what = at->second;
    bool waiting = what.waiting_round == round_;
    if (!waiting)
      what.waiting_round = 0;
    if (!what.found && what.recent_round == round_) {
      what.found = true;
      keep(what);
      take_back(where, what);
    }
    if (!waiting && (what.found || is_stale(what, now))) {
      keep(what);
      take_back(where, what);
      unindex(at->first, known->first);
      at = where.entries.erase(at);
    } else {
      ++at;
    }
  }
}

std::vector<instance_id> dispatch_ledger::expire(unix_ms now) {
  std::vector<instance_id> changed;
  while (oldest_ && is_stale(*oldest_, now)) {
    auto& what = *oldest_;
    auto& where = *what.where;
    keep(what);
    if (what.waiting_round > 0)
      continue; // it is there; the status that has it no longer ends it
    take_back(where, what);
    unindex(*what.request, *where.instance);
    where.entries.erase(where.entries.find(*what.request));
    if (changed.empty() || changed.back() != *where.instance)
      changed.push_back(*where.instance);
  }
  return changed;
}

std::optional<std::int32_t> dispatch_ledger::waiting_prefills(const instance_status& status) const {
  if (status.waiting_requests.empty())
    return std::nullopt;
  std::int64_t tokens = 0;
  if (auto known = accounts_.find(status.instance_id); known != accounts_.end())
    for (auto& id : status.waiting_requests)
      if (auto at = find(known->second, id); at != known->second.entries.end())
        tokens += at->second.num_uncomputed;
  return saturated(tokens);
}

std::vector<std::pair<instance_id, dispatched_request>> dispatch_ledger::counted() const {
  std::vector<std::pair<instance_id, dispatched_request>> all;
  for (const auto& [instance, where] : accounts_)
    for (const auto& [request, what] : where.entries)
      if (what.counted != inflight_load{})
        all.emplace_back(
          instance,
          dispatched_request{
            request, what.stage, what.counted.decode_tokens, what.num_uncomputed, what.priority});
  std::ranges::sort(all, {}, [](const auto& x) { return std::tie(x.first, x.second.request_id); });
  return all;
}

void dispatch_ledger::forget(const instance_id& instance) {
  auto known = accounts_.find(instance);
  if (known == accounts_.end())
    return;
  for (auto& [request_id, what] : known->second.entries) {
    keep(what);
    unindex(request_id, known->first);
  }
  accounts_.erase(known);
}

inflight_load dispatch_ledger::inflight(const instance_id& instance) const {
  auto known = accounts_.find(instance);
  inflight_load load;
  if (known != accounts_.end())
    for (std::size_t i = 0; i < counters.size(); ++i)
      load.*counters[i] = saturated(known->second.load[i]);
  return load;
}

void dispatch_ledger::add(totals& to, const inflight_load& share, int times) {
  static_assert(std::tuple_size_v<totals> == counters.size());
  for (std::size_t i = 0; i < counters.size(); ++i)
    to[i] += std::int64_t{times} * (share.*counters[i]);
}

void dispatch_ledger::count(account& where, entry& what, inflight_load share) {
  bool begins = what.counted == inflight_load{}; // a second stage has the same tokens
  auto tokens = begins ? std::max(share.prefill_tokens, share.decode_tokens) : 0;
  if (what.priority < 0) {
    share.urgent_requests = share.requests;
    share.urgent_tokens = tokens;
  } else if (what.priority > 0) {
    share.low_requests = share.requests;
    share.low_tokens = tokens;
  }
  add(where.load, share, 1);
  for (auto counter : counters)
    what.counted.*counter += share.*counter; // each stage once: no counter has two shares
}

void dispatch_ledger::take_back(account& where, entry& what) {
  add(where.load, what.counted, -1);
  what.counted = {};
}

bool dispatch_ledger::is_stale(const entry& what, unix_ms now) const {
  return (now - what.dispatched) / 1000 >= std::int64_t{*staleness_s_};
}

/// Puts an entry among those that may expire, by the time of its dispatch: mostly at the end.
void dispatch_ledger::let_expire(entry& what) {
  if (!staleness_s_ || what.may_expire)
    return;
  auto* before = newest_;
  while (before && before->dispatched > what.dispatched)
    before = before->before;
  what.may_expire = true;
  what.before = before;
  what.after = before ? before->after : oldest_;
  (before ? before->after : oldest_) = &what;
  (what.after ? what.after->before : newest_) = &what;
}

/// Takes an entry out of those that may expire.
void dispatch_ledger::keep(entry& what) {
  if (!what.may_expire)
    return;
  (what.before ? what.before->after : oldest_) = what.after;
  (what.after ? what.after->before : newest_) = what.before;
  what.may_expire = false;
}

void dispatch_ledger::unindex(const std::string& request_id, const instance_id& instance) {
  auto indexed = instances_of_.find(request_id);
  std::erase(indexed->second, instance);
  if (indexed->second.empty())
    instances_of_.erase(indexed);
}

} // namespace llumnix
