#include "runtime/migration/drain_plan.hpp"

#include "runtime/cluster/dispatch_ledger.hpp"

#include <algorithm>
#include <optional>
#include <tuple>

namespace llumnix {

namespace {

using namespace std::chrono_literals;

constexpr nanoseconds first_pause = 50ms;
constexpr nanoseconds longest_pause = 1s;
/// Where nothing is told of slots.
constexpr std::int64_t usual_out_slots = 8;
constexpr std::int64_t usual_in_slots = 4;

nanoseconds pause_after(std::uint32_t failures) {
  return std::min<nanoseconds>(first_pause * (1 << std::min(failures - 1, 5u)), longest_pause);
}

/// Slots in all, by what is free and what is taken; those that tell of none may have some.
std::int64_t slots(std::int32_t available, std::int32_t taken, std::int64_t usual) {
  auto told = std::int64_t{available} + taken;
  return told > 0 ? told : usual;
}

} // namespace

struct drain_plan::destination {
  stream_owner owner;
  std::int64_t free_slots = 0;
  std::int64_t used_tokens = 0; ///< and promised
  std::int64_t total_tokens = 0;

  bool has_room(std::uint32_t tokens) const {
    return total_tokens == 0 || used_tokens + tokens <= total_tokens;
  }
  double load() const {
    return total_tokens == 0 ? 1
                             : static_cast<double>(used_tokens) / static_cast<double>(total_tokens);
  }
};

/// What a prefill instance computes leaves it by itself; only what decodes there is moved.
void drain_plan::take_in(const std::vector<stream_info>& streams, bool prefills) {
  std::set<stream_ref> here;
  for (const auto& stream : streams)
    if (stream.instance == source_ && !(prefills && stream.output_tokens == 0)) {
      here.insert(stream.stream);
      requests_[stream.stream].tokens = stream.prompt_tokens + stream.output_tokens;
    }
  std::erase_if(requests_, [&](const auto& each) {
    return !each.second.under_way && !here.contains(each.first);
  });
}

/// Who takes work of this role, by id.
std::vector<drain_plan::destination>
drain_plan::destinations(const cluster_view& view, const std::string& role) const {
  std::vector<destination> all;
  for (const auto& [id, x] : view.instances()) {
    bool takes_work = x.state == instance_state::ready && x.has_status && x.status.schedulable
                      && !x.foreign() && id != source_;
    if (!takes_work || (!role.empty() && role != x.metadata.instance_type))
      continue;
    destination made;
    made.owner = {x.life, id};
    made.used_tokens = x.status.num_used_gpu_tokens;
    made.total_tokens = std::max(0, x.status.num_total_gpu_tokens);
    std::int64_t ours = 0; // under way there, whether its status shows them already or not
    for (const auto& [stream, each] : requests_)
      if (each.under_way && each.to == made.owner) {
        ++ours;
        made.used_tokens += each.tokens;
      }
    const auto& status = x.status;
    auto arriving = std::max<std::int64_t>(status.num_migrate_in_reqs, ours);
    made.free_slots
      = slots(status.num_available_migrate_in_slots, status.num_migrate_in_reqs, usual_in_slots)
        - arriving;
    all.push_back(std::move(made));
  }
  return all;
}

/// The best for this request; null if none has a slot. Those that refused it wait until everybody
/// has.
drain_plan::destination* drain_plan::choose(std::vector<destination>& all, request& wanted) const {
  auto refused = [&](const destination& x) { return wanted.refused.contains(x.owner.instance); };
  if (std::ranges::all_of(all, refused))
    wanted.refused.clear();
  destination* best = nullptr;
  auto rank = [&](const destination& x) {
    return std::tuple{!x.has_room(wanted.tokens), x.load()};
  };
  for (auto& each : all)
    if (each.free_slots > 0 && !refused(each) && (!best || rank(each) < rank(*best)))
      best = &each;
  return best;
}

std::vector<drain_move> drain_plan::next(
  const cluster_view& view, const std::vector<stream_info>& streams, time_point now) {
  const auto* source = view.find(source_);
  auto role = source ? source->metadata.instance_type : std::string{};
  bool prefills = role == to_string(infer_type::prefill);
  take_in(streams, prefills);
  auto all = destinations(view, prefills ? std::string{to_string(infer_type::decode)} : role);
  std::int64_t free = usual_out_slots;
  if (source)
    free = slots(
      source->status.num_available_migrate_out_slots, source->status.num_migrate_out_reqs,
      usual_out_slots);
  free -= static_cast<std::int64_t>(under_way_);

  std::vector<std::pair<const stream_ref, request>*> due;
  for (auto& each : requests_)
    if (!each.second.under_way && !each.second.stays && each.second.due <= now)
      due.push_back(&each);
  std::ranges::stable_sort(
    due, [](auto* a, auto* b) { return a->second.tokens > b->second.tokens; });

  std::vector<drain_move> moves;
  for (auto* each : due) {
    auto& request = each->second;
    if (free <= 0)
      break;
    auto* to = choose(all, request);
    if (!to)
      continue;
    --free;
    --to->free_slots;
    to->used_tokens += request.tokens;
    request.to = to->owner;
    request.under_way = true;
    ++under_way_;
    moves.push_back({each->first, to->owner});
  }
  return moves;
}

void drain_plan::on_ended(const stream_ref& stream, bool succeeded, time_point now) {
  auto found = requests_.find(stream);
  if (found == requests_.end() || !found->second.under_way)
    return;
  --under_way_;
  auto& request = found->second;
  request.under_way = false;
  if (succeeded) { // whoever listed it may not have heard yet, or waits for a slow client
    request.due = now + longest_pause;
    return;
  }
  request.refused.insert(request.to.instance);
  request.due = now + pause_after(++request.failures);
}

void drain_plan::on_stays(const stream_ref& stream) {
  auto found = requests_.find(stream);
  if (found == requests_.end() || !found->second.under_way)
    return;
  --under_way_;
  found->second.under_way = false;
  found->second.stays = true;
}

} // namespace llumnix
