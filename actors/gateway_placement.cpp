// Where a request goes: SCHEDULER is asked, one outside of the cluster, or else the gateway's own view.
#include "actors/gateway_actor.hpp"

#include "actors/protocol/caf_error.hpp"
#include "runtime/base/log.hpp"
#include "runtime/cluster/foreign_instances.hpp"

#include <algorithm>
#include <limits>

namespace llumnix {

namespace {

constexpr std::size_t questions_max = 256;     ///< of one message to SCHEDULER
constexpr std::size_t told_running_max = 1024; ///< the same

placement_query query_of(const admission& word, const scheduler_config& knobs) {
  auto prompt = word.relayed ? word.relayed->prompt_tokens : word.request.prompt.size();
  constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
  auto tokens = static_cast<std::uint32_t>(std::min(most, prompt + delivered_tokens(word)));
  placement_query query{word.request.text_id, tokens, word.exclude};
  query.wishes = word.request.wishes;
  if (!knobs.lora_affinity)
    query.wishes.adapter.clear();
  return query;
}

} // namespace

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
    hits = timed_match([&] { return prefixes->find(prompt); });
    hits.prompt_tokens = query.prompt_tokens; // of a replay, all it has to compute
  }
  return hits;
}

template <class Match>
prefix_hits gateway_state::timed_match(Match match) {
  auto began = self->clock().now();
  auto hits = match();
  config.prefixes->saw_match(self->clock().now() - began);
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
  if (std::exchange(request.looking, true))
    return false;
  request.looked_at = self->clock().now();
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
  config.prefixes->saw_query(self->clock().now() - request->looked_at);
  auto& hits = request->hits.emplace();
  if (msg.found)
    hits = timed_match([&] {
      return find_hits(*msg.found, query_of(*request).prompt_tokens, own_view->view());
    });
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
  auto& [node, scheduler] = nearest_scheduler();
  const auto& body = request.admit.request;
  auto query = query_of(request);
  const auto& hits = hits_of(request, query);
  scheduler.questions.push_back({body.stream, body.epoch, std::move(query), hits});
  request.asked = node;
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
  request.asked.emplace();
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
    placement_reasons reasons;
    reasons.policy = "remote";
    reasons.wishes = request->admit.request.wishes;
    reasons.note
      = "another scheduler, gateway.scheduler, has nobody: " + msg.address.error().context;
    on_no_choice(msg.stream, msg.epoch, errc::no_instance, std::move(reasons));
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
    request->asked.reset();
    try_place(*request);
    return flush();
  }
  auto query = query_of(*request);
  own_view->book(
    chosen->metadata.instance_id, to_dispatch(query, infer_type::neutral, 0), now_ms(), false);
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

/// Our own node's, else any other. There is one.
std::pair<const std::string, gateway_state::known_scheduler>& gateway_state::nearest_scheduler() {
  auto own = schedulers.find(config.life.node);
  return own != schedulers.end() ? *own : *schedulers.begin();
}

/// How long SCHEDULER of `node` has: our own node's ends with us, and is not waited for in vain.
caf::duration gateway_state::time_to_answer(const std::string& node) const {
  return node == config.life.node ? caf::duration{caf::infinite}
                                  : caf::duration{config.schedule_timeout};
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
      ask(node, scheduler, std::move(all));
    }
}

void gateway_state::ask(
  const std::string& node, known_scheduler& scheduler, std::vector<placement_question> questions) {
  std::vector<std::pair<stream_ref, std::uint32_t>> asked;
  for (const auto& question : questions)
    asked.emplace_back(question.stream, question.epoch);
  self
    ->request(
      scheduler.actor, time_to_answer(node),
      place_msg{std::move(questions), std::exchange(scheduler.released, {})})
    .then(
      [this](placements_msg& answer) {
        for (auto& choice : answer.placed)
          on_choice(choice.stream, choice.epoch, choice);
        flush();
      },
      [this, node, asked = std::move(asked)](const caf::error& failure) {
        for (const auto& [stream, epoch] : asked)
          if (const auto* request = waiting_for(stream, epoch); request && request->asked == node)
            on_no_choice(stream, epoch, from_caf(failure).code);
        flush();
      });
}

/// It is gone: what it was asked is decided without it, at once.
void gateway_state::stop_waiting_for(const std::string& node) {
  std::vector<std::pair<stream_ref, std::uint32_t>> asked;
  for (const auto& [stream, request] : waiting)
    if (request.asked == node)
      asked.emplace_back(stream, request.admit.request.epoch);
  for (const auto& [stream, epoch] : asked)
    on_no_choice(stream, epoch, errc::unreachable);
  flush();
}

void gateway_state::place_by_view(waiting_request& request) {
  const auto& body = request.admit.request;
  auto stream = body.stream;
  auto epoch = body.epoch;
  auto query = query_of(request);
  const auto& hits = hits_of(request, query);
  auto at = now_ms(); // of the decision and of what is written down of it
  if (archive.keeps())
    archive.keep(own_view->snapshot(query, &hits, at));
  auto choice = own_view->place(query, &hits, at, true);
  const auto* chosen = own_view->view().find(choice.instance);
  if (choice.instance.empty() || !chosen) {
    on_no_choice(stream, epoch, errc::no_instance, std::move(choice.reasons));
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
    return on_no_choice(stream, epoch, errc::no_instance, std::move(choice.reasons));
  auto* request = waiting_for(stream, epoch);
  if (!request)
    return; // withdrawn, and its account is taken back when the stream closes
  bool by_another = std::exchange(request->asked, std::nullopt).has_value();
  if (!can_reach(
        choice.owner, request->admit)) { // chosen by a view that does not know yet what we know
    request->admit.exclude.push_back(choice.owner.instance);
    release(request->admit.request.text_id);
    view_changed = true; // tried again at the next tick
    return;
  }
  if (by_another)
    count_here(*request, choice);
  send_to(take_out(waiting.find(stream)), choice);
}

/// What SCHEDULER chose: for the time without one, and for the next. Where statuses tell what runs,
/// they do it better; what our own view chose counts already.
void gateway_state::count_here(const waiting_request& request, const placed_msg& choice) {
  if (config.scheduling.full_mode)
    return;
  auto query = query_of(request);
  auto count = [&](const stream_owner& owner, const placement_reasons& reasons) {
    own_view->book(
      owner.instance, to_dispatch(query, reasons.stage, reasons.hit_tokens), now_ms(), false);
  };
  count(choice.owner, choice.reasons);
  if (!choice.decode.instance.empty())
    count(choice.decode, choice.decode_reasons);
}

/// A SCHEDULER that comes later hears of what runs, as we count it.
void gateway_state::tell_running(const scheduler_actor& scheduler) {
  if (config.scheduling.full_mode)
    return;
  running_msg some{config.life, {}};
  auto tell = [&] { self->send(scheduler, std::exchange(some, {config.life, {}})); };
  for (auto& [instance, sent] : own_view->counted()) {
    some.requests.push_back({instance, std::move(sent)});
    if (some.requests.size() == told_running_max)
      tell();
  }
  if (!some.requests.empty())
    tell();
}

void gateway_state::on_no_choice(
  const stream_ref& stream, std::uint32_t epoch, errc why, placement_reasons reasons) {
  auto* request = waiting_for(stream, epoch);
  if (!request)
    return;
  auto asked = std::exchange(request->asked, std::nullopt);
  if (why != errc::no_instance && asked) {
    place_by_view(*request); // SCHEDULER is gone or silent
    return;
  }
  request->refusal = std::move(reasons);
  if (!std::exchange(request->stuck, true)) {
    ++stuck;
    note_refusal(*request);
  }
  if (why == errc::no_instance && is_hopeless(asked))
    give_up_waiting(take_out(waiting.find(stream)), "no instance will ever take the request");
}

/// Whether waiting is in vain, by our own config: SCHEDULER of our own node has the same.
bool gateway_state::is_hopeless(const std::optional<std::string>& asked) const {
  return !own_view->places(mode) && asked.value_or(config.life.node) == config.life.node;
}

/// Unless the record says so already.
void gateway_state::note_refusal(waiting_request& request) {
  auto why = sentence(request.refusal, {});
  if (why == request.told)
    return;
  const auto& body = request.admit.request;
  records->note(body.text_id, {now_ms(), "waiting", {}, body.epoch, request.refusal, why});
  request.told = std::move(why);
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
  if (cache_aware && request.hits)
    config.prefixes->saw_choice(*request.hits, reasons.hit_tokens);
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

} // namespace llumnix
