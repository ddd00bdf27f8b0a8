#include "actors/llumlet_desk.hpp"

#include "actors/protocol/caf_error.hpp"
#include "runtime/base/log.hpp"
#include "runtime/base/overloaded.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace llumnix {

static_assert(actor_state<llumlet_desk_state>);

namespace {

/// Beyond its own limit: LLUMLET answers in time, or is stuck.
constexpr std::chrono::milliseconds last_answer{500};

const call_reply starting{call_code::unavailable, false, "the llumlet is being started"};

std::vector<instance_metadata> metadata_of(const node_card& card) {
  std::vector<instance_metadata> all;
  for (const auto& each : card.instances)
    if (!each.shared)
      all.push_back(each.metadata);
  return all;
}

/// What a request may be called: by its id, as OpenAI's documents have it, or as a status does.
void add_names(const std::string& said, std::set<std::string>& names) {
  names.insert(said);
  for (std::string_view prefix : {"chatcmpl-", "cmpl-"}) {
    if (!said.starts_with(prefix))
      continue;
    auto id = said.substr(prefix.size());
    if (id.ends_with("-0"))
      names.insert(id.substr(0, id.size() - 2));
    names.insert(std::move(id));
  }
}

} // namespace

llumlet_desk_actor::behavior_type llumlet_desk_state::make_behavior(pointer actor, node_life own) {
  self = actor;
  life = std::move(own);
  return {
    [this](const llumlet_call& msg) {
      std::visit(
        overloaded{
          [&](const migrate_call& call) { on_migrate(call, msg); },
          [&](const abort_call& call) { on_abort(call, msg); }},
        msg.call.what);
    },
    [this](const peer_up_msg& msg) { nodes[msg.card.self.life.node] = msg.card; },
    [this](const peer_down_msg& msg) {
      auto known = nodes.find(msg.life.node);
      if (known != nodes.end() && known->second.self.life == msg.life)
        nodes.erase(known);
    },
    [this](const stat_msg&) {
      auto mine = self->stat("llumlet_desk", "llumlet_desk");
      mine.state = {{"calls_kept", static_cast<std::int64_t>(record.size())}};
      return actor_stats_msg{{std::move(mine)}};
    },
  };
}

const node_card* llumlet_desk_state::own_card() const {
  auto found = nodes.find(life.node);
  bool ours = found != nodes.end() && found->second.self.life == life;
  return ours && !found->second.instances.empty() ? &found->second : nullptr;
}

/// A key that was heard before stands for the call it came with.
void llumlet_desk_state::on_migrate(const migrate_call& call, const llumlet_call& msg) {
  const auto& key = msg.call.operation;
  if (key.empty())
    return begin(call, msg);
  auto now = self->clock().now();
  if (const auto* known = record.find(key, now)) {
    if (known->call != call)
      msg.answer(
        {call_code::invalid_argument, false, "llumnix-op-id is that of another call: " + key});
    else if (known->reply)
      msg.answer(*known->reply);
    else
      joined[key].push_back(msg);
    return;
  }
  record.begin(key, call, now);
  begin(call, msg);
}

void llumlet_desk_state::begin(const migrate_call& call, const llumlet_call& msg) {
  const auto* card = own_card();
  if (!card)
    return tell(msg, starting, false);
  auto selection = selection_of(call);
  if (!selection)
    return tell(msg, refusal_of(selection.error()));
  auto from = source_of(call, metadata_of(*card));
  if (!from)
    return tell(msg, refusal_of(from.error()));
  std::vector<instance_metadata> known;
  for (const auto& [name, node] : nodes)
    for (auto& each : metadata_of(node))
      known.push_back(std::move(each));
  auto to = destination_of(call, known);
  if (!to)
    return tell(msg, reply_of(*from, {}, to.error()));
  begin_moves_msg wanted;
  wanted.due = msg.call.due;
  wanted.withdrawn = msg.call.withdrawn;
  wanted.order.selection = *selection;
  wanted.order.policy = policy_of(call);
  wanted.planned = !call.trigger.empty();
  llumlet_actor source;
  for (const auto& [name, node] : nodes)
    for (const auto& each : node.instances) {
      if (each.metadata.instance_id == *to)
        wanted.order.to = {node.self.life, *to};
      if (node.self.life == life && each.metadata.instance_id == *from)
        source = each.llumlet;
    }
  auto left = std::max<nanoseconds>(msg.call.due - self->clock().now(), nanoseconds{0});
  log::llumlet.debug("grpc-migrate", "{} to {}: {} {}", *from, *to, call.type, wanted.order.policy);
  self->request(source, left + last_answer, std::move(wanted))
    .then(
      [this, msg, from = *from, to = *to](const moves_begun_msg& begun) {
        bool missed
          = !begun.outcome
            && (begun.outcome.error().code == errc::timeout || begun.outcome.error().code == errc::cancelled);
        tell(msg, reply_of(from, to, begun.outcome), !missed);
      },
      [this, msg, from = *from, to = *to](const caf::error& failure) {
        auto why = from_caf(failure);
        if (why.code == errc::unreachable) // it is started again
          tell(msg, {call_code::unavailable, false, from + " has just ended"}, false);
        else
          tell(msg, reply_of(from, to, why));
      });
}

/// The owners of the streams end them; whoever has the requests hears of it from there.
void llumlet_desk_state::on_abort(const abort_call& call, const llumlet_call& msg) {
  const auto* card = own_card();
  if (!card)
    return msg.answer(starting);
  std::set<std::string> names;
  for (const auto& said : call.requests)
    add_names(said, names);
  end_streams_msg end;
  end.requests.assign(names.begin(), names.end());
  end.why = "the request was aborted at its instance";
  for (const auto& each : card->instances)
    end.at.push_back(each.metadata.instance_id);
  if (!names.empty())
    for (const auto& [name, node] : nodes)
      for (const auto& hub : node.hubs)
        self->send(hub, end);
  msg.answer({call_code::ok, true, "abort " + std::to_string(call.requests.size()) + " requests"});
}

/// `begun` false: nothing was, nor will be, so that the same key may try again.
void llumlet_desk_state::tell(const llumlet_call& msg, const call_reply& reply, bool begun) {
  msg.answer(reply);
  const auto& key = msg.call.operation;
  if (key.empty())
    return;
  if (begun)
    record.end(key, reply);
  else
    record.forget(key);
  if (auto waiting = joined.extract(key))
    for (const auto& each : waiting.mapped())
      each.answer(reply);
}

llumlet_desk_actor::behavior_type
make_llumlet_desk(llumlet_desk_state::pointer self, node_life life) {
  return self->state.make_behavior(self, std::move(life));
}

} // namespace llumnix
