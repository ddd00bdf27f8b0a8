#include "actors/scheduler_actor.hpp"

#include "actors/view_feed.hpp"

namespace llumnix {

static_assert(actor_state<scheduler_state>);

scheduler_actor::behavior_type
scheduler_state::make_behavior(pointer actor, scheduler_actor_config settings) {
  self = actor;
  config = std::move(settings);
  auto made = dispatcher::make(config.knobs);
  LLUMNIX_ASSERT(made.has_value()); // the config was checked when the node started
  decisions = std::make_unique<dispatcher>(std::move(*made));
  return {
    [this](const place_msg& msg) { return on_place(msg); },
    [this](const release_msg& msg) { release(msg.request_ids); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const view_change_msg& msg) { apply(*decisions, msg, now()); },
    [this](const stat_msg&) {
      auto line = self->stat("scheduler", "scheduler");
      line.state = {
        {"instances", static_cast<std::int64_t>(decisions->view().instances().size())},
        {"placed", static_cast<std::int64_t>(placed)},
        {"no_instance", static_cast<std::int64_t>(refused)}};
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
  auto choice = decisions->place(question.query, now(), true);
  placed_msg answer{question.stream, question.epoch, {}, std::move(choice.reasons)};
  if (const auto* chosen = decisions->view().find(choice.instance)) {
    ++placed;
    answer.owner = {chosen->life, choice.instance};
    if (const auto& from = question.stream; from.node != config.life.node)
      booked[{from.node, from.incarnation}].insert(question.query.request_id);
  } else {
    ++refused;
  }
  return answer;
}

void scheduler_state::release(const std::vector<std::string>& request_ids) {
  for (const auto& id : request_ids) {
    decisions->release(id);
    for (auto& [gateway, ids] : booked)
      ids.erase(id);
  }
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

scheduler_actor::behavior_type
make_scheduler(scheduler_state::pointer self, scheduler_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
