#include "actors/ask_all.hpp"
#include "actors/console_actor.hpp"
#include "actors/drain_actor.hpp"
#include "actors/order_answers.hpp"
#include "actors/protocol/caf_error.hpp"
#include "config/near_name.hpp"
#include "runtime/migration/stream_selection.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace llumnix {

namespace {

using nlohmann::json;

/// For all the requests of one order. Each hand-over has limits of its own, but they may queue for
/// slots.
constexpr std::chrono::seconds moves_limit{120};
constexpr auto by_hand = "by hand";

json text_or_null(const std::string& text) {
  return text.empty() ? json() : json(text);
}

json move_json(const move_result& x) {
  return {
    {"request", text_or_null(x.request)},
    {"from", text_or_null(x.from.instance)},
    {"to", x.to.instance},
    {"outcome", x.outcome},
    {"reason", text_or_null(x.reason)},
    {"policy", x.policy},
    {"path", text_or_null(x.path)},
    {"rounds", x.rounds},
    {"bytes", x.bytes},
    {"downtime_ms", std::chrono::duration<double, std::milli>(x.downtime).count()},
    {"tail_tokens", x.tail_tokens},
    {"epoch", x.epoch}};
}

ordered_msg moves_document(const std::vector<move_result>& moves) {
  json listed = json::array();
  for (const auto& each : moves)
    listed.push_back(move_json(each));
  return document(200, {{"moves", std::move(listed)}});
}

/// A move that came to nothing here.
move_result no_move(const std::string& request, const instance_id& from, const instance_id& to) {
  move_result x;
  x.request = request;
  x.from.instance = from;
  x.to.instance = to;
  x.policy = by_hand;
  return x;
}

move_result refused(move_result x, std::string reason) {
  x.outcome = "refused";
  x.reason = std::move(reason);
  return x;
}

move_result failed(move_result x, const error& why) {
  x.outcome = "failed";
  x.reason = why.context.empty() ? std::string{to_string(why.code)} : why.context;
  return x;
}

/// "ID.1" is a further choice of "ID".
bool is_choice_of(std::string_view text_id, std::string_view id) {
  if (!text_id.starts_with(id))
    return false;
  auto rest = text_id.substr(id.size());
  return rest.size() > 1 && rest.front() == '.'
         && rest.find_first_not_of("0123456789", 1) == std::string_view::npos;
}

/// The request's streams: itself, and its further choices, which run in the same hub for the same
/// client. A client may well have named another request like a choice.
std::vector<stream_info> choices_of(const std::string& id, std::vector<stream_info> all) {
  auto self = std::ranges::find(all, id, &stream_info::text_id);
  auto belongs = [&, whole = self != all.end() ? *self : stream_info{}](const stream_info& x) {
    if (x.text_id == id)
      return true;
    return is_choice_of(x.text_id, id)
           && (whole.text_id.empty() || (x.client == whole.client && x.stream.node == whole.stream.node && x.stream.hub == whole.stream.hub));
  };
  std::erase_if(all, [&](const stream_info& x) { return !belongs(x); });
  std::ranges::sort(all, {}, &stream_info::stream);
  return all;
}

/// What becomes of the choices of one request; told once all of it is known.
struct choice_moves {
  caf::typed_response_promise<ordered_msg> promise;
  std::vector<move_result> results{}; ///< one for each choice
  std::size_t open = 1;               ///< those under way, and one while more are added

  void take(std::size_t at, result<std::vector<move_result>> moves) {
    auto& mine = results[at];
    if (!moves) {
      mine = failed(mine, moves.error());
    } else if (moves->empty()) {
      mine.outcome = "finished";
      mine.reason = "it ended, or left, before it could be moved";
    } else {
      auto request = std::move(mine.request);
      mine = std::move(moves->front());
      mine.request = std::move(request);
    }
    settle();
  }
  void settle() {
    if (--open == 0)
      promise.deliver(moves_document(results));
  }
};

void move_choices(
  console_state& console, const std::vector<stream_info>& choices, const instance_id& to,
  const console_state::sight& seen, const caf::typed_response_promise<ordered_msg>& promise) {
  auto round = std::make_shared<choice_moves>(choice_moves{promise});
  bool some_leave = std::ranges::any_of(choices, [&](const auto& x) { return x.instance != to; });
  for (const auto& choice : choices) {
    auto at = round->results.size();
    auto mine = no_move(choice.text_id, choice.instance, to);
    mine.stream = choice.stream;
    mine.epoch = choice.epoch;
    auto reason = choice.instance.empty()
                    ? "it has no instance yet; it gets one as soon as one can take it"
                  : choice.instance == to && some_leave
                    ? "it is at " + to + " already"
                    : console.why_not(choice.instance, to, seen);
    round->results.push_back(reason.empty() ? mine : refused(mine, reason));
    if (!reason.empty())
      continue;
    migrate_msg wanted;
    wanted.to = console.place_of(to)->owner;
    wanted.requests = {choice.stream};
    wanted.policy = by_hand;
    ++round->open;
    console.send_moves(
      *console.source_of(choice), std::move(wanted),
      [round, at](result<std::vector<move_result>> moves) { round->take(at, std::move(moves)); });
  }
  round->settle();
}

} // namespace

caf::result<ordered_msg> console_state::on_order(const order_msg& msg) {
  if (const auto* one = std::get_if<order_msg::move_request>(&msg.order))
    return move_request(*one);
  if (const auto* some = std::get_if<order_msg::move_some>(&msg.order))
    return move_some(*some);
  if (const auto* drain = std::get_if<order_msg::drain>(&msg.order))
    return order_drain(msg, drain->instance);
  return order_drain(msg, std::get<order_msg::undrain>(msg.order).instance);
}

/// What the view and the streams say now.
void console_state::look(std::function<void(sight)> then) {
  std::vector<cms_actor> views;
  std::vector<stream_hub_actor> hubs;
  for (const auto& [name, card] : nodes) {
    hubs.insert(hubs.end(), card.hubs.begin(), card.hubs.end());
    if (!card.cms.empty() && (views.empty() || name == config.life.node))
      views.assign(1, card.cms.front());
  }
  ask_all<inspected_msg>(
    self, views, inspect_msg{"cluster", {}}, answer_time,
    [this, hubs = std::move(hubs), then = std::move(then)](std::vector<inspected_msg> answers) {
      auto seen = std::make_shared<sight>();
      for (const auto& answer : answers)
        if (auto listed = json::parse(answer.json, nullptr, false); listed.is_array())
          for (const auto& each : listed)
            seen->states[each.value("id", "")] = each.value("state", "");
      ask_all<streams_msg>(
        self, hubs, inspect_msg{"requests", {}}, answer_time,
        [seen, then](std::vector<streams_msg> lists) {
          for (auto& list : lists)
            for (auto& stream : list.streams)
              seen->streams.push_back(std::move(stream));
          then(std::move(*seen));
        });
    });
}

std::optional<console_state::place> console_state::place_of(const instance_id& id) const {
  for (const auto& [name, card] : nodes)
    for (const auto& instance : card.instances)
      if (instance.metadata.instance_id == id && instance.llumlet)
        return place{
          {card.self.life, id}, instance.llumlet, instance.shared, instance.metadata.instance_type};
  return std::nullopt;
}

/// Who lets a request go: of those who speak for its engine the one next to its client.
std::optional<console_state::place> console_state::source_of(const stream_info& stream) const {
  if (auto known = nodes.find(stream.stream.node); known != nodes.end())
    for (const auto& instance : known->second.instances)
      if (instance.metadata.instance_id == stream.instance && instance.shared && instance.llumlet)
        return place{
          {known->second.self.life, stream.instance}, instance.llumlet, true,
          instance.metadata.instance_type};
  return place_of(stream.instance);
}

bool console_state::is_known(const instance_id& id, const sight& seen) const {
  return seen.states.contains(id) || place_of(id);
}

ordered_msg console_state::no_instance(const instance_id& id, const sight& seen) const {
  std::vector<std::string_view> names;
  for (const auto& [name, state] : seen.states)
    names.push_back(name);
  auto near = nearest_name(id, names);
  return refusal(
    404, "unknown_instance",
    "there is no instance " + id
      + (near.empty() ? "; `llumnix status` lists them" : "; did you mean " + std::string{near} + "?"));
}

/// Why nothing can go this way, and what could be done about it; empty if it can.
std::string
console_state::why_not(const instance_id& from, const instance_id& to, const sight& seen) const {
  auto source = place_of(from);
  auto destination = place_of(to);
  auto state = seen.states.find(to);
  auto wait = "; `llumnix status` tells when it is ready";
  if (from == to)
    return "it is at " + to + " already; name another instance";
  if (!source)
    return from + " cannot be reached; what it had is replayed elsewhere";
  if (!destination)
    return to + " cannot be reached" + wait;
  if (source->shared && !destination->shared)
    return from + " is a server behind HTTP, and " + to
           + " is not; what it runs goes on at another such server only";
  if (destination->shared && !source->shared)
    return to + " is a server behind HTTP, which takes over no request; name an engine of ours";
  if (destination->role == "prefill" && source->role != "prefill")
    return to + " is for prefills; requests decode elsewhere, so name a decode instance";
  if (state == seen.states.end() || state->second == "ready")
    return {}; // nobody tells: LLUMLET knows
  if (state->second == "draining")
    return to + " is draining; `llumnix undrain " + to + "` lets it take requests again";
  return to + " is " + state->second + wait;
}

caf::result<ordered_msg> console_state::move_request(const order_msg::move_request& order) {
  auto promise = self->make_response_promise<ordered_msg>();
  look([this, promise, order](sight seen) mutable {
    auto choices = choices_of(order.request, seen.streams);
    if (!is_known(order.to, seen))
      promise.deliver(no_instance(order.to, seen));
    else if (choices.empty())
      promise.deliver(refusal(
        404, "unknown_request",
        "no request " + order.request + " is running; `llumnix requests` lists those that are"));
    else
      move_choices(*this, choices, order.to, seen, promise);
  });
  return promise;
}

caf::result<ordered_msg> console_state::move_some(const order_msg::move_some& order) {
  auto promise = self->make_response_promise<ordered_msg>();
  look([this, promise, order](sight seen) mutable {
    for (const auto& id : {order.from, order.to})
      if (!is_known(id, seen)) {
        promise.deliver(no_instance(id, seen));
        return;
      }
    auto none = no_move({}, order.from, order.to);
    if (auto reason = why_not(order.from, order.to, seen); !reason.empty()) {
      if (order.from == order.to)
        reason = "what is at " + order.to + " is there already; name two instances";
      promise.deliver(moves_document({refused(none, reason)}));
      return;
    }
    if (place_of(order.from)->shared) {
      auto chosen = select_streams(order.from, order.selection, std::move(seen.streams));
      if (chosen)
        move_choices(*this, *chosen, order.to, seen, promise);
      else
        promise.deliver(moves_document({refused(none, chosen.error().context)}));
      return;
    }
    migrate_msg wanted;
    wanted.to = place_of(order.to)->owner;
    wanted.selection = order.selection;
    wanted.policy = by_hand;
    send_moves(
      *place_of(order.from), std::move(wanted),
      [promise, none,
       streams = std::move(seen.streams)](result<std::vector<move_result>> moves) mutable {
        if (!moves) {
          promise.deliver(moves_document({failed(none, moves.error())}));
          return;
        }
        for (auto& each : *moves)
          if (each.request.empty())
            for (const auto& stream : streams)
              if (stream.stream == each.stream)
                each.request = stream.text_id;
        promise.deliver(moves_document(*moves));
      });
  });
  return promise;
}

/// A LLUMLET that goes with its node never answers: whoever waits hears of that, too.
void console_state::send_moves(const place& from, migrate_msg order, moves_done done) {
  auto number = ++move_orders;
  moves.emplace(number, open_moves{from.owner.life, std::move(done)});
  self->request(from.llumlet, moves_limit, std::move(order))
    .then(
      [this, number](moves_msg& answer) { settle(number, std::move(answer.moves)); },
      [this, number](const caf::error& failure) { settle(number, from_caf(failure)); });
}

void console_state::settle(std::uint64_t number, result<std::vector<move_result>> outcome) {
  auto found = moves.find(number);
  if (found == moves.end())
    return;
  auto done = std::move(found->second.done);
  moves.erase(found);
  done(std::move(outcome));
}

/// One DRAIN for each instance, however many wait for it.
caf::result<ordered_msg>
console_state::order_drain(const order_msg& msg, const instance_id& instance) {
  bool undrain = std::holds_alternative<order_msg::undrain>(msg.order);
  auto running = drains.find(instance);
  if (running != drains.end() || place_of(instance)) {
    auto drain = running != drains.end() ? running->second : start_drain(instance);
    if (undrain)
      drains.erase(instance); // it ends with that
    return self->delegate(drain, msg);
  }
  auto promise = self->make_response_promise<ordered_msg>();
  look([this, promise, instance](sight seen) mutable {
    if (!is_known(instance, seen))
      promise.deliver(no_instance(instance, seen));
    else
      promise.deliver(refusal(
        503, "unreachable", instance + " cannot be reached; what it had is replayed elsewhere"));
  });
  return promise;
}

drain_actor console_state::start_drain(const instance_id& instance) {
  auto drain = self->spawn<caf::linked + caf::monitored>(
    make_drain, drain_actor_config{config.life, instance, console_actor{self}, config.wall});
  drains.emplace(instance, drain);
  for (const auto& [name, card] : nodes)
    self->send(drain, peer_up_msg{card});
  return drain;
}

} // namespace llumnix
