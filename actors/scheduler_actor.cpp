#include "actors/scheduler_actor.hpp"

#include "actors/protocol/caf_error.hpp"
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
    [](const peer_down_msg&) {}, // CMS tells what it means for the view
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

caf::result<placed_msg> scheduler_state::on_place(const place_msg& msg) {
  release(msg.released);
  auto choice = decisions->place(msg.query, now(), true);
  const auto* chosen = decisions->view().find(choice.instance);
  if (choice.instance.empty() || !chosen) {
    ++refused;
    return to_caf({errc::no_instance, choice.reasons.note});
  }
  ++placed;
  return placed_msg{
    msg.stream, msg.epoch, {chosen->life, choice.instance}, std::move(choice.reasons)};
}

void scheduler_state::release(const std::vector<std::string>& request_ids) {
  for (const auto& id : request_ids)
    decisions->release(id);
}

/// Our own node's CMS tells us the view; a new one is asked anew.
void scheduler_state::on_peer_up(const peer_up_msg& msg) {
  if (msg.card.self.life == config.life && !msg.card.cms.empty())
    self->send(msg.card.cms.front(), subscribe_view_msg{view_listener{scheduler_actor{self}}});
}

scheduler_actor::behavior_type
make_scheduler(scheduler_state::pointer self, scheduler_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
