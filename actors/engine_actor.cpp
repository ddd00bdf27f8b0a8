#include "actors/engine_actor.hpp"

#include "runtime/serving/step_batch.hpp"

namespace llumnix {

static_assert(actor_state<engine_state>);

namespace {

/// For the DEPARTURE of a request that came with the instance where it decodes. It is on its way.
constexpr std::chrono::milliseconds pin_patience{1};

} // namespace

engine_actor::behavior_type engine_state::make_behavior(
  pointer actor, engine_actor_config settings, std::shared_ptr<stepped_engine> value,
  llumlet_actor parent) {
  self = actor;
  config = std::move(settings);
  engine = std::move(value);
  llumlet = std::move(parent);
  self->set_down_handler([this](const caf::down_msg& msg) { on_down(msg); });
  tell_news();
  return {
    [this](submit_msg& msg) { on_submit(msg); },
    [this](const abort_msg& msg) { on_abort(msg); },
    [this](const grant_msg& msg) { on_grant(msg); },
    [this](const holds_msg& msg) { return on_holds(msg); },
    [this](const watch_kv_msg& msg) { on_watch_kv(msg); },
    [this](departure_order_msg& msg) { on_order(std::move(msg)); },
    [this](arrival_order_msg& msg) { on_order(std::move(msg)); },
    [this](decode_here_msg& msg) { on_order(std::move(msg)); },
    [this](const list_requests_msg&) { return on_list(); },
    [this](const kv_heard_msg& msg) { on_kv_heard(msg); },
    [this](const inspect_msg& msg) { return on_inspect(msg); },
    [this](step_atom, std::uint64_t ended) { on_step(ended); },
    [this](tick_atom) {
      news_pending = false;
      tell_news();
    },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const stat_msg&) { return on_stat(); },
  };
}

void engine_state::on_submit(submit_msg& msg) {
  auto stream = msg.request.stream;
  auto epoch = msg.request.epoch;
  auto hub = hub_of(stream);
  if (!hub) { // it overtook the news of its gateway; should that never come, the gateway asks and
              // replays
    if (early.size() < early_max)
      early.push_back(std::move(msg));
    return;
  }
  prefill apart;
  if (msg.to_decode)
    apart.wanted = decode_wanted(msg.request, {config.life, config.instance});
  if (auto taken = engine->submit(std::move(msg.request)); !taken) {
    self->send(hub, refused_msg{stream, epoch, config.instance, std::move(taken).error()});
    return;
  }
  note_left(stream); // of an earlier epoch
  streams[stream] = epoch;
  auto* moving = engine->moving();
  bool decodes_elsewhere = msg.to_decode && moving && moving->decode_elsewhere(stream, epoch);
  if (decodes_elsewhere)
    prefills.emplace(stream, std::move(apart));
  tell_news();
  // D hears of it while it is prefilled if its DEPARTURE pins it before that begins.
  if (decodes_elsewhere && !msg.decode.instance.empty() && !stepping)
    self->delayed_send(self, pin_patience, step_atom::value, std::uint64_t{0});
  else
    begin_step();
}

void engine_state::on_abort(const abort_msg& msg) {
  if (!forget(msg.stream, msg.epoch))
    return;
  tell_news();
  begin_step();
}

/// Hand-overs that had to do with a stream that is not here any more, or under another epoch.
void engine_state::note_left(const stream_ref& stream) {
  end_prefill(stream);
  end_arrival(stream);
}

/// Whether there was something to forget.
bool engine_state::forget(const stream_ref& stream, std::uint32_t epoch) {
  auto found = streams.find(stream);
  if (found == streams.end() || found->second > epoch)
    return false;
  streams.erase(found);
  engine->abort(stream, epoch);
  note_left(stream);
  return true;
}

void engine_state::on_grant(const grant_msg& msg) {
  engine->grant(msg.stream, msg.epoch, msg.credit);
  begin_step();
}

/// By our own list: the engine forgets a stream with the step that ends it, before its last tokens
/// are told.
holds_answer_msg engine_state::on_holds(const holds_msg& msg) {
  auto found = streams.find(msg.stream);
  if (auto apart = prefills.find(msg.stream); apart != prefills.end() && apart->second.done)
    self->send(llumlet, prefilled_msg{apart->second.wanted}); // nobody is left that waits for ever
  return {msg.owner, msg.stream, msg.epoch, found != streams.end() && found->second == msg.epoch};
}

void engine_state::on_watch_kv(const watch_kv_msg& msg) {
  if (!msg.listener || !engine->capabilities().tells_kv)
    return;
  auto known = std::find_if(kv_watchers.begin(), kv_watchers.end(), [&](const kv_watcher& x) {
    return x.listener == msg.listener;
  });
  if (known == kv_watchers.end()) {
    self->monitor(msg.listener);
    known = kv_watchers.insert(known, kv_watcher{});
  }
  *known = {msg.listener, msg.watch};
  engine->note_kv_changes(true);
  tell_all_kv(*known);
}

/// One that was behind and has caught up is told all that the cache holds now: what it missed is
/// kept for nobody.
void engine_state::on_kv_heard(const kv_heard_msg& msg) {
  auto known = std::find_if(kv_watchers.begin(), kv_watchers.end(), [&](const kv_watcher& x) {
    return x.listener == msg.listener && x.watch == msg.watch;
  });
  if (known == kv_watchers.end() || msg.heard > known->told)
    return;
  known->heard = std::max(known->heard, msg.heard);
  if (!known->behind || known->unheard() > kv_unheard_max / 2)
    return;
  known->behind = false;
  tell_all_kv(*known);
}

/// What steps take here, for profiles.
inspected_msg engine_state::on_inspect(const inspect_msg& msg) const {
  return {msg.subject == "profile" ? observed.samples() : std::string{}};
}

void engine_state::on_down(const caf::down_msg& msg) {
  std::erase_if(
    kv_watchers, [&](const kv_watcher& x) { return x.listener.address() == msg.source; });
  if (kv_watchers.empty())
    engine->note_kv_changes(false);
}

void engine_state::tell_kv(kv_watcher& watcher, const std::vector<kv_changes>& parts) {
  for (const auto& part : parts)
    self->send(
      watcher.listener, kv_changes_msg{config.instance, watcher.watch, watcher.told++, part});
}

void engine_state::tell_all_kv(kv_watcher& watcher) {
  tell_kv(watcher, engine->cached_kv());
  watcher.synced = watcher.told;
}

/// What the step that begins has made of the prefix cache. It is told at once: who is sent here for
/// a block is served after it was computed.
void engine_state::tell_kv_of_step() {
  if (kv_watchers.empty())
    return;
  auto changes = engine->take_kv_changes();
  if (changes.empty())
    return;
  bool too_many = changes.cleared; // to be told one by one: all of it instead
  const std::vector parts{std::move(changes)};
  for (auto& watcher : kv_watchers) {
    watcher.behind
      = watcher.behind || watcher.told - std::max(watcher.heard, watcher.synced) >= kv_unheard_max;
    if (watcher.behind)
      continue;
    if (too_many)
      tell_all_kv(watcher);
    else
      tell_kv(watcher, parts);
  }
}

void engine_state::begin_step() {
  if (stepping || !engine->has_work())
    return;
  running = engine->step(self->clock().now());
  tell_kv_of_step();
  on_prefills_begun();
  if (!running.worked)
    return;
  stepping = true;
  ++steps;
  if (running.duration > nanoseconds{0})
    self->delayed_send(self, running.duration, step_atom::value, ++generation);
  else
    self->send(self, step_atom::value, ++generation);
}

void engine_state::on_step(std::uint64_t ended) {
  if (ended == 0)
    return begin_step(); // no DEPARTURE came
  if (!stepping || ended != generation)
    return;
  stepping = false;
  observe_step();
  deliver();
  on_prefills_ended();
  tell_computed();
  carry_out_orders();
  tell_news();
  begin_step();
}

void engine_state::observe_step() {
  auto ms = std::chrono::duration<double, std::milli>(running.duration).count();
  observed.saw_step(running.prefill_tokens, running.decode_tokens, running.decode_context, ms);
  if (running.prefill_tokens > 0 && ms > 0)
    profiled = {profiled.number + 1, ms, static_cast<std::int32_t>(running.prefill_tokens), false};
}

void engine_state::deliver() {
  struct destination {
    const stream_ref* any;
    step_batch batch;
  };
  std::vector<destination> destinations; // one or two: a linear search wins
  for (const auto& output : running.outputs) {
    auto found = streams.find(output.stream);
    if (found == streams.end() || found->second != output.delta.epoch)
      continue; // aborted or overtaken while the step ran
    auto same_hub = [&](const destination& x) {
      return x.any->hub == output.stream.hub && x.any->incarnation == output.stream.incarnation
             && x.any->node == output.stream.node;
    };
    auto at = std::find_if(destinations.begin(), destinations.end(), same_hub);
    if (at == destinations.end())
      at = destinations.insert(at, {&output.stream, {}});
    at->batch.add(output.delta);
    tokens += output.delta.tokens.size();
    if (output.delta.finish != finish_reason::none) {
      streams.erase(found);
      note_left(output.stream);
    }
  }
  for (auto& [any, batch] : destinations)
    if (auto hub = hub_of(*any))
      self->send(hub, tokens_msg{config.life, config.instance, std::move(batch.bytes())});
  running.outputs.clear();
}

/// Tells the llumlet the load now, or when the interval since the last time is over. The interval
/// grows with the queue, whose ids are most of a status.
void engine_state::tell_news() {
  auto now = self->clock().now();
  auto due = last_news + config.news_min_interval * (1 + queue_told / news_ids_max);
  if (now >= due || last_news == time_point{}) {
    last_news = now;
    auto status = engine->status();
    status.recent_waiting_requests = engine->take_seen_waiting();
    queue_told = status.waiting_requests.size();
    if (!std::exchange(profiled.told, true)) {
      status.profiling_id = profiled.number;
      status.step_duration = profiled.ms;
      status.num_scheduled_prefill_tokens = profiled.prefill_tokens;
    }
    self->send(llumlet, engine_news_msg{std::move(status)});
  } else if (!news_pending) {
    news_pending = true;
    self->delayed_send(self, due - now, tick_atom::value);
  }
}

void engine_state::on_peer_up(const peer_up_msg& msg) {
  if (msg.card.hubs.empty())
    hubs.erase(msg.card.self.life);
  else
    hubs[msg.card.self.life] = msg.card.hubs;
  for (auto& waiting : std::exchange(early, {}))
    on_submit(waiting);
}

/// Nobody is left to hear the tokens of a lost gateway: what it asked for ends.
void engine_state::on_peer_down(const peer_down_msg& msg) {
  std::erase_if(hubs, [&](const auto& entry) {
    return entry.first.node == msg.life.node && entry.first.incarnation <= msg.life.incarnation;
  });
  std::erase_if(
    early, [&](const auto& waiting) { return waiting.request.stream.node == msg.life.node; });
  auto first = streams.lower_bound(stream_ref{msg.life.node, 0, 0, 0});
  while (first != streams.end() && first->first.node == msg.life.node
         && first->first.incarnation <= msg.life.incarnation) {
    engine->abort(first->first, first->second);
    note_left(first->first);
    first = streams.erase(first);
  }
  tell_news();
}

stream_hub_actor engine_state::hub_of(const stream_ref& stream) const {
  auto found = hubs.find(node_life{stream.node, stream.incarnation});
  if (found == hubs.end() || stream.hub >= found->second.size())
    return {};
  return found->second[stream.hub];
}

actor_stats_msg engine_state::on_stat() {
  auto line = self->stat("engine " + config.instance, "engine");
  line.state = {
    {"streams", static_cast<std::int64_t>(streams.size())},
    {"steps", static_cast<std::int64_t>(steps)},
    {"tokens", static_cast<std::int64_t>(tokens)},
    {"prefills", static_cast<std::int64_t>(prefills.size())},
    {"kv_listeners", static_cast<std::int64_t>(kv_watchers.size())}};
  return {{std::move(line)}};
}

engine_actor::behavior_type make_engine(
  engine_state::pointer self, engine_actor_config config, std::shared_ptr<stepped_engine> engine,
  llumlet_actor llumlet) {
  return self->state.make_behavior(self, std::move(config), std::move(engine), std::move(llumlet));
}

} // namespace llumnix
