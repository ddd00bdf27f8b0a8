#include "runtime/scheduling/candidate_table.hpp"

#include "runtime/cluster/foreign_instances.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace llumnix {

namespace {

std::int32_t count_of(std::uint32_t tokens) {
  return static_cast<std::int32_t>(
    std::min<std::uint32_t>(tokens, std::numeric_limits<std::int32_t>::max()));
}

/// The end of an id, which is where those of a fleet differ: compared before the ids are.
std::uint64_t tail_of(const instance_id& id) {
  std::uint64_t tail = 0;
  if (auto size = id.size(); size >= sizeof tail)
    std::memcpy(&tail, id.data() + size - sizeof tail, sizeof tail);
  else
    std::memcpy(&tail, id.data(), size);
  return tail;
}

/// Whether two ids whose tails are equal are. Ids of up to 16 bytes need no call of the library.
bool same_before_tail(const instance_id& x, const instance_id& y) {
  constexpr auto tail = sizeof(std::uint64_t);
  if (x.size() != y.size())
    return false;
  if (x.size() <= tail)
    return true;
  if (x.size() <= 2 * tail)
    return std::memcmp(x.data(), y.data(), tail) == 0;
  return std::memcmp(x.data(), y.data(), x.size() - tail) == 0;
}

} // namespace

candidate_table::candidate_table(std::vector<metric_column> metrics, const latency_profile* profile)
  : metrics_{std::move(metrics)},
    any_of_decision_{std::ranges::any_of(metrics_, &metric_column::of_decision)},
    profile_{profile},
    values_(metrics_.size()) {
  for (std::size_t slot = 0; slot < metrics_.size(); ++slot)
    if (metrics_[slot].of_decision)
      note_quick_column(slot);
}

void candidate_table::put(const instance_view& instance, const inflight_load& inflight) {
  auto& id = instance.metadata.instance_id;
  auto at = at_or_above(id);
  if (at == size() || ids_[at] != id)
    insert(at, id);
  bool judged = instance.has_status && instance.state != instance_state::stopped;
  views_[at] = &instance;
  inflight_[at] = inflight;
  states_[at] = instance.state;
  auto& told = instance.metadata;
  reachable_[at] = static_cast<std::uint8_t>(
    (instance.foreign() ? 0 : bit_of(reach::llumlet))
    | (has_http_endpoint(told) ? bit_of(reach::http) : 0));
  schedulable_[at] = !judged || instance.status.schedulable;
  written_[at] = judged ? instance.status.timestamp_ms : std::numeric_limits<unix_ms>::max();
  for (std::size_t slot = 0; slot < metrics_.size(); ++slot)
    if (!metrics_[slot].of_decision)
      compute(slot, at);
  for (auto& column : quick_)
    if (column.base)
      column.bases[at] = column.base->compute(metric_input{instance, inflight, {}, profile_});
  roles_[at] = parse_infer_type(told.instance_type).value_or(infer_type::neutral);
  auto& known = locations_[at];
  bool data_parallel = told.data_parallel_size > 1;
  if (
    known.node != told.node_id || known.unit != told.unit_id
    || known.data_parallel != data_parallel) {
    known = {told.node_id, told.unit_id, data_parallel};
    ++layout_;
  }
}

void candidate_table::erase(const instance_id& id) {
  auto found = find(id);
  if (!found)
    return;
  auto drop = [at = *found](auto& column) { column.erase(column.begin() + at); };
  drop(ids_), drop(tails_), drop(views_), drop(inflight_), drop(states_), drop(reachable_);
  drop(schedulable_), drop(written_);
  drop(roles_), drop(reserved_), drop(locations_), drop(hit_tokens_);
  progress_.clear();
  std::ranges::for_each(values_, drop);
  for (auto& column : quick_)
    drop(column.bases);
  ++layout_;
}

void candidate_table::reserve(const instance_id& id, std::optional<infer_type> role) {
  if (auto at = find(id))
    reserved_[*at] = role;
}

void candidate_table::give(const instance_id& id, given_metrics values) {
  given_[id] = std::move(values);
  if (auto at = find(id))
    for (std::size_t slot = 0; slot < metrics_.size(); ++slot)
      compute(slot, *at);
}

void candidate_table::prepare(const decision_inputs& about) {
  if (!any_of_decision_)
    return;
  take_shares(about);
  bool plain = !about.step && given_.empty();
  for (std::size_t slot = 0; slot < metrics_.size(); ++slot) {
    if (!metrics_[slot].of_decision)
      continue;
    auto quick = std::ranges::find(quick_, slot, &quick_column::slot);
    if (plain && quick != quick_.end())
      fill(*quick);
    else
      for (row at = 0; at < size(); ++at)
        compute(slot, at);
  }
}

void candidate_table::take_shares(const decision_inputs& about) {
  asked_ = about.hits && about.hits->asked;
  common_ = {
    .prompt_tokens = count_of(about.prompt_tokens),
    .now = about.now,
    .priority = about.priority,
    .adapter = about.adapter};
  std::ranges::fill(hit_tokens_, 0);
  if (asked_ && about.hits->instances.who()) {
    find_seats(about.hits->instances.who());
    auto& tokens = about.hits->instances.tokens();
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (seats_.rows[i] != nowhere)
        hit_tokens_[seats_.rows[i]] = count_of(tokens[i]);
  }
  progress_.assign(about.step ? size() : 0, 0);
  for (row at = 0; at < progress_.size(); ++at)
    progress_[at] = progress(at, about, share(at));
}

decision_share candidate_table::share(row at) const {
  auto share = common_;
  share.hit_tokens = hit_tokens_[at];
  share.miss_tokens = asked_ ? share.prompt_tokens - share.hit_tokens : 0;
  share.predicted_progress = progress_.empty() ? 0 : progress_[at];
  return share;
}

void candidate_table::find_seats(const instance_hits::names& who) {
  if (seats_.of == who && seats_.layout == layout_)
    return;
  seats_.of = who;
  seats_.layout = layout_;
  seats_.rows.assign(who->size(), nowhere);
  row from = 0;
  for (std::size_t i = 0; i < who->size() && from < size(); ++i)
    if (from = find_from(from, (*who)[i]); from < size() && ids_[from] == (*who)[i])
      seats_.rows[i] = from++;
}

/// The first row from `from` on that is not below `id`. Where many have hits the next is near.
candidate_table::row candidate_table::find_from(row from, const instance_id& id) const {
  constexpr row near = 8;
  auto tail = tail_of(id);
  auto until = static_cast<row>(std::min<std::size_t>(size(), std::size_t{from} + near));
  for (row at = from; at < until; ++at)
    if (tails_[at] == tail && same_before_tail(ids_[at], id))
      return at;
  auto above = from; // or it
  for (row step = 1; above < size() && ids_[above] < id; step *= 2) {
    from = above + 1;
    above = static_cast<row>(std::min<std::size_t>(size(), std::size_t{above} + step));
  }
  return static_cast<row>(
    std::lower_bound(ids_.begin() + from, ids_.begin() + above, id) - ids_.begin());
}

/// Both numbers are converted before they are added, as in the reference.
void candidate_table::fill(const quick_column& column) {
  using added = quick_column::added;
  auto* values = values_[column.slot].data();
  auto* bases = column.bases.data();
  auto* hits = hit_tokens_.data();
  auto count = size();
  if (column.tokens == added::nothing) {
    std::ranges::copy(column.bases, values);
  } else if (column.tokens == added::hit_tokens) {
    for (std::size_t at = 0; at < count; ++at)
      values[at] = static_cast<float>(hits[at]);
  } else {
    auto whole = asked_ ? common_.prompt_tokens : 0; // then nobody has hits
    for (std::size_t at = 0; at < count; ++at)
      values[at] = static_cast<float>(whole - hits[at]);
    if (column.base)
      for (std::size_t at = 0; at < count; ++at)
        values[at] += bases[at];
  }
}

void candidate_table::note_quick_column(std::size_t slot) {
  auto& metric = *metrics_[slot].metric;
  if (!metric.of_decision)
    quick_.push_back({slot, &metric});
  else if (metric.name == "kv_cache_hit_len" || metric.name == "hit_tokens")
    quick_.push_back({slot, nullptr, quick_column::added::hit_tokens});
  else if (metric.name == "miss_tokens")
    quick_.push_back({slot, nullptr, quick_column::added::miss_tokens});
  else if (metric.name == "cache_aware_all_prefills_tokens_num")
    quick_.push_back(
      {slot, find_load_metric("all_prefills_tokens_num"), quick_column::added::miss_tokens});
}

float candidate_table::value(
  const load_metric& metric, row at, const decision_inputs& about) const {
  decision_share share{
    .prompt_tokens = count_of(about.prompt_tokens),
    .now = about.now,
    .priority = about.priority,
    .adapter = about.adapter};
  if (about.hits && about.hits->asked) {
    share.hit_tokens = count_of(about.hits->hit_tokens(ids_[at]));
    share.miss_tokens = share.prompt_tokens - share.hit_tokens;
  }
  if (about.step)
    share.predicted_progress = progress(at, about, share);
  return value_of(metric, input(at, share));
}

std::int32_t candidate_table::progress(
  row at, const decision_inputs& about, const decision_share& without) const {
  auto& known = *views_[at];
  if (!known.has_status)
    return 0;
  static const auto& work = *find_load_metric("all_prefills_tokens_num");
  auto tokens = predicted_progress(
    *about.step, {.elapsed_ms = about.now - known.status.timestamp_ms,
                  .all_prefills_tokens = value_of(work, input(at, without)),
                  .running_prefills = known.status.num_uncomputed_tokens_scheduler_running_prefills,
                  .max_num_batched_tokens = about.max_num_batched_tokens});
  return static_cast<std::int32_t>(
    std::min<std::int64_t>(tokens, std::numeric_limits<std::int32_t>::max()));
}

void candidate_table::insert(row at, const instance_id& id) {
  auto open = [at](auto& column) { column.emplace(column.begin() + at); };
  open(ids_), open(tails_), open(views_), open(inflight_), open(states_), open(reachable_);
  open(schedulable_), open(written_);
  open(roles_), open(reserved_), open(locations_), open(hit_tokens_);
  progress_.clear();
  std::ranges::for_each(values_, open);
  for (auto& column : quick_)
    open(column.bases);
  ids_[at] = id;
  tails_[at] = tail_of(id);
  ++layout_;
}

std::optional<candidate_table::row> candidate_table::find(const instance_id& id) const {
  auto at = at_or_above(id);
  if (at == size() || ids_[at] != id)
    return std::nullopt;
  return at;
}

candidate_table::row candidate_table::at_or_above(const instance_id& id) const {
  return static_cast<row>(std::ranges::lower_bound(ids_, id) - ids_.begin());
}

candidate_table::row candidate_table::first_above(const instance_id& id) const {
  return static_cast<row>(std::ranges::upper_bound(ids_, id) - ids_.begin());
}

metric_input candidate_table::input(row at, const decision_share& share) const {
  const given_metrics* given = nullptr;
  if (!given_.empty())
    if (auto found = given_.find(ids_[at]); found != given_.end())
      given = &found->second;
  return {*views_[at], inflight_[at], share, profile_, given};
}

float candidate_table::value_if(
  const load_metric& metric, row at, const instance_view& instead) const {
  auto its = share(at);
  auto known = input(at, its);
  return value_of(metric, {instead, known.inflight, known.share, known.profile, known.given});
}

void candidate_table::compute(std::size_t slot, row at) {
  auto its = share(at);
  values_[slot][at] = value_of(*metrics_[slot].metric, input(at, its));
}

} // namespace llumnix
