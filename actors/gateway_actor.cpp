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

namespace {

constexpr std::size_t questions_max = 256; ///< of one message to SCHEDULER

std::size_t delivered_tokens(const admission& word) {
  return word.relayed ? word.relayed->delivered_tokens : word.request.output.size();
}

placement_query query_of(const admission& word, const scheduler_config& knobs) {
  auto prompt = word.relayed ? word.relayed->prompt_tokens : word.request.prompt.size();
  constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
  auto tokens = static_cast<std::uint32_t>(std::min(most, prompt + delivered_tokens(word)));
  placement_query query{word.request.text_id, tokens, word.exclude};
  query.wishes = word.request.wishes;
  if (knobs.lora_affinity)
    query.wishes.adapter = word.request.model;
  return query;
}

} // namespace

gateway_actor::behavior_type
gateway_state::make_behavior(pointer actor, gateway_actor_config settings) {
  self = actor;
  config = std::move(settings);
  auto made = dispatcher::make(config.scheduling, config.profile);
  LLUMNIX_ASSERT(made.has_value()); // the config was checked when the node started
  own_view = std::make_unique<dispatcher>(std::move(*made));
  records = std::make_unique<flight_recorder>(config.knobs.recorder_requests);
  mode = parse_serving_mode(config.knobs.serving_mode).value_or(serving_mode::neutral);
  archive = decision_archive{config.scheduling.recorded_scenes};
  if (is_cache_aware(config.scheduling) && !config.index)
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
    config.counters->replays.fetch_add(1, std::memory_order_relaxed);
    auto from_token = std::to_string(delivered_tokens(word));
    auto note = "goes on from token " + from_token;
    if (word.relayed && !word.relayed->why.empty())
      note += ", because " + word.relayed->why;
    records->note(word.request.text_id, {now_ms(), "replayed", {}, epoch, {}, std::move(note)});
    if (watched())
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

/// Of two roles both are asked for, or the one for its prefill. What a loop relays goes to one
/// engine.
placement_query gateway_state::query_of(const waiting_request& request) const {
  auto query = llumnix::query_of(request.admit, config.scheduling);
  if (!request.admit.relayed)
    query.mode = mode;
  return query;
}

/// Who holds the beginning of the prompt: looked up once, however often the request is tried.
const prefix_hits& gateway_state::hits_of(waiting_request& request, const placement_query& query) {
  const auto& prompt = request.admit.request.prompt;
  if (request.hits)
    return *request.hits;
  auto& hits = request.hits.emplace();
  if (
    prefixes && !request.admit.relayed
    && prompt.size() >= config.scheduling.cache_aware_min_tokens) {
    hits = prefixes->find(prompt);
    hits.prompt_tokens = query.prompt_tokens; // of a replay, all it has to compute
  }
  return hits;
}

/// An index is asked once, however often the request is tried; its answer comes within its own
/// time, whatever it is.
bool gateway_state::looked_up(waiting_request& request) {
  const auto& body = request.admit.request;
  if (
    !config.index || request.hits || body.prompt.empty()
    || body.prompt.size() < config.scheduling.cache_aware_min_tokens)
    return true;
  if (!std::exchange(request.looking, true))
    config.index->find(
      body.prompt, body.model,
      [me = gateway_actor{self}, stream = body.stream,
       epoch = body.epoch](result<prefix_holders> found) {
        caf::anon_send(me, prefixes_msg{stream, epoch, std::move(found)});
      });
  return false;
}

void gateway_state::on_prefixes(prefixes_msg& msg) {
  auto* request = waiting_for(msg.stream, msg.epoch);
  if (!request || !std::exchange(request->looking, false))
    return;
  auto& hits = request->hits.emplace();
  if (msg.found)
    hits = find_hits(*msg.found, query_of(*request).prompt_tokens, own_view->view());
  else
    log::gateway.debug(
      "no-prefixes", "{}: {}", request->admit.request.text_id, to_string(msg.found.error()));
  try_place(*request);
  flush();
}

/// Asks SCHEDULER, our own node's first; without one decides by our own view.
void gateway_state::try_place(waiting_request& request) {
  if (request.asked)
    return;
  if (wants_remote(request))
    return ask_remote(request);
  if (!looked_up(request))
    return;
  if (!asks_scheduler()) {
    place_by_view(request);
    return;
  }
  auto own = schedulers.find(config.life.node);
  auto& scheduler = (own != schedulers.end() ? own : schedulers.begin())->second;
  const auto& body = request.admit.request;
  auto query = query_of(request);
  const auto& hits = hits_of(request, query);
  scheduler.questions.push_back({body.stream, body.epoch, std::move(query), hits});
  request.asked = true;
}

/// Instances that nobody can reach over HTTP it does not know.
bool gateway_state::wants_remote(const waiting_request& request) const {
  return config.remote && request.admit.relayed && !request.alone && config.remote->ready();
}

void gateway_state::ask_remote(waiting_request& request) {
  if (self->clock().now() < request.ask_remote_at)
    return;
  const auto& body = request.admit.request;
  remote_question question{body.text_id, body.epoch, body.model, {}, body.prompt};
  question.prompt_tokens = query_of(request).prompt_tokens;
  request.asked = true;
  config.remote->place(
    std::move(question), [me = gateway_actor{self}, stream = body.stream,
                          epoch = body.epoch](result<std::string> address) {
      caf::anon_send(me, remote_choice_msg{stream, epoch, std::move(address)});
    });
}

/// Its choice counts here, too, for the time when it cannot be asked.
void gateway_state::on_remote_choice(remote_choice_msg& msg) {
  auto* request = waiting_for(msg.stream, msg.epoch);
  if (!request)
    return; // it was released when the stream closed
  const auto& id = request->admit.request.text_id;
  if (!msg.address && msg.address.error().code == errc::no_instance) {
    request->ask_remote_at = self->clock().now() + config.remote_busy_pause;
    on_no_choice(msg.stream, msg.epoch, msg.address.error());
    return flush();
  }
  const auto* chosen = msg.address ? instance_at(*msg.address) : nullptr;
  const auto& exclude = request->admit.exclude;
  bool useful = chosen && chosen->state == instance_state::ready
                && std::ranges::find(exclude, chosen->metadata.instance_id) == exclude.end();
  if (!useful) {
    if (msg.address) {
      log::gateway.debug(
        "choice-unused", "{}: the scheduler chose {}, which {}", id, *msg.address,
        chosen ? "takes no work" : "is not known here");
      config.remote->release(id);
    }
    request->alone = true;
    request->asked = false;
    try_place(*request);
    return flush();
  }
  auto query = query_of(*request);
  auto tokens = static_cast<std::int32_t>(
    std::min<std::uint32_t>(query.prompt_tokens, std::numeric_limits<std::int32_t>::max()));
  own_view->book(
    chosen->metadata.instance_id, {id, infer_type::neutral, tokens, tokens}, now_ms(), false);
  placed_msg placed{msg.stream, msg.epoch, {chosen->life, chosen->metadata.instance_id}, {}};
  placed.reasons.policy = "remote";
  placed.reasons.wishes = query.wishes;
  placed.reasons.note = "placed by another scheduler: gateway.scheduler";
  config.counters->placements_by_remote.fetch_add(1, std::memory_order_relaxed);
  on_choice(msg.stream, msg.epoch, placed);
  flush();
}

const instance_view* gateway_state::instance_at(const std::string& address) const {
  for (const auto& [id, known] : own_view->view().instances())
    if (http_endpoint(known.metadata) == address)
      return &known;
  return nullptr;
}

void gateway_state::ask_schedulers() {
  for (auto& [node, scheduler] : schedulers)
    while (!scheduler.questions.empty()) {
      auto all = std::exchange(scheduler.questions, {});
      if (all.size() > questions_max) {
        auto rest = all.begin() + questions_max;
        scheduler.questions.assign(
          std::make_move_iterator(rest), std::make_move_iterator(all.end()));
        all.erase(rest, all.end());
      }
      ask(scheduler, node == config.life.node, std::move(all));
    }
}

void gateway_state::ask(
  known_scheduler& scheduler, bool local, std::vector<placement_question> questions) {
  std::vector<std::pair<stream_ref, std::uint32_t>> asked;
  for (const auto& question : questions)
    asked.emplace_back(question.stream, question.epoch);
  self
    ->request(
      scheduler.actor,
      local ? caf::duration{caf::infinite} : caf::duration{config.schedule_timeout},
      place_msg{std::move(questions), std::exchange(scheduler.released, {})})
    .then(
      [this](placements_msg& answer) {
        for (auto& choice : answer.placed)
          on_choice(choice.stream, choice.epoch, choice);
        flush();
      },
      [this, asked = std::move(asked)](const caf::error& failure) {
        for (const auto& [stream, epoch] : asked)
          on_no_choice(stream, epoch, from_caf(failure));
        flush();
      });
}

void gateway_state::place_by_view(waiting_request& request) {
  const auto& body = request.admit.request;
  auto stream = body.stream;
  auto epoch = body.epoch;
  auto query = query_of(request);
  const auto& hits = hits_of(request, query);
  if (archive.keeps())
    archive.keep(own_view->snapshot(query, &hits, now_ms()));
  auto choice = own_view->place(query, &hits, now_ms(), true);
  const auto* chosen = own_view->view().find(choice.instance);
  if (choice.instance.empty() || !chosen) {
    on_no_choice(stream, epoch, {errc::no_instance, sentence(choice.reasons, {})});
    return;
  }
  if (wants_scheduler()) {
    config.counters->placements_by_view.fetch_add(1, std::memory_order_relaxed);
    choice.reasons.note = config.remote
                            ? "placed by the gateway's own view: its scheduler cannot help"
                            : "placed by the gateway's own view: no scheduler";
  } else {
    choice.reasons.note = "placed by the gateway";
  }
  placed_msg placed{stream, epoch, {chosen->life, choice.instance}, std::move(choice.reasons)};
  if (const auto* decode = own_view->view().find(choice.decode)) {
    placed.decode = {decode->life, choice.decode};
    placed.decode_reasons = std::move(choice.decode_reasons);
  }
  on_choice(stream, epoch, placed);
}

void gateway_state::on_choice(const stream_ref& stream, std::uint32_t epoch, placed_msg& choice) {
  if (choice.owner.instance.empty())
    return on_no_choice(stream, epoch, {errc::no_instance, sentence(choice.reasons, {})});
  auto* request = waiting_for(stream, epoch);
  if (!request)
    return; // withdrawn, and its account is taken back when the stream closes
  request->asked = false;
  if (!can_reach(
        choice.owner, request->admit)) { // chosen by a view that does not know yet what we know
    request->admit.exclude.push_back(choice.owner.instance);
    release(request->admit.request.text_id);
    view_changed = true; // tried again at the next tick
    return;
  }
  send_to(take_out(waiting.find(stream)), choice);
}

void gateway_state::on_no_choice(const stream_ref& stream, std::uint32_t epoch, const error& why) {
  auto* request = waiting_for(stream, epoch);
  if (!request)
    return;
  bool was_asked = std::exchange(request->asked, false);
  if (why.code != errc::no_instance && was_asked) {
    place_by_view(*request); // SCHEDULER is gone or silent
    return;
  }
  if (!request->stuck) {
    request->stuck = true;
    ++stuck;
    records->note(
      request->admit.request.text_id, {now_ms(), "waiting", {}, epoch, {}, why.context});
  }
}

void gateway_state::send_to(waiting_request request, placed_msg& choice) {
  auto& body = request.admit.request;
  const auto& owner = choice.owner;
  auto& reasons = choice.reasons;
  config.counters->placements.fetch_add(1, std::memory_order_relaxed);
  if (reasons.hit_tokens > 0) {
    config.counters->placements_with_hits.fetch_add(1, std::memory_order_relaxed);
    config.counters->hit_tokens.fetch_add(reasons.hit_tokens, std::memory_order_relaxed);
  }
  records->note(
    body.text_id, {now_ms(), "placed", owner.instance, body.epoch, std::move(reasons), {}});
  if (watched())
    tell("placed", {{"request", body.text_id}, {"instance", owner.instance}});
  tell_placed(body.stream, body.epoch, owner);
  if (request.admit.relayed) {
    relayed.placed(body.stream, owner.instance, role_of(owner.instance));
    return;
  }
  submit_msg submit;
  submit.to_decode = mode != serving_mode::neutral && choice.decode.instance != owner.instance;
  if (submit.to_decode && !choice.decode.instance.empty())
    note_decode(body.text_id, body.epoch, choice.decode.instance, std::move(choice.decode_reasons));
  submit.decode = std::move(choice.decode);
  submit.request = std::move(body);
  self->send(llumlet_of(owner), std::move(submit));
}

void gateway_state::note_decode(
  const std::string& text_id, std::uint32_t epoch, const instance_id& chosen,
  placement_reasons reasons) {
  records->note_late(text_id, {now_ms(), "decode_placed", chosen, epoch, std::move(reasons), {}});
  if (watched())
    tell("decode_placed", {{"request", text_id}, {"instance", chosen}});
}

/// Where a request decodes that is prefilled at an instance: for the first time, or because those
/// who were asked did not take it.
caf::result<decode_at_msg> gateway_state::on_decode_wanted(const decode_wanted_msg& msg) {
  if (!records->placed(msg.request))
    return decode_at_msg{}; // it has ended
  placement_question question{msg.stream, msg.epoch, {msg.request, msg.tokens, msg.tried}};
  question.query.mode = serving_mode::pd_staged;
  question.query.stage = infer_type::decode;
  question.query.wishes = msg.wishes;
  if (!asks_scheduler())
    return choose_decode_by_view(msg, question);
  auto own = schedulers.find(config.life.node);
  bool local = own != schedulers.end();
  auto& scheduler = (local ? own : schedulers.begin())->second;
  auto promise = self->make_response_promise<decode_at_msg>();
  self
    ->request(
      scheduler.actor,
      local ? caf::duration{caf::infinite} : caf::duration{config.schedule_timeout},
      place_msg{{question}, std::exchange(scheduler.released, {})})
    .then(
      [this, promise, msg](placements_msg& answer) mutable {
        placed_msg none;
        promise.deliver(take_decode(msg, answer.placed.empty() ? none : answer.placed.front()));
      },
      [this, promise, msg, question](const caf::error&) mutable {
        promise.deliver(choose_decode_by_view(msg, question));
      });
  return promise;
}

decode_at_msg gateway_state::choose_decode_by_view(
  const decode_wanted_msg& wanted, const placement_question& question) {
  auto choice = own_view->place(question.query, nullptr, now_ms(), true);
  placed_msg placed{wanted.stream, wanted.epoch, {}, std::move(choice.reasons)};
  if (const auto* chosen = own_view->view().find(choice.instance))
    placed.owner = {chosen->life, choice.instance};
  return take_decode(wanted, placed);
}

/// Whoever was asked already is no choice, though nobody else is left.
decode_at_msg gateway_state::take_decode(const decode_wanted_msg& wanted, placed_msg& choice) {
  const auto& chosen = choice.owner.instance;
  if (!records->placed(wanted.request)) { // it ended meanwhile; nobody else takes this back
    release(wanted.request);
    return {};
  }
  bool tried = std::ranges::find(wanted.tried, chosen) != wanted.tried.end();
  if (!chosen.empty() && !tried) {
    note_decode(wanted.request, wanted.epoch, chosen, std::move(choice.reasons));
    return {choice.owner};
  }
  config.counters->decodes_at_prefill.fetch_add(1, std::memory_order_relaxed);
  flight_event event;
  event.at = now_ms();
  event.kind = "decodes_at_prefill";
  event.instance = wanted.at.instance;
  event.epoch = wanted.epoch;
  event.note = chosen.empty() ? sentence(choice.reasons, {})
                              : "no decode instance is left that was not asked";
  records->note_late(wanted.request, std::move(event));
  if (watched())
    tell("decodes_at_prefill", {{"request", wanted.request}, {"instance", wanted.at.instance}});
  return {};
}

infer_type gateway_state::role_of(const instance_id& instance) const {
  const auto* known = own_view->view().find(instance);
  auto role = known ? parse_infer_type(known->metadata.instance_type) : std::nullopt;
  return role.value_or(infer_type::neutral);
}

void gateway_state::tell_placed(
  const stream_ref& stream, std::uint32_t epoch, const stream_owner& owner) {
  if (stream.hub < news.size())
    news[stream.hub].push_back({stream.stream, epoch, owner});
  else if (const auto* hub = hub_of(stream))
    self->send(*hub, placed_msg{stream, epoch, owner, {}});
}

void gateway_state::give_up(const stream_ref& stream, std::uint32_t epoch, const error& why) {
  if (stream.hub < news.size())
    news[stream.hub].push_back({stream.stream, epoch, {}, why});
  else if (const auto* hub = hub_of(stream))
    self->send(*hub, unplaceable_msg{stream, epoch, why});
}

void gateway_state::tell_loops() {
  for (std::size_t hub = 0; hub < news.size(); ++hub)
    if (!news[hub].empty())
      config.loops[hub]->loop.post([loop = config.loops[hub], all = std::exchange(news[hub], {})] {
        for (const auto& one : all)
          loop->on_placement(one);
      });
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
  if (watched())
    tell(
      "finished", {{"request", end.text_id},
                   {"outcome", end.outcome},
                   {"output_tokens", std::to_string(end.output_tokens)}});
  records->end(end.text_id, {now_ms(), "finished", {}, 0, {}, std::move(note), note_times(end)});
}

/// What was measured of a request beside what was predicted. What moved on is not compared: it was
/// computed elsewhere, in part.
flight_times gateway_state::note_times(const stream_end& end) {
  flight_times times;
  if (end.times.placed)
    times.placed_ms = stream_times::to_ms(*end.times.placed);
  times.ttft_ms = end.times.ttft_ms();
  times.tpot_ms = end.times.tpot_ms(end.output_tokens);
  if (const auto* placed = records->placed(end.text_id); placed && end.placements == 1) {
    times.predicted_ttft_ms = placed->reasons.predicted_ttft_ms;
    times.predicted_tpot_ms = placed->reasons.predicted_tpot_ms;
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
  else
    schedulers[node].is(card.self.life, card.scheduler.front());
  had_scheduler = had_scheduler || !schedulers.empty();
  subscribe();
  view_changed = true;
}

/// Questions to a SCHEDULER of the lost node time out by themselves; its streams are the hubs' to
/// replay.
void gateway_state::on_peer_down(const peer_down_msg& msg) {
  auto known = nodes.find(msg.life.node);
  if (known != nodes.end() && known->second.life.incarnation <= msg.life.incarnation)
    nodes.erase(known);
  auto scheduler = schedulers.find(msg.life.node);
  if (scheduler != schedulers.end() && scheduler->second.life.incarnation <= msg.life.incarnation)
    schedulers.erase(scheduler);
  subscribe();
  own_view->lose(msg.life);
  if (prefixes)
    prefixes->lose(msg.life);
  for (const auto& hub : hubs)
    self->send(hub, msg);
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
      moved ? "moved" : "move_failed",
      {{"request", x.request}, {"from", x.from.instance}, {"to", x.to.instance}, {"path", x.path}});
}

void gateway_state::on_watch() {
  constexpr std::chrono::seconds watched_for{5}; // CONSOLE repeats itself more often
  watched_until = self->clock().now() + watched_for;
}

/// Places what waits once something changed; what waited too long is answered.
void gateway_state::on_tick() {
  self->delayed_send(self, config.retry_every, tick_atom::value);
  flush_releases();
  ask_engines();
  auto now = self->clock().now();
  std::vector<stream_ref> streams;
  for (const auto& [stream, request] : waiting)
    if (
      now >= request.deadline
      || ((view_changed || wants_remote(request)) && !request.asked && !request.looking))
      streams.push_back(stream);
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
    auto epoch = request.admit.request.epoch;
    take_out(found);
    config.counters->unplaceable.fetch_add(1, std::memory_order_relaxed);
    give_up(
      stream, epoch,
      {errc::no_instance, "no instance could take the request within "
                            + std::to_string(config.knobs.wait_for_instance.count()) + " ms"});
  }
  flush();
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
