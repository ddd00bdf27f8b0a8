#include "actors/gateway_actor.hpp"

#include "actors/flight_json.hpp"
#include "actors/protocol/caf_error.hpp"
#include "actors/protocol/migration_messages.hpp"
#include "actors/view_feed.hpp"
#include "runtime/base/log.hpp"
#include "runtime/cluster/foreign_instances.hpp"
#include "runtime/scheduling/policy_registry.hpp"

#include <algorithm>
#include <limits>

namespace llumnix {

static_assert(actor_state<gateway_state>);

std::size_t delivered_tokens(const admission& word) {
  return word.relayed ? word.relayed->delivered_tokens : word.request.output.size();
}

gateway_actor::behavior_type
gateway_state::make_behavior(pointer actor, gateway_actor_config settings) {
  self = actor;
  config = std::move(settings);
  auto made = dispatcher::make(config.scheduling, config.profile);
  LLUMNIX_ASSERT(made.has_value()); // the config was checked when the node started
  own_view = std::make_unique<dispatcher>(std::move(*made));
  records = std::make_unique<flight_recorder>(config.knobs.recorder_requests);
  mode = parse_serving_mode(config.knobs.serving_mode).value_or(serving_mode::neutral);
  if (!config.remote && !own_view->places(mode))
    log::gateway.warn(
      "never-placed",
      "policy {} places no {} requests, so that each is refused; set another scheduler.policy or "
      "gateway.serving_mode",
      config.scheduling.policy, to_string(mode));
  archive = decision_archive{config.scheduling.recorded_scenes};
  cache_aware = is_cache_aware(config.scheduling);
  if (cache_aware && !config.index)
    prefixes = std::make_unique<prefix_watch>(config.prefix_seed);
  news.resize(config.loops.size());
  self->delayed_send(self, config.retry_every, tick_atom::value);
  return {
    [this](stream_words_msg& msg) { on_words(msg); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const view_change_msg& msg) { on_view_change(msg); },
    [this](const kv_changes_msg& msg) { on_kv_changes(msg); },
    [this](const moved_msg& msg) { on_moved(msg); },
    [this](const decode_wanted_msg& msg) { return on_decode_wanted(msg); },
    [this](prefixes_msg& msg) { on_prefixes(msg); },
    [this](remote_choice_msg& msg) { on_remote_choice(msg); },
    [this](const watch_msg&) { on_watch(); },
    [this](const inspect_msg& msg) { return on_inspect(msg); },
    [this](const stat_msg&) { return on_stat(); },
    [this](tick_atom) { on_tick(); },
  };
}

void gateway_state::on_words(stream_words_msg& msg) {
  for (auto& word : msg.words)
    std::visit([this](auto& one) { hear(one); }, word);
  flush();
}

void gateway_state::flush() {
  ask_schedulers();
  tell_loops();
  count();
}

void gateway_state::hear(admission& word) {
  auto stream = word.request.stream;
  auto epoch = word.request.epoch;
  if (!word.replay && epoch == 0) {
    ++streams_open;
    if (streams_open > config.knobs.max_inflight || stuck >= config.knobs.max_queue) {
      config.counters->rejected_full.fetch_add(1, std::memory_order_relaxed);
      give_up(
        stream, epoch,
        {errc::queue_full, "too many requests wait for an instance; try again later"});
      return;
    }
  }
  if (epoch > 0) {
    relayed.left(stream);
    release(word.request.text_id); // what the account holds for the placement that failed
    bool planned = word.relayed && word.relayed->planned; // counted, and told of, as a move
    bool refused = !word.relayed && !word.exclude.empty(); // nothing was lost
    bool replayed = !planned && !refused;
    if (replayed)
      config.counters->replays.fetch_add(1, std::memory_order_relaxed);
    auto from_token = std::to_string(delivered_tokens(word));
    auto note = "goes on from token " + from_token;
    if (word.relayed && !word.relayed->why.empty())
      note += ", because " + word.relayed->why;
    if (refused)
      note = word.exclude.back() + " did not take it; it " + note;
    auto kind = planned ? "moving" : refused ? "refused" : "replayed";
    records->note(word.request.text_id, {now_ms(), kind, {}, epoch, {}, std::move(note)});
    if (watched() && replayed)
      tell(
        "replayed", {{"request", word.request.text_id},
                     {"epoch", std::to_string(epoch)},
                     {"from_token", from_token}});
  }
  auto deadline = self->clock().now() + config.knobs.wait_for_instance;
  if (auto former = waiting.find(stream); former != waiting.end())
    take_out(former);
  try_place(waiting.emplace(stream, waiting_request{std::move(word), deadline}).first->second);
}

infer_type gateway_state::role_of(const instance_id& instance) const {
  const auto* known = own_view->view().find(instance);
  auto role = known ? parse_infer_type(known->metadata.instance_type) : std::nullopt;
  return role.value_or(infer_type::neutral);
}

void gateway_state::hear(const withdrawal& word) {
  if (waiting_for(word.stream, word.epoch))
    take_out(waiting.find(word.stream));
}

void gateway_state::hear(abort_msg& word) {
  if (auto llumlet = llumlet_of(word.owner))
    self->send(llumlet, std::move(word));
}

void gateway_state::hear(grant_msg& word) {
  if (auto llumlet = llumlet_of(word.owner))
    self->send(llumlet, std::move(word));
}

/// An owner that does not answer in time is as good as one that says no only when its node is gone,
/// and then `peer_down` says so; so silence here changes nothing.
void gateway_state::hear(holds_msg& word) {
  const auto* hub = hub_of(word.stream);
  if (!hub)
    return;
  auto llumlet = llumlet_of(word.owner);
  if (!llumlet) {
    self->send(*hub, holds_answer_msg{word.owner, word.stream, word.epoch, false});
    return;
  }
  self->request(llumlet, std::chrono::seconds{2}, std::move(word))
    .then(
      [this](holds_answer_msg& answer) {
        if (const auto* to = hub_of(answer.stream))
          self->send(*to, std::move(answer));
      },
      [](const caf::error&) {});
}

void gateway_state::hear(const stream_end& end) {
  if (streams_open > 0)
    --streams_open;
  if (auto at = waiting.find(end.stream); at != waiting.end())
    take_out(at);
  release(end.text_id);
  relayed.ended(end);
  auto note = end.outcome + ", " + std::to_string(end.output_tokens) + " tokens";
  if (end.failure.code != errc::ok)
    note += ": " + to_string(end.failure);
  else if (end.output_tokens > 0 && !end.times.first_token)
    note += "; as a whole, so its first token was not seen";
  if (watched())
    tell(
      "finished", {{"request", end.text_id},
                   {"outcome", end.outcome},
                   {"output_tokens", std::to_string(end.output_tokens)}});
  records->end(end.text_id, {now_ms(), "finished", {}, 0, {}, std::move(note), note_times(end)});
}

/// What was measured of a request beside what was predicted, of its tokens by whoever chose where it
/// decodes. What moved on is not compared: it was computed elsewhere, in part.
flight_times gateway_state::note_times(const stream_end& end) {
  flight_times times;
  if (end.times.placed)
    times.placed_ms = stream_times::to_ms(*end.times.placed);
  times.ttft_ms = end.times.ttft_ms();
  times.tpot_ms = end.times.tpot_ms(end.output_tokens);
  if (const auto* placed = records->placed(end.text_id); placed && end.placements == 1) {
    times.predicted_ttft_ms = placed->reasons.predicted_ttft_ms;
    const auto* decode = records->last(end.text_id, "decode_placed");
    times.predicted_tpot_ms = (decode ? decode : placed)->reasons.predicted_tpot_ms;
  }
  if (auto off = times.ttft_error_ms())
    config.counters->ttft_error.observe(*off);
  if (auto off = times.tpot_error_ms())
    config.counters->tpot_error.observe(*off);
  return times;
}

void gateway_state::on_peer_up(const peer_up_msg& msg) {
  const auto& card = msg.card;
  const auto& node = card.self.life.node;
  if (card.self.life == config.life) {
    hubs = card.hubs;
    console = card.console.empty() ? console_actor{} : card.console.front();
    cms = card.cms.empty() ? cms_actor{} : card.cms.front();
    paced.reset();
  }
  auto& known = nodes[node];
  known.life = card.self.life;
  known.llumlets.clear();
  std::map<instance_id, llumlet_actor> with_engine;
  for (const auto& instance : card.instances) {
    known.llumlets[instance.metadata.instance_id] = instance.llumlet;
    if (!instance.shared)
      with_engine[instance.metadata.instance_id] = instance.llumlet;
  }
  if (prefixes)
    prefixes->on_node(card.self.life, with_engine);
  ask_engines();
  if (card.scheduler.empty())
    schedulers.erase(node);
  else if (schedulers[node].is(card.self.life, card.scheduler.front()))
    tell_running(card.scheduler.front());
  had_scheduler = had_scheduler || !schedulers.empty();
  subscribe();
  view_changed = true;
}

/// What its SCHEDULER was asked is decided without it; its streams are the hubs' to replay.
void gateway_state::on_peer_down(const peer_down_msg& msg) {
  auto known = nodes.find(msg.life.node);
  if (known != nodes.end() && known->second.life.incarnation <= msg.life.incarnation)
    nodes.erase(known);
  auto scheduler = schedulers.find(msg.life.node);
  bool had_one
    = scheduler != schedulers.end() && scheduler->second.life.incarnation <= msg.life.incarnation;
  if (had_one)
    schedulers.erase(scheduler);
  subscribe();
  own_view->lose(msg.life);
  if (prefixes)
    prefixes->lose(msg.life);
  for (const auto& hub : hubs)
    self->send(hub, msg);
  if (had_one)
    stop_waiting_for(msg.life.node);
}

/// While we decide ourselves we hear of each load at once; else our view is for the time without
/// SCHEDULER, and may lag.
void gateway_state::subscribe() {
  if (!cms || paced == asks_scheduler())
    return;
  paced = asks_scheduler();
  self->send(cms, subscribe_view_msg{view_listener{gateway_actor{self}}, *paced});
}

void gateway_state::on_view_change(const view_change_msg& msg) {
  apply(*own_view, msg, now_ms());
  view_changed = true;
}

void gateway_state::ask_engines() {
  if (!prefixes)
    return;
  for (auto& question : prefixes->due(self->clock().now()))
    self->send(question.to, watch_kv_msg{kv_listener{gateway_actor{self}}, question.watch});
}

void gateway_state::on_kv_changes(const kv_changes_msg& msg) {
  if (!prefixes)
    return;
  if (auto read = prefixes->hear(msg))
    self->send(read->to, kv_heard_msg{kv_listener{gateway_actor{self}}, read->watch, read->heard});
}

/// For the record. What the request weighs is in the status of the instance it went to by now.
void gateway_state::on_moved(const moved_msg& msg) {
  const auto& x = msg.result;
  bool moved = x.outcome == "moved";
  if (!moved && x.outcome == "finished")
    return;
  const auto* placed = records->placed(x.request);
  if (moved && (!placed || placed->epoch < x.epoch)) { // else it was placed anew since
    release(x.request);
    flush();
  }
  if (x.policy == "decode") {
    auto& counted = moved ? config.counters->handovers : config.counters->handovers_failed;
    counted.fetch_add(1, std::memory_order_relaxed);
  }
  flight_event event;
  event.at = now_ms();
  event.kind = moved ? "moved" : "move_failed";
  event.instance = moved ? x.to.instance : x.from.instance;
  event.epoch = x.epoch;
  event.note = describe(x);
  records->note_late(x.request, std::move(event));
  if (watched())
    tell(
      moved ? "moved" : "move_failed", {{"request", x.request},
                                        {"from", x.from.instance},
                                        {"to", x.to.instance},
                                        {"path", x.path},
                                        {"reason", x.reason}});
}

void gateway_state::on_watch() {
  constexpr std::chrono::seconds watched_for{5}; // CONSOLE repeats itself more often
  watched_until = self->clock().now() + watched_for;
}

/// Places what waits once something changed; what waited too long is answered. Whoever is asked
/// about it has some time more: most have bounds of their own.
void gateway_state::on_tick() {
  self->delayed_send(self, config.retry_every, tick_atom::value);
  flush_releases();
  ask_engines();
  auto now = self->clock().now();
  std::vector<stream_ref> streams;
  for (const auto& [stream, request] : waiting) {
    bool is_asked = request.asked || request.looking;
    if (
      now >= request.deadline + (is_asked ? config.answer_patience : milliseconds{0})
      || ((view_changed || wants_remote(request)) && !is_asked))
      streams.push_back(stream);
  }
  view_changed = false;
  for (const auto& stream : streams) {
    auto found = waiting.find(stream);
    if (found == waiting.end())
      continue;
    auto& request = found->second;
    if (now < request.deadline) {
      try_place(request);
      continue;
    }
    give_up_waiting(
      take_out(found), "no instance could take the request within "
                         + std::to_string(config.knobs.wait_for_instance.count()) + " ms");
  }
  flush();
}

/// Its client and its record are told what stood in its way last.
void gateway_state::give_up_waiting(waiting_request request, std::string why) {
  config.counters->unplaceable.fetch_add(1, std::memory_order_relaxed);
  if (request.stuck) {
    note_refusal(request);
    why += ": " + request.told;
  }
  const auto& body = request.admit.request;
  give_up(body.stream, body.epoch, {errc::no_instance, std::move(why)});
}

gateway_state::waiting_request
gateway_state::take_out(std::map<stream_ref, waiting_request>::iterator at) {
  auto request = std::move(at->second);
  waiting.erase(at);
  if (request.stuck)
    --stuck;
  return request;
}

gateway_state::waiting_request*
gateway_state::waiting_for(const stream_ref& stream, std::uint32_t epoch) {
  auto found = waiting.find(stream);
  if (found == waiting.end() || found->second.admit.request.epoch != epoch)
    return nullptr;
  return &found->second;
}

/// A relayed request goes to its engine without a llumlet, so that one that is being started again
/// holds up nothing.
bool gateway_state::can_reach(const stream_owner& owner, const admission& request) const {
  if (!request.relayed)
    return static_cast<bool>(llumlet_of(owner));
  auto node = nodes.find(owner.life.node);
  return node != nodes.end() && node->second.life == owner.life;
}

llumlet_actor gateway_state::llumlet_of(const stream_owner& owner) const {
  auto node = nodes.find(owner.life.node);
  if (node == nodes.end() || node->second.life != owner.life)
    return {};
  auto llumlet = node->second.llumlets.find(owner.instance);
  return llumlet == node->second.llumlets.end() ? llumlet_actor{} : llumlet->second;
}

const stream_hub_actor* gateway_state::hub_of(const stream_ref& stream) const {
  return stream.hub < hubs.size() ? &hubs[stream.hub] : nullptr;
}

/// SCHEDULER hears of it with the next question, or at the next tick.
void gateway_state::release(const std::string& text_id) {
  own_view->release(text_id);
  if (config.remote)
    config.remote->release(text_id);
  for (auto& [node, scheduler] : schedulers)
    scheduler.released.push_back(text_id);
}

void gateway_state::flush_releases() {
  for (auto& [node, scheduler] : schedulers)
    if (!scheduler.released.empty())
      self->send(scheduler.actor, release_msg{std::exchange(scheduler.released, {})});
}

bool gateway_state::watched() const {
  return console && self->clock().now() < watched_until;
}

/// Tells CONSOLE what happened.
void gateway_state::tell(std::string kind, std::vector<std::pair<std::string, std::string>> facts) {
  self->send(console, event_msg{now_ms(), std::move(kind), std::move(facts)});
}

void gateway_state::count() {
  config.counters->waiting.store(stuck, std::memory_order_relaxed);
  config.counters->inflight.store(streams_open, std::memory_order_relaxed);
  if (!prefixes)
    return;
  auto known = prefixes->count();
  config.counters->prefix_blocks.store(known.blocks, std::memory_order_relaxed);
  config.counters->prefix_evicted.store(known.evicted, std::memory_order_relaxed);
  config.counters->prefix_gaps.store(known.gaps, std::memory_order_relaxed);
}

/// Flight records; a decision as a scene; what relayed requests took, of a role. Nothing where it
/// is not kept.
inspected_msg gateway_state::on_inspect(const inspect_msg& msg) {
  if (msg.subject == "why")
    return {flight_json(records->find(msg.argument))};
  if (msg.subject == "profile") {
    auto role = parse_infer_type(msg.argument);
    return {role ? relayed.of(*role).samples() : std::string{}};
  }
  const auto* kept = archive.find(msg.argument);
  return {kept && config.write_scene ? config.write_scene(*kept) : std::string{}};
}

actor_stats_msg gateway_state::on_stat() {
  auto line = self->stat("gateway", "gateway");
  line.state = {
    {"streams", static_cast<std::int64_t>(streams_open)},
    {"waiting", static_cast<std::int64_t>(waiting.size())},
    {"records", static_cast<std::int64_t>(records->size())},
    {"nodes", static_cast<std::int64_t>(nodes.size())}};
  if (prefixes) {
    auto known = prefixes->count();
    line.state.insert(
      line.state.end(), {{"prefix_sources", static_cast<std::int64_t>(known.watched)},
                         {"prefix_blocks", static_cast<std::int64_t>(known.blocks)},
                         {"prefix_evicted", static_cast<std::int64_t>(known.evicted)},
                         {"prefix_gaps", static_cast<std::int64_t>(known.gaps)}});
  }
  return {{std::move(line)}};
}

gateway_actor::behavior_type
make_gateway(gateway_state::pointer self, gateway_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
