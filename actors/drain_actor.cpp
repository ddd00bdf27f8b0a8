#include "actors/drain_actor.hpp"

#include "actors/ask_all.hpp"
#include "actors/order_answers.hpp"
#include "actors/protocol/caf_error.hpp"
#include "config/load_config.hpp"
#include "config/notation.hpp"
#include "runtime/base/log.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace llumnix {

static_assert(actor_state<drain_state>);

namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto look_every = 50ms;
constexpr std::chrono::seconds move_limit{60}; ///< hand-overs have limits of their own, far below
constexpr auto progress_every = 1s;
constexpr auto back_within = 15s; ///< whose link is lost for longer is gone

ordered_msg unreachable(const std::string& message) {
  return refusal(503, "unreachable", message);
}

std::string requests_text(std::uint32_t count) {
  return count == 1 ? "1 request is" : std::to_string(count) + " requests are";
}

} // namespace

drain_actor::behavior_type drain_state::make_behavior(pointer actor, drain_actor_config settings) {
  self = actor;
  config = std::move(settings);
  plan = drain_plan{config.instance};
  return {
    [this](const order_msg& msg) { return on_order(msg); },
    [this](const view_change_msg& msg) { on_view_change(msg); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](tick_atom) { on_tick(); },
    [this](const stat_msg&) { return on_stat(); },
  };
}

caf::result<ordered_msg> drain_state::on_order(const order_msg& msg) {
  if (const auto* order = std::get_if<order_msg::drain>(&msg.order))
    return drain(*order);
  if (std::holds_alternative<order_msg::undrain>(msg.order))
    return undrain();
  return to_caf({errc::invalid_argument, "CONSOLE moves requests"});
}

/// Those who wait already and whoever comes now are answered by the same work.
caf::result<ordered_msg> drain_state::drain(const order_msg::drain& order) {
  wanted = true;
  if (waiters.empty()) {
    left.reset();
    total = moved = 0;
    told.clear();
    log::llumlet.info("drain", "{} is drained", config.instance);
  }
  auto promise = self->make_response_promise<ordered_msg>();
  waiters.push_back({promise, self->clock().now() + order.timeout, order.timeout});
  if (!std::exchange(ticking, true))
    self->send(self, tick_atom::value);
  return promise;
}

/// The LLUMLET hears it from us, so that no earlier word of ours comes after it.
caf::result<ordered_msg> drain_state::undrain() {
  wanted = false;
  answer_all(outcome("it was taken back meanwhile"));
  auto promise = self->make_response_promise<ordered_msg>();
  ask_all<draining_msg>(
    self, llumlets(), drain_msg{false}, 5 * answer_time,
    [this, promise](std::vector<draining_msg> answers) mutable {
      if (answers.empty()) {
        promise.deliver(unreachable(config.instance + " does not answer; try again"));
      } else {
        log::llumlet.info("undrain", "{} takes work again", config.instance);
        tell("undrained", {{"instance", config.instance}});
        promise.deliver(document(200, {{"instance", config.instance}, {"state", "ready"}}));
      }
      self->quit();
    });
  return promise;
}

// -- who is there

/// Of the CMS we follow: one followed before may still have said something.
void drain_state::on_view_change(const view_change_msg& msg) {
  if (self->current_sender() != cms)
    return;
  for (const auto& entry : msg.put)
    if (view.put(entry.metadata, entry.life, entry.engine))
      view.set_state(entry.metadata.instance_id, entry.state);
  for (const auto& status : msg.statuses)
    view.update(status);
  for (const auto& lost : msg.lost)
    view.lose(lost);
  for (const auto& id : msg.removed)
    view.remove(id);
}

void drain_state::on_peer_up(const peer_up_msg& msg) {
  const auto& card = msg.card;
  nodes[card.self.life.node] = card;
  away.erase(card.self.life.node);
  for (const auto& instance : card.instances)
    if (!seen && instance.metadata.instance_id == config.instance) {
      seen = true;
      if (!instance.shared)
        life = card.self.life;
    }
  subscribe();
  tell_newcomers();
  end_if_gone();
}

/// A LLUMLET that was started again knows nothing of the drain.
void drain_state::tell_newcomers() {
  if (!wanted)
    return;
  auto now_there = llumlets();
  for (const auto& llumlet : now_there)
    if (std::find(asked.begin(), asked.end(), llumlet) == asked.end())
      self->request(llumlet, 5 * answer_time, drain_msg{true})
        .then(
          [](const draining_msg&) {},
          [this, llumlet](const caf::error&) {
            std::erase(asked, llumlet);
            tick_after(answer_time); // it is asked again
          });
  asked = std::move(now_there);
}

/// One that did not stop may be back in the same life: its link broke, or it stood still.
void drain_state::on_peer_down(const peer_down_msg& msg) {
  auto known = nodes.find(msg.life.node);
  if (known == nodes.end() || known->second.self.life != msg.life)
    return;
  bool had_it = has_it(known->second);
  nodes.erase(known);
  subscribe();
  if (!had_it)
    return;
  if (msg.stopped)
    stopped = true;
  else if (away.insert(msg.life.node); away.size() == 1)
    lost_at = self->clock().now();
  forget_unanswered();
  end_if_gone();
}

/// A LLUMLET that went with its link never answers.
void drain_state::forget_unanswered() {
  looking = false;
  ++looks;
  auto there = llumlets();
  std::erase_if(moves, [&](const auto& entry) {
    if (std::ranges::find(there, entry.second.from) != there.end())
      return false;
    plan.on_ended(entry.second.stream, false, self->clock().now());
    return true;
  });
}

void drain_state::end_if_gone() {
  if (!seen || still_there())
    return;
  if (!away.empty() && !waiters.empty() && self->clock().now() < lost_at + back_within)
    return; // it may be back
  std::optional<std::chrono::milliseconds> waited;
  if (!away.empty())
    waited = back_within;
  answer_all(unreachable(how_gone(waited)));
  self->quit();
}

/// `waited`: for the same life to be back; none: it was not waited for.
std::string drain_state::how_gone(std::optional<std::chrono::milliseconds> waited) const {
  auto now = life ? nodes.find(life->node) : nodes.end();
  bool anew = now != nodes.end() && now->second.self.life != *life;
  bool in_order = stopped && away.empty(); // several nodes may speak for an engine behind HTTP
  return config.instance + (anew ? " was started anew" : in_order ? " stopped" : " was lost")
         + " while it was drained"
         + (waited ? ", and was not back after " + format_duration(*waited) : "")
         + "; what it had is replayed elsewhere";
}

/// Also if only its LLUMLET is being started again.
bool drain_state::has_it(const node_card& card) const {
  bool has = std::ranges::find(card.starting, config.instance) != card.starting.end();
  for (const auto& instance : card.instances)
    has = has || instance.metadata.instance_id == config.instance;
  return has && (!life || card.self.life == *life);
}

/// Whether its life goes on.
bool drain_state::still_there() const {
  return std::ranges::any_of(nodes, [this](const auto& entry) { return has_it(entry.second); });
}

/// Several nodes may speak for an engine behind HTTP. A later life is none of ours.
std::vector<llumlet_actor> drain_state::llumlets() const {
  std::vector<llumlet_actor> all;
  for (const auto& [name, card] : nodes)
    if (has_it(card))
      for (const auto& instance : card.instances)
        if (instance.metadata.instance_id == config.instance && instance.llumlet)
          all.push_back(instance.llumlet);
  return all;
}

/// Each gateway moves what its own clients have at an engine behind HTTP.
llumlet_actor drain_state::llumlet_for(const stream_ref& stream) const {
  if (auto known = nodes.find(stream.node); known != nodes.end() && shared())
    for (const auto& instance : known->second.instances)
      if (instance.metadata.instance_id == config.instance)
        return instance.llumlet;
  auto all = llumlets();
  return all.empty() ? llumlet_actor{} : all.front();
}

bool drain_state::shared() const {
  for (const auto& [name, card] : nodes)
    for (const auto& instance : card.instances)
      if (instance.metadata.instance_id == config.instance)
        return instance.shared;
  return false;
}

/// One view is enough: our own node's, if it has one.
void drain_state::subscribe() {
  cms_actor found;
  for (const auto& [name, card] : nodes)
    if (!card.cms.empty() && (!found || name == config.life.node))
      found = card.cms.front();
  if (found == cms)
    return;
  cms = found;
  view = {};
  if (cms)
    self->send(cms, subscribe_view_msg{view_listener{drain_actor{self}}, true});
}

// -- the work

/// One tick at a time is under way.
void drain_state::tick_after(std::chrono::milliseconds pause) {
  if (!std::exchange(ticking, true))
    self->delayed_send(self, pause, tick_atom::value);
}

void drain_state::on_tick() {
  ticking = false;
  answer_late();
  tell_newcomers();
  end_if_gone();
  if (waiters.empty())
    return;
  tick_after(look_every);
  if (!looking)
    look();
}

void drain_state::look() {
  looking = true;
  auto number = ++looks;
  auto there = llumlets();
  auto asked_now = there.size();
  ask_all<draining_msg>(
    self, there, drain_msg{true}, 5 * answer_time,
    [this, number, asked_now](std::vector<draining_msg> still) {
      if (number != looks)
        return;
      if (still.size() < asked_now)
        still.clear(); // what one has that did not answer is not known
      std::vector<stream_hub_actor> hubs;
      for (const auto& [name, card] : nodes)
        hubs.insert(hubs.end(), card.hubs.begin(), card.hubs.end());
      ask_all<streams_msg>(
        self, hubs, inspect_msg{"requests", {}}, answer_time,
        [this, number, still = std::move(still)](std::vector<streams_msg> answers) {
          if (number != looks)
            return;
          std::vector<stream_info> streams;
          for (auto& answer : answers)
            for (auto& stream : answer.streams)
              if (stream.instance == config.instance)
                streams.push_back(std::move(stream));
          looking = false;
          on_look(still, std::move(streams));
        });
    });
}

/// A LLUMLET knows what its engine told it last; the streams know what is under way to it, and what
/// an engine behind HTTP runs. It is empty when both say so.
void drain_state::on_look(
  const std::vector<draining_msg>& still, std::vector<stream_info> streams) {
  if (waiters.empty() || still.empty())
    return; // nobody waits any more, or somebody did not answer: time will tell
  std::uint32_t there = 0;
  bool told_by_many = shared(); // each tells all that their one engine has
  for (const auto& each : still) {
    auto here = std::max(each.requests, each.departing) + each.arriving;
    there = told_by_many ? std::max(there, here) : there + here;
  }
  there = std::max(there, static_cast<std::uint32_t>(streams.size()));
  bool first = !std::exchange(left, there);
  if (first) {
    total = there; // nothing comes any more; what has moved may still count there for a moment
    tell("draining", {{"instance", config.instance}, {"requests", std::to_string(there)}});
  }
  if (there == 0 && plan.under_way() == 0) {
    log::llumlet.info(
      "drained", "{} is empty: {} moved, {} finished", config.instance, moved, finished());
    tell(
      "drained", {{"instance", config.instance},
                  {"moved", std::to_string(moved)},
                  {"finished", std::to_string(finished())}});
    answer_all(outcome({}));
    return;
  }
  for (const auto& move : plan.next(view, streams, self->clock().now()))
    send(move);
  tell_progress();
}

void drain_state::send(const drain_move& move) {
  auto from = llumlet_for(move.stream);
  if (!from) {
    plan.on_ended(move.stream, false, self->clock().now());
    return;
  }
  migrate_msg order;
  if (!shared()) // else wherever its gateway places it: no KV goes there
    order.to = move.to;
  order.requests = {move.stream};
  order.policy = "drain";
  auto number = ++moves_ever;
  moves.emplace(number, sent_move{move.stream, from});
  self->request(from, move_limit, std::move(order))
    .then(
      [this, number](const moves_msg& answer) { on_moved(number, answer.moves); },
      [this, number](const caf::error&) { on_moved(number, {}); });
}

void drain_state::on_moved(std::uint64_t number, const std::vector<move_result>& results) {
  auto sent = moves.extract(number);
  if (!sent)
    return;
  const auto& stream = sent.mapped().stream;
  bool gone = false;
  bool stays = false;
  for (const auto& each : results) {
    moved += each.outcome == "moved";
    stays = stays || each.lasting;
    gone = gone || each.outcome == "moved" || each.outcome == "finished";
    log::llumlet.debug(
      "drain-move", "{} from {} to {}: {} {}", each.request, config.instance, each.to.instance,
      each.outcome, each.reason);
  }
  if (stays)
    plan.on_stays(stream);
  else
    plan.on_ended(stream, gone, self->clock().now());
}

// -- answers

void drain_state::answer_late() {
  auto now = self->clock().now();
  std::erase_if(waiters, [&](waiter& each) {
    if (each.deadline > now)
      return false;
    each.promise.deliver(late(each));
    return true;
  });
}

ordered_msg drain_state::late(const waiter& each) const {
  if (!away.empty() && !still_there())
    return unreachable(how_gone(each.timeout));
  if (!left)
    return unreachable(config.instance + " does not answer");
  return outcome(
    requests_text(*left) + " still there after " + format_duration(each.timeout) + "; "
    + config.instance + " takes no new work until `llumnix undrain " + config.instance
    + "`, and draining it again goes on");
}

void drain_state::answer_all(const ordered_msg& answer) {
  for (auto& each : std::exchange(waiters, {}))
    each.promise.deliver(answer);
}

ordered_msg drain_state::outcome(const std::string& reason) const {
  json content{
    {"instance", config.instance},
    {"moved", moved},
    {"finished", finished()},
    {"left", left.value_or(0)}};
  if (!reason.empty())
    content["reason"] = reason;
  return document(200, content);
}

std::uint32_t drain_state::finished() const {
  auto accounted = std::uint64_t{moved} + left.value_or(0);
  return accounted < total ? static_cast<std::uint32_t>(total - accounted) : 0;
}

void drain_state::tell(std::string kind, std::vector<std::pair<std::string, std::string>> facts) {
  if (config.console)
    self->send(
      config.console,
      event_msg{config.wall.at(self->clock().now()), std::move(kind), std::move(facts)});
}

void drain_state::tell_progress() {
  auto now = self->clock().now();
  auto news = std::to_string(moved) + "/" + std::to_string(finished()) + "/"
              + std::to_string(left.value_or(0));
  if (news == told || now < told_at + progress_every)
    return;
  told = news;
  told_at = now;
  tell(
    "drain_progress", {{"instance", config.instance},
                       {"moved", std::to_string(moved)},
                       {"finished", std::to_string(finished())},
                       {"left", std::to_string(left.value_or(0))}});
}

actor_stats_msg drain_state::on_stat() {
  auto line = self->stat("drain " + config.instance, "drain");
  line.state = {
    {"waiters", static_cast<std::int64_t>(waiters.size())},
    {"under_way", static_cast<std::int64_t>(plan.under_way())},
    {"moved", moved},
    {"left", left.value_or(0)}};
  return {{std::move(line)}};
}

drain_actor::behavior_type make_drain(drain_state::pointer self, drain_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
