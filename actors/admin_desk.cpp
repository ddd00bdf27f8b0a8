#include "actors/admin_desk.hpp"

#include "actors/protocol/caf_error.hpp"

namespace llumnix {

static_assert(actor_state<admin_desk_state>);

admin_desk_actor::behavior_type admin_desk_state::make_behavior(pointer actor, node_life own) {
  self = actor;
  life = std::move(own);
  return {
    [this](const admin_question& msg) { on_question(msg); },
    [this](const admin_order& msg) { on_order(msg); },
    [this](const peer_up_msg& msg) {
      if (msg.card.self.life == life && !msg.card.console.empty())
        console = msg.card.console.front();
    },
    [](const peer_down_msg&) {},
    [this](const stat_msg&) { return actor_stats_msg{{self->stat("admin_desk", "admin_desk")}}; },
  };
}

void admin_desk_state::on_question(const admin_question& msg) {
  if (!console) {
    msg.answer(error{errc::unreachable, "the console is being started"});
    return;
  }
  self->request(console, std::chrono::seconds{5}, msg.question)
    .then(
      [answer = msg.answer](inspected_msg& found) { answer(std::move(found.json)); },
      [answer = msg.answer](const caf::error& failure) { answer(from_caf(failure)); });
}

void admin_desk_state::on_order(const admin_order& msg) {
  if (!console) {
    msg.answer(error{errc::unreachable, "the console is being started"});
    return;
  }
  self->request(console, msg.patience, msg.order)
    .then(
      [answer = msg.answer](ordered_msg& done) { answer(std::move(done)); },
      [answer = msg.answer](const caf::error& failure) { answer(from_caf(failure)); });
}

admin_desk_actor::behavior_type make_admin_desk(admin_desk_state::pointer self, node_life life) {
  return self->state.make_behavior(self, std::move(life));
}

} // namespace llumnix
