#include "actors/scheduler_actor.hpp"

#include "actors/flight_json.hpp"
#include "actors/view_feed.hpp"
#include "config/load_config.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <set>

namespace llumnix {

static_assert(actor_state<scheduler_state>);

namespace {

constexpr std::chrono::seconds requests_shown_every{5}; // as the reference does

} // namespace

deciding_actor::behavior_type
scheduler_state::make_behavior(pointer actor, scheduler_actor_config settings) {
  self = actor;
  config = std::move(settings);
  auto made = dispatcher::make(config.knobs, config.profile);
  LLUMNIX_ASSERT(made.has_value()); // the config was checked when the node started
  decisions = std::make_unique<dispatcher>(std::move(*made));
  archive = decision_archive{config.knobs.recorded_scenes};
  cache_aware = is_cache_aware(config.knobs);
  records = recent_flights{config.recorded_requests};
  if (!config.knobs.full_mode)
    self->delayed_send(self, requests_shown_every, tick_atom::value);
  return {
    [this](const place_msg& msg) { return on_place(msg); },
    [this](const release_msg& msg) { release(msg.request_ids); },
    [this](const running_msg& msg) { on_running(msg); },
    [this](const schedule_msg& msg) { on_schedule(msg); },
    [this](const end_request_msg& msg) { on_end_request(msg); },
    [this](const progress_msg& msg) { on_progress(msg); },
    [this](const gateways_msg& msg) { on_gateways(msg); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const view_change_msg& msg) { on_view(msg); },
    [this](const inspect_msg& msg) { return on_inspect(msg); },
    [this](tick_atom) { show_requests(); },
    [this](const stat_msg&) {
      auto line = self->stat("scheduler", "scheduler");
      line.state = {
        {"instances", static_cast<std::int64_t>(decisions->view().instances().size())},
        {"placed", static_cast<std::int64_t>(placed)},
        {"no_instance", static_cast<std::int64_t>(refused)},
        {"records", static_cast<std::int64_t>(records.size())}};
      return actor_stats_msg{{std::move(line)}};
    },
  };
}

placements_msg scheduler_state::on_place(const place_msg& msg) {
  release(msg.released);
  placements_msg answer;
  answer.placed.reserve(msg.questions.size());
  for (const auto& question : msg.questions)
    answer.placed.push_back(place(question));
  return answer;
}

placed_msg scheduler_state::place(const placement_question& question) {
  auto at = now(); // of the decision and of what is written down of it
  if (archive.keeps())
    archive.keep(decisions->snapshot(question.query, &question.hits, at));
  auto choice = decisions->place(question.query, &question.hits, at, true);
  placed_msg answer{question.stream, question.epoch, {}, std::move(choice.reasons)};
  if (const auto* chosen = decisions->view().find(choice.instance)) {
    ++placed;
    answer.owner = {chosen->life, choice.instance};
    note_choice(answer.reasons.stage, choice.instance, answer.reasons);
    if (const auto* decode = decisions->view().find(choice.decode)) {
      answer.decode = {decode->life, choice.decode};
      answer.decode_reasons = std::move(choice.decode_reasons);
      note_choice(answer.decode_reasons.stage, choice.decode, answer.decode_reasons);
    }
    note_booked({question.stream.node, question.stream.incarnation}, question.query.request_id);
  } else {
    ++refused;
  }
  return answer;
}

/// What `/metrics` tells of chosen instances: how loaded they are with the request.
void scheduler_state::note_choice(
  infer_type stage, const instance_id& chosen, const placement_reasons& reasons) {
  if (!config.knobs.full_mode)
    return;
  auto load = decisions->load(chosen);
  if (stage != infer_type::decode)
    config.probes->prefill.observe(load, reasons);
  if (stage != infer_type::prefill)
    config.probes->decode.observe(load, reasons);
}

/// What became of a request of a foreign gateway; a decision as a scene; what steps of foreign
/// instances took. Nothing if it is not kept.
inspected_msg scheduler_state::on_inspect(const inspect_msg& msg) const {
  if (msg.subject == "why")
    return {flight_json(records.find(msg.argument))};
  if (msg.subject == "profile")
    return {
      msg.argument == to_string(infer_type::prefill) ? foreign_prefills.samples() : std::string{}};
  const auto* kept = msg.subject == "scene" ? archive.find(msg.argument) : nullptr;
  return {kept && config.write_scene ? config.write_scene(*kept) : std::string{}};
}

void scheduler_state::release(const std::vector<std::string>& request_ids) {
  for (const auto& id : request_ids) {
    decisions->release(id);
    for (auto& [gateway, ids] : booked)
      ids.erase(id);
  }
}

/// What was placed before we were there counts like what we place.
void scheduler_state::on_running(const running_msg& msg) {
  for (const auto& [instance, sent] : msg.requests) {
    decisions->book(instance, sent, now(), false);
    note_booked(msg.from, sent.request_id);
  }
}

void scheduler_state::note_booked(const node_life& gateway, const std::string& request) {
  if (gateway.node != config.life.node)
    booked[{gateway.node, gateway.incarnation}].insert(request);
}

// -- gateways of other makes (spec/scheduling.md 2)

/// All roles or nobody; and nobody while loads are not known.
void scheduler_state::on_schedule(const schedule_msg& msg) {
  if (config.knobs.full_mode && store == store_news::unreachable) {
    ++refused;
    scheduled nothing;
    nothing.note = "cms not available: while the store cannot be read, loads are not known";
    note_refused(msg, std::move(nothing));
    return msg.answer->give(error{errc::unreachable, "cms not available"});
  }
  prefix_hits hits;
  if (msg.holders) {
    auto began = self->clock().now();
    hits = find_hits(*msg.holders, msg.query.prompt_tokens, decisions->view());
    config.probes->prefixes.saw_match(self->clock().now() - began);
  }
  auto at = now(); // as in `place`
  if (archive.keeps())
    archive.keep(decisions->snapshot(msg.query, &hits, at));
  bool predicts = config.profile.ttft.size() + config.profile.tpot.size() > 0;
  auto choice = decisions->schedule(
    msg.query, &hits, at, predicts || records.keeps() ? explain::briefly : explain::nothing);
  if (!choice.placed) {
    ++refused;
    note_refused(msg, std::move(choice));
    log::scheduler.debug("refused", "{} of gateway {}", msg.query.request_id, msg.gateway);
    return msg.answer->give(error{errc::no_instance, "no available endpoint"});
  }
  ++placed;
  if (!config.knobs.full_mode)
    count_reported(msg, choice);
  std::vector<chosen_instance> chosen;
  for (const auto& stage : choice.stages) {
    log::scheduler.debug("placed", "{} on {}", msg.query.request_id, stage.instance);
    note_choice(stage.stage, stage.instance, stage.reasons);
    if (cache_aware && stage.stage != infer_type::decode)
      config.probes->prefixes.saw_choice(hits, hits.hit_tokens(stage.instance));
    chosen.push_back(describe_choice(
      decisions->view().find(stage.instance)->metadata, stage.stage, config.knobs.full_mode));
  }
  msg.answer->give(std::move(chosen));
  note_placed(msg.query.request_id, msg.gateway, choice);
}

/// With its reasons, which `choice` has no longer.
void scheduler_state::note_placed(
  const std::string& request, const std::string& gateway, scheduled& choice) {
  if (!records.keeps())
    return;
  for (auto& [stage, instance, reasons, report] : choice.stages) {
    auto kind = stage == infer_type::decode ? "decode_placed" : "placed";
    reasons.note = "asked for over HTTP" + (gateway.empty() ? "" : " by gateway " + gateway);
    records.note(request, {now(), kind, instance, 0, std::move(reasons), {}});
  }
}

/// Each role that nobody was found for; or why none was tried.
void scheduler_state::note_refused(const schedule_msg& msg, scheduled choice) {
  if (!records.keeps())
    return;
  const auto& request = msg.query.request_id;
  for (auto& each : choice.stages)
    if (each.instance.empty()) {
      auto why = sentence(each.reasons, {});
      records.note(request, {now(), "refused", {}, 0, std::move(each.reasons), std::move(why)});
    }
  if (!choice.note.empty()) {
    placement_reasons reasons;
    reasons.policy = config.knobs.policy;
    reasons.stage
      = msg.query.mode == serving_mode::neutral ? infer_type::neutral : msg.query.stage;
    reasons.view_version = decisions->view().version();
    reasons.note = choice.note;
    records.note(
      request, {now(), "refused", {}, 0, std::move(reasons), std::move(choice.note)});
  }
}

void scheduler_state::note_released(const std::string& request, std::string note) {
  records.note_known(request, {now(), "released", {}, 0, {}, std::move(note)});
}

/// In lite mode a request counts only if its gateway will tell of its end.
void scheduler_state::count_reported(const schedule_msg& msg, const scheduled& choice) {
  const auto& id = msg.query.request_id;
  bool all_counted = true;
  for (const auto& each : choice.stages)
    if (auto counted
        = reported.allocate(each.stage, id, msg.gateway, each.instance, msg.query.prompt_tokens);
        !counted) {
      all_counted = false;
      log::scheduler.debug(
        "not-counted", "{} at {} for gateway {}: {}", id, each.instance, msg.gateway,
        counted.error().context);
    }
  if (!all_counted)
    count_anew(id);
}

/// Lays down the account of a request as reports have it.
void scheduler_state::count_anew(const std::string& request) {
  decisions->release(request);
  for (const auto& [instance, counted] : reported.places(request))
    decisions->book(instance, counted, now(), false);
}

void scheduler_state::on_end_request(const end_request_msg& msg) {
  note_released(msg.request);
  if (config.knobs.full_mode)
    return decisions->release(msg.request);
  bool ended = false;
  for (const auto& place : msg.at)
    ended |= reported.release(msg.request, msg.gateway, place);
  if (ended)
    count_anew(msg.request);
}

void scheduler_state::on_progress(const progress_msg& msg) {
  if (config.knobs.full_mode)
    return;
  auto tell = [](const request_progress& news, const error& why) {
    log::scheduler.debug(
      "report-ignored", "{} at {} of gateway {}: {}", news.request, news.at.instance, news.gateway,
      why.context);
  };
  for (const auto& news : msg.news)
    if (auto grown = reported.hear(news); !grown)
      tell(news, grown.error());
    else if (*grown)
      count_anew(news.request);
}

/// With a gateway that has gone its requests are over, in lite mode; in full mode statuses say what
/// has become of them.
void scheduler_state::on_gateways(const gateways_msg& msg) {
  for (const auto& gateway : msg.up) {
    log::scheduler.info("gateway-up", "{} keeps a connection", gateway);
    reported.add_gateway(gateway);
  }
  for (const auto& gateway : msg.down) {
    auto all = reported.remove_gateway(gateway); // one for each role
    std::set<std::string> ended{all.begin(), all.end()};
    log::scheduler.info(
      "gateway-down", "{} is not connected any more; {} of its requests ended", gateway,
      ended.size());
    for (const auto& request : ended) {
      count_anew(request);
      note_released(request, "its gateway " + gateway + " is not connected any more");
    }
  }
}

/// Prefill instances of others publish what steps took (spec/cms.md 1.2, fields 38 to 40).
void scheduler_state::observe(const instance_status& status) {
  const auto* known = decisions->view().find(status.instance_id);
  if (
    known && known->foreign() && known->metadata.instance_type == to_string(infer_type::prefill)
    && brings_sample(known, status))
    foreign_prefills.saw_prefill(
      static_cast<std::uint32_t>(std::max(status.num_scheduled_prefill_tokens, 0)),
      status.step_duration);
}

/// Brings the gauges of instances up to what changed.
void scheduler_state::show(const view_change_msg& msg) {
  for (const auto& id : msg.removed)
    forget_gauges(id);
  for (const auto& life : msg.lost)
    for (const auto& [id, known] : decisions->view().instances())
      if (known.life == life)
        forget_gauges(id);
  if (!config.knobs.full_mode)
    return;
  std::vector<instance_gauges> changed;
  for (const auto& status : msg.statuses)
    if (auto gauges = decisions->gauges(status.instance_id))
      changed.push_back(std::move(*gauges));
  config.probes->instances.show(std::move(changed));
}

void scheduler_state::forget_gauges(const instance_id& id) {
  config.probes->instances.forget(id);
  config.probes->requests.forget(id);
}

/// Lite mode: what each instance has, by what was sent there and has not ended.
void scheduler_state::show_requests() {
  self->delayed_send(self, requests_shown_every, tick_atom::value);
  std::vector<request_gauges> all;
  const auto& told = reported.loads();
  for (const auto& [id, known] : decisions->view().instances()) {
    if (is_gone(known.state)) {
      config.probes->requests.forget(id);
      continue;
    }
    auto of_gateways = told.find(id);
    all.push_back(requests_of(
      known, decisions->account(id),
      of_gateways == told.end() ? reported_requests::load{} : of_gateways->second));
  }
  config.probes->requests.show(std::move(all));
}

void scheduler_state::on_view(const view_change_msg& msg) {
  for (const auto& status : msg.statuses)
    observe(status);
  apply(*decisions, msg, now(), config.foreign);
  show(msg);
  if (msg.store != store_news::none)
    store = msg.store;
  if (!msg.removed.empty())
    reported.remove_instances({msg.removed.begin(), msg.removed.end()});
}

/// Our own node's CMS tells us the view; a new one is asked anew.
void scheduler_state::on_peer_up(const peer_up_msg& msg) {
  if (msg.card.self.life == config.life && !msg.card.cms.empty())
    self->send(msg.card.cms.front(), subscribe_view_msg{view_listener{scheduler_actor{self}}});
}

/// CMS tells what it means for the view; here a gateway's requests have ended with it.
void scheduler_state::on_peer_down(const peer_down_msg& msg) {
  auto gone = booked.find({msg.life.node, msg.life.incarnation});
  if (gone == booked.end())
    return;
  for (const auto& id : gone->second)
    decisions->release(id);
  booked.erase(gone);
}

deciding_actor::behavior_type
make_scheduler(scheduler_state::pointer self, scheduler_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
