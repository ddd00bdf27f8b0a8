#include "integrations/discovery/pod_ledger.hpp"

#include "integrations/discovery/host_text.hpp"
#include "integrations/discovery/pod_record.hpp"

#include <algorithm>
#include <functional>
#include <tuple>
#include <utility>

namespace llumnix {
namespace {

/// How long ago the record was written, by two clocks that may be apart.
nanoseconds age_of(unix_ms written, unix_ms utc_now, std::chrono::milliseconds expiry) {
  if (written >= utc_now)
    return nanoseconds{0};
  if (written < 0 || utc_now - written >= expiry.count())
    return expiry;
  return std::chrono::milliseconds{utc_now - written};
}

} // namespace

void pod_ledger::read(const std::map<std::string, std::string>& records, unix_ms utc_now) {
  const bool lost = records.empty() && held() > 0;
  if (lost)
    log::discovery.warn(
      "records-lost",
      "the store has none of its {} records any more; their engines are used until "
      "the records expire",
      held());
  for (auto& [pod, entry] : entries_)
    entry.lost = entry.lost || lost;
  std::erase_if(
    entries_, [&](const auto& each) { return !each.second.lost && !records.contains(each.first); });
  const bool first = !std::exchange(has_read_, true);
  for (const auto& [pod, bytes] : records)
    take(pod, bytes, first ? std::optional{utc_now} : std::nullopt);
}

void pod_ledger::put(const std::string& pod, std::string_view bytes) {
  take(pod, bytes, std::nullopt);
}

void pod_ledger::take(
  const std::string& pod, std::string_view bytes, std::optional<unix_ms> first_seen) {
  const std::uint64_t digest = std::hash<std::string_view>{}(bytes);
  auto found = entries_.find(pod);
  if (found == entries_.end() && entries_.size() >= records_max)
    return object("more than " + std::to_string(records_max) + " records: not all are used");
  const bool fresh = found == entries_.end();
  auto& entry = fresh ? entries_[pod] : found->second;
  entry.lost = false;
  if (!fresh && entry.digest == digest)
    return;
  entry.digest = digest;
  unix_ms timestamp = 0;
  auto engines = read_engines(pod, bytes, timestamp);
  entry.unchanged = first_seen ? age_of(timestamp, *first_seen, rules_.expiry) : nanoseconds{0};
  if (fresh || engines != entry.engines) {
    entry.engines = std::move(engines);
    entry.came = first_seen ? 0 : ++changes_;
    entry.timestamp = timestamp;
  }
}

void pod_ledger::remove(const std::string& pod) {
  entries_.erase(pod);
}

void pod_ledger::pass(nanoseconds time) {
  for (auto& [pod, entry] : entries_)
    entry.unchanged = std::min<nanoseconds>(entry.unchanged + time, rules_.expiry);
  std::erase_if(entries_, [&](const auto& each) {
    return each.second.lost && each.second.unchanged >= rules_.expiry;
  });
}

std::vector<discovered_engine> pod_ledger::alive() const {
  using claim = std::pair<const entry*, const discovered_engine*>;
  auto rank
    = [](const claim& of) { return std::tie(of.first->came, of.first->timestamp, of.second->id); };
  std::map<std::string_view, claim> by_address;
  for (const auto& [pod, entry] : entries_) {
    if (entry.unchanged >= rules_.expiry)
      continue;
    for (const auto& engine : entry.engines) {
      claim mine{&entry, &engine};
      auto [held, fresh] = by_address.emplace(engine.address, mine);
      if (!fresh && rank(held->second) < rank(mine))
        held->second = mine;
    }
  }
  std::vector<discovered_engine> engines;
  for (const auto& [address, won] : by_address)
    engines.push_back(*won.second);
  std::sort(engines.begin(), engines.end(), [](const auto& left, const auto& right) {
    return left.id < right.id;
  });
  return engines;
}

std::size_t pod_ledger::held() const {
  return static_cast<std::size_t>(std::count_if(
    entries_.begin(), entries_.end(), [](const auto& each) { return !each.second.lost; }));
}

std::vector<discovered_engine>
pod_ledger::read_engines(const std::string& pod, std::string_view bytes, unix_ms& timestamp) {
  auto record = decode_pod_record(bytes);
  if (!record) {
    object("the record of '" + printable(pod) + "' is not used: " + record.error().context);
    return {};
  }
  timestamp = record->timestamp_ms;
  auto found = engines_of(pod, *record);
  for (const auto& problem : found.problems)
    object("the record of '" + printable(pod) + "': " + problem);
  std::erase_if(found.engines, [&](const auto& engine) { return !wanted(pod, engine); });
  return std::move(found.engines);
}

bool pod_ledger::wanted(const std::string& pod, const discovered_engine& engine) {
  if (rules_.role != "all" && engine.role != rules_.role)
    return false;
  for (const auto* address : {&engine.address, &engine.kv_address})
    if (!address->empty() && !rules_.networks.inside(host_of(*address))) {
      object(
        *address + " of '" + printable(pod)
        + "' is not dialled: it lies outside of discovery.networks");
      return false;
    }
  return true;
}

void pod_ledger::object(std::string sentence) {
  if (!objected_.first(sentence))
    return;
  ++problems_;
  log::discovery.warn("odd-record", "{}", sentence);
}

} // namespace llumnix
