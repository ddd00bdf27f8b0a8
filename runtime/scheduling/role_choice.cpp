#include "runtime/scheduling/role_choice.hpp"

#include <algorithm>
#include <bit>

namespace llumnix {

namespace {

constexpr std::size_t ranked_kept = 4; ///< instances of `placement_reasons::ranking`

/// The metric and limit of a filter on load; nothing for others.
struct load_limit {
  const load_metric* metric = nullptr;
  std::size_t slot = 0;
  float threshold = 0;
};

load_limit load_limit_of(const filter& which, const candidate_table& table) {
  if (auto* load = std::get_if<metric_filter>(&which))
    return {table.metrics()[load->slot].metric, load->slot, load->threshold};
  return {};
}

} // namespace

survivors role_chooser::survivors_of(std::uint32_t pass) const {
  return {candidates_, screened_.rejected, filters_of_pass(policy_.filters, pass)};
}

/// The limits of this request: those of config, or by its own goals.
void role_chooser::set_limits(const placement_wishes& wishes) {
  if (!policy_.goals)
    return;
  for (auto& which : policy_.filters)
    if (auto* limited = std::get_if<metric_filter>(&which);
        limited && limited->goal != time_goal::none)
      limited->threshold = policy_.goals->limit_ms(limited->goal, wishes);
  if (auto* pick = std::get_if<slo_decode>(&policy_.pick))
    pick->limit = policy_.goals->limit_ms(time_goal::tpot, wishes);
}

/// Who took the session's last request, if all filters let him.
std::optional<candidate_table::row> role_chooser::of_session(const std::string& session) const {
  auto* last = last_of_session(session);
  auto row = last ? candidates_.find(*last) : std::nullopt;
  return row && survivors_of(1).has(*row) ? row : std::nullopt;
}

role_choice role_chooser::choose(const placement_query& query, const decision_inputs& about) {
  candidates_.prepare(about);
  set_limits(query.wishes);
  screen(policy_.filters, candidates_, query, about.now, screened_);
  auto& session = query.wishes.session;
  if (auto row = of_session(session)) {
    sessions_.remember(session, candidates_.ids()[*row]); // is of use again
    return {row, 1, true};
  }
  auto made = choose_among_survivors(query);
  if (made.row && !session.empty())
    sessions_.remember(session, candidates_.ids()[*made.row]);
  return made;
}

role_choice role_chooser::choose_among_survivors(const placement_query& query) {
  auto passes = query.exclude.empty() ? last_pass - 1 : last_pass;
  role_choice made;
  for (made.pass = 1; made.pass <= passes; ++made.pass) {
    made.row = llumnix::choose(
      policy_.pick, survivors_of(made.pass), query.request_id, made.pass > 1, memory_);
    if (made.row)
      return made;
  }
  made.pass = passes;
  return made;
}

placement_reasons role_chooser::reasons(const role_choice& made) {
  placement_reasons reasons;
  reasons.pass = static_cast<std::uint8_t>(made.pass);
  reasons.considered = static_cast<std::uint32_t>(candidates_.size());
  for (std::uint32_t pass = 1; pass <= made.pass; ++pass)
    explain_drops(pass, reasons);
  explain_ranking(made, reasons);
  if (made.row)
    reasons.hit_tokens
      = static_cast<std::uint32_t>(std::max(candidates_.share(*made.row).hit_tokens, 0));
  return reasons;
}

void role_chooser::explain_drops(std::uint32_t pass, placement_reasons& into) const {
  auto taking_part = filters_of_pass(policy_.filters, pass);
  auto& rejected = screened_.rejected;
  rejections any = 0;
  for (auto x : rejected)
    any |= x;
  for (unsigned left = any & taking_part; left != 0; left &= left - 1) {
    auto bit = left & -left;
    auto& which = policy_.filters[static_cast<std::size_t>(std::countr_zero(bit))];
    auto fails = [bit](rejections x) { return (x & bit) != 0; };
    auto first = static_cast<std::size_t>(std::ranges::find_if(rejected, fails) - rejected.begin());
    auto& drops = into.drops.emplace_back();
    drops.filter = kind_of(which);
    drops.pass = static_cast<std::uint8_t>(pass);
    drops.count = static_cast<std::uint32_t>(std::ranges::count_if(rejected, fails));
    drops.first = candidates_.ids()[first];
    if (auto load = load_limit_of(which, candidates_); load.metric) {
      drops.metric = metric_number(load.metric->name);
      drops.value = candidates_.values(load.slot)[first];
      drops.threshold = load.threshold;
    }
    if (auto* attribute = std::get_if<attribute_filter>(&which))
      drops.reserved = attribute->reserved;
  }
}

/// Of a choice whose role likes these best, the first ones first; two tell enough.
decisive_fact role_chooser::what_decided(
  const role_choice& made, std::span<const candidate_table::row> best) const {
  if (made.of_session)
    return {choice_cause::session};
  auto other = std::ranges::find_if(best, [&](auto at) { return at != *made.row; });
  return llumnix::what_decided(
    policy_.pick, survivors_of(made.pass), *made.row,
    other == best.end() ? std::nullopt : std::optional{*other}, made.pass > 1, memory_);
}

void role_chooser::explain_ranking(const role_choice& made, placement_reasons& into) {
  if (!made.row)
    return;
  auto slots = compared_by(policy_.pick);
  auto kept = std::min(slots.size(), into.ranked_by.size());
  into.ranked_by_count = static_cast<std::uint8_t>(kept);
  for (std::size_t i = 0; i < kept; ++i)
    into.ranked_by[i] = metric_number(policy_.metrics[slots[i]].metric->name);
  auto rows
    = ranking_of(policy_.pick, survivors_of(made.pass), ranked_kept, made.pass > 1, memory_);
  into.decided = what_decided(made, rows);
  if (slots.empty())
    return;
  auto add = [&](candidate_table::row at) {
    auto& entry = into.ranking.emplace_back();
    entry.instance = candidates_.ids()[at];
    for (std::size_t i = 0; i < kept; ++i)
      entry.values[i] = candidates_.values(slots[i])[at];
  };
  into.ranking.reserve(rows.size());
  for (auto at : rows)
    add(at);
  if (std::ranges::find(rows, *made.row) == rows.end()) // one of the best `top_k`, or reserved
    add(*made.row);
}

stage_report role_chooser::report(const role_choice& made) const {
  stage_report report;
  report.fallback = made.row && made.pass > 1;
  report.considered = candidates_.ids();
  for (std::uint32_t pass = 1; pass <= made.pass; ++pass) {
    auto taking_part = filters_of_pass(policy_.filters, pass);
    for (candidate_table::row at = 0; at < candidates_.size(); ++at)
      for (unsigned left = screened_.rejected[at] & taking_part; left != 0; left &= left - 1) {
        auto& which = policy_.filters[static_cast<std::size_t>(std::countr_zero(left))];
        auto& drop = report.dropped.emplace_back();
        drop.instance = candidates_.ids()[at];
        drop.pass = pass;
        drop.filter = kind_of(which);
        if (auto load = load_limit_of(which, candidates_); load.metric) {
          drop.metric = load.metric->name;
          drop.value = candidates_.values(load.slot)[at];
          drop.threshold = load.threshold;
        }
        if (auto* attribute = std::get_if<attribute_filter>(&which))
          drop.reserved = attribute->reserved;
      }
  }
  auto compared = compared_by(policy_.pick);
  auto among = survivors_of(made.pass);
  for (candidate_table::row at = 0; at < candidates_.size(); ++at) {
    auto& candidate = report.candidates.emplace_back();
    candidate.instance = candidates_.ids()[at];
    for (std::size_t slot = 0; slot < policy_.metrics.size(); ++slot)
      candidate.metrics.emplace_back(
        policy_.metrics[slot].metric->name, candidates_.values(slot)[at]);
    if (!compared.empty() && among.has(at))
      candidate.score = candidates_.values(compared.front())[at];
  }
  if (made.row) {
    report.winner = candidates_.ids()[*made.row];
    explain_choice(made, report);
  }
  return report;
}

void role_chooser::explain_choice(const role_choice& made, stage_report& into) const {
  auto scratch = memory_; // whose ranking is written over
  auto among = survivors_of(made.pass);
  auto count = std::max<std::size_t>(memory_.drawn, 2);
  auto best = ranking_of(policy_.pick, among, count, made.pass > 1, scratch);
  into.decided = what_decided(made, best);
  auto& ids = candidates_.ids();
  if (into.decided.cause == choice_cause::drawn)
    for (auto at : best)
      into.drawn.push_back(ids[at]);
  else if (into.decided.drawn > 0)
    into.drawn = {into.winner, into.decided.next};
}

} // namespace llumnix
