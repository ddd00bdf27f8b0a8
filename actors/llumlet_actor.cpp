#include "actors/llumlet_actor.hpp"

#include "actors/engine_actor.hpp"
#include "actors/protocol/kv_messages.hpp"
#include "runtime/base/log.hpp"

namespace llumnix {

static_assert(actor_state<llumlet_state>);

llumlet_actor::behavior_type
llumlet_state::make_behavior(pointer actor, llumlet_actor_config settings) {
  self = actor;
  config = std::move(settings);
  if (config.make_engine)
    engine = self->spawn<caf::linked>(
      make_engine,
      engine_actor_config{
        config.life, config.metadata.instance_id, config.knobs.status_min_interval},
      config.make_engine(), llumlet_actor{self});
  self->delayed_send(self, config.knobs.status_max_interval, tick_atom::value);
  return {
    [this](submit_msg& msg) { on_submit(msg); },
    [this](abort_msg& msg) { pass_on(msg); },
    [this](grant_msg& msg) { pass_on(msg); },
    [this](holds_msg& msg) -> caf::result<holds_answer_msg> {
      if (!engine || !meant(msg.owner))
        return holds_answer_msg{msg.stream, msg.epoch, false};
      return self->delegate(engine, std::move(msg));
    },
    [this](watch_kv_msg& msg) {
      if (engine)
        self->send(engine, std::move(msg));
    },
    [this](engine_news_msg& msg) { on_news(msg); },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](const peer_down_msg& msg) { on_peer_down(msg); },
    [this](const stat_msg&) { return on_stat(); },
    [this](tick_atom) { on_tick(); },
  };
}

/// A message for an earlier incarnation of the instance is not for us.
bool llumlet_state::meant(const stream_owner& owner) const {
  return owner.life == config.life && owner.instance == config.metadata.instance_id;
}

template <class Message>
void llumlet_state::pass_on(Message& msg) {
  if (engine && meant(msg.owner))
    self->send(engine, std::move(msg));
}

void llumlet_state::on_submit(submit_msg& msg) {
  if (engine)
    self->send(engine, std::move(msg));
  else
    log::llumlet.error(
      "no-engine", "{} was sent to {}, whose engine is behind HTTP: dropped", msg.request.text_id,
      config.metadata.instance_id);
}

void llumlet_state::on_news(engine_news_msg& msg) {
  recent.add(msg.status.recent_waiting_requests, self->clock().now());
  status = std::move(msg.status);
  kind = std::move(msg.engine);
  has_status = true;
  publish();
}

/// Sends the status, stamped, to every CMS. Time stamps strictly increase (spec/cms.md 10).
void llumlet_state::publish() {
  if (!has_status)
    return;
  last_publish = self->clock().now();
  status.instance_id = config.metadata.instance_id;
  status.timestamp_ms = std::max(config.wall.at(last_publish), stamped + 1);
  stamped = status.timestamp_ms;
  for (const auto& [node, cms] : listeners)
    self->send(cms, status_msg{config.life, status, kind});
  status.recent_waiting_requests.clear();
}

void llumlet_state::on_peer_up(const peer_up_msg& msg) {
  if (engine)
    self->send(engine, msg);
  const auto& node = msg.card.self.life.node;
  if (msg.card.cms.empty()) {
    listeners.erase(node);
    return;
  }
  listeners[node] = msg.card.cms.front();
  if (!has_status)
    return;
  status_msg whole{config.life, status, kind};
  whole.status.recent_waiting_requests = recent.ids(self->clock().now());
  self->send(listeners[node], std::move(whole));
}

void llumlet_state::on_peer_down(const peer_down_msg& msg) {
  if (engine)
    self->send(engine, msg);
  listeners.erase(msg.life.node);
}

/// Repeats the status of an ENGINE, which is our child: while we live it does.
void llumlet_state::on_tick() {
  self->delayed_send(self, config.knobs.status_max_interval, tick_atom::value);
  if (engine && self->clock().now() - last_publish >= config.knobs.status_max_interval)
    publish();
}

caf::result<actor_stats_msg> llumlet_state::on_stat() {
  auto mine = self->stat("llumlet " + config.metadata.instance_id, "llumlet");
  mine.state = {{"listeners", static_cast<std::int64_t>(listeners.size())}};
  if (!engine)
    return actor_stats_msg{{std::move(mine)}};
  auto promise = self->make_response_promise<actor_stats_msg>();
  self->request(engine, std::chrono::seconds{1}, stat_msg{})
    .then(
      [promise, mine](actor_stats_msg& engines) mutable {
        engines.actors.insert(engines.actors.begin(), std::move(mine));
        promise.deliver(std::move(engines));
      },
      [promise, mine](const caf::error&) mutable {
        promise.deliver(actor_stats_msg{{std::move(mine)}});
      });
  return promise;
}

llumlet_actor::behavior_type
make_llumlet(llumlet_state::pointer self, llumlet_actor_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
