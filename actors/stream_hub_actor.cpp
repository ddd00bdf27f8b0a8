#include "actors/stream_hub_actor.hpp"

#include "actors/protocol/migration_messages.hpp"

namespace llumnix {

static_assert(actor_state<stream_hub_state>);

gateway_stream_port::gateway_stream_port(executor& loop, stream_ref self)
  : loop_{loop}, self_{std::move(self)}, me_{std::make_shared<gateway_stream_port*>(this)} {}

void gateway_stream_port::connect(gateway_actor gateway) {
  words_.clear();
  gateway_ = std::move(gateway);
}

stream_ref gateway_stream_port::ref(std::uint64_t stream) const {
  auto full = self_;
  full.stream = stream;
  return full;
}

/// What is posted runs after what the loop has at hand, so that all of it is told at once.
void gateway_stream_port::say(stream_word word) {
  if (!gateway_)
    return; // asked again once there is a GATEWAY
  words_.push_back(std::move(word));
  if (words_.size() == 1)
    loop_.post([weak = std::weak_ptr{me_}] {
      if (auto me = weak.lock())
        (*me)->flush();
    });
}

void gateway_stream_port::flush() {
  if (!words_.empty())
    caf::anon_send(gateway_, stream_words_msg{std::exchange(words_, {})});
}

void gateway_stream_port::place(
  inference_request request, bool replay, std::vector<instance_id> exclude) {
  say(admission{std::move(request), replay, std::move(exclude)});
}

void gateway_stream_port::place_relayed(
  inference_request head, relayed_request load, bool replay, std::vector<instance_id> exclude) {
  say(admission{std::move(head), replay, std::move(exclude), load});
}

void gateway_stream_port::abort(
  const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch) {
  say(abort_msg{owner, ref(stream), epoch});
}

void gateway_stream_port::withdraw(std::uint64_t stream, std::uint32_t epoch) {
  say(withdrawal{ref(stream), epoch});
}

void gateway_stream_port::grant(
  const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch, std::uint32_t credit) {
  say(grant_msg{owner, ref(stream), epoch, credit});
}

void gateway_stream_port::ask_holds(
  const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch) {
  say(holds_msg{owner, ref(stream), epoch});
}

void gateway_stream_port::closed(const stream_end& end) {
  say(end);
}

void hub_loop::on_placement(const placement_news& news) {
  auto now = loop.now();
  bool placed = news.failure.code == errc::ok;
  if (!is_relay(news.stream)) {
    if (placed)
      table.on_placed(news.stream, news.epoch, news.owner, now);
    else
      table.on_unplaceable(news.stream, news.epoch, news.failure, now);
  } else if (relays) {
    if (placed)
      relays->on_placed(news.stream, news.epoch, news.owner, now);
    else
      relays->on_unplaceable(news.stream, news.epoch, news.failure, now);
  }
}

void hub_loop::place_again() {
  table.place_again(loop.now());
  if (relays)
    relays->place_again(loop.now());
}

void hub_loop::sweep() {
  table.sweep(loop.now());
  if (relays)
    relays->sweep(loop.now());
}

std::vector<stream_info> hub_loop::list() const {
  auto all = table.list(loop.now());
  if (relays)
    for (auto& relay : relays->list(loop.now()))
      all.push_back(std::move(relay));
  return all;
}

stream_hub_actor::behavior_type
stream_hub_state::make_behavior(pointer actor, stream_hub_config settings) {
  self = actor;
  config = std::move(settings);
  self->delayed_send(self, config.sweep_every, tick_atom::value);
  return {
    [this](tokens_msg& msg) {
      on_loop([msg = std::move(msg)](hub_loop& x) {
        x.table.on_batch(msg.from, msg.instance, msg.batch, x.loop.now());
      });
    },
    [this](const refused_msg& msg) {
      on_loop([msg](hub_loop& x) {
        x.table.on_refused(msg.stream.stream, msg.epoch, msg.instance, msg.why, x.loop.now());
      });
    },
    [this](const placed_msg& msg) {
      on_loop([news = placement_news{msg.stream.stream, msg.epoch, msg.owner}](hub_loop& x) {
        x.on_placement(news);
      });
    },
    [this](const unplaceable_msg& msg) {
      on_loop([news = placement_news{msg.stream.stream, msg.epoch, {}, msg.why}](hub_loop& x) {
        x.on_placement(news);
      });
    },
    [this](const holds_answer_msg& msg) {
      on_loop([msg](hub_loop& x) {
        x.table.on_holds_answer(msg.from, msg.stream.stream, msg.epoch, msg.holds, x.loop.now());
      });
    },
    [this](const handover::claim& msg) {
      answer_claim([msg](hub_loop& x) { return x.table.on_claim(msg, x.loop.now()); });
    },
    [this](const handover::reclaim& msg) {
      answer_claim([msg](hub_loop& x) { return x.table.on_reclaim(msg, x.loop.now()); });
    },
    [this](const handover::abandon& msg) {
      answer_claim([msg](hub_loop& x) {
        x.table.on_abandon(msg, x.loop.now());
        return handover::abandoned{msg.of};
      });
    },
    [this](const moving_msg& msg) {
      on_loop([msg](hub_loop& x) { x.table.on_moving(msg.stream.stream, msg.epoch, msg.on); });
    },
    [this](end_streams_msg& msg) {
      on_loop([msg = std::move(msg)](hub_loop& x) {
        x.table.end_requests(msg.requests, msg.at, {errc::cancelled, msg.why});
      });
    },
    [this](const move_relay_msg& msg) { return on_move_relay(msg); },
    [this](const drain_relays_msg& msg) {
      on_loop([msg](hub_loop& x) {
        if (x.relays)
          x.relays->drain(msg.engine, msg.on);
      });
    },
    [this](const peer_down_msg& msg) {
      on_loop([msg](hub_loop& x) { x.table.on_node_lost(msg.life, x.loop.now()); });
    },
    [this](const peer_up_msg& msg) { on_peer_up(msg); },
    [this](streams_msg& msg) { on_streams(msg); },
    [this](relay_moved_msg& msg) { on_relay_moved(msg); },
    [this](const inspect_msg&) { return on_inspect(); },
    [this](const stat_msg&) {
      return actor_stats_msg{
        {self->stat("stream_hub " + std::to_string(config.hub), "stream_hub")}};
    },
    [this](tick_atom) { on_tick(); },
  };
}

template <class Work>
void stream_hub_state::on_loop(Work work) {
  config.streams->loop.post([streams = config.streams, work = std::move(work)] { work(*streams); });
}

/// What the loop decides goes straight back to the DEPARTURE or ARRIVAL that asked.
template <class Decide>
void stream_hub_state::answer_claim(Decide decide) {
  on_loop([decide, asker = caf::actor_cast<caf::actor>(self->current_sender())](hub_loop& x) {
    auto answer = decide(x);
    if (asker)
      caf::anon_send(asker, std::move(answer));
  });
}

/// A new GATEWAY has forgotten what the old one was asked for.
void stream_hub_state::on_peer_up(const peer_up_msg& msg) {
  on_loop([life = msg.card.self.life](hub_loop& x) { x.table.on_node_back(life); });
  if (
    msg.card.self.life != config.life || msg.card.gateway.empty()
    || gateway == msg.card.gateway.front())
    return;
  gateway = msg.card.gateway.front();
  on_loop([gateway = gateway](hub_loop& x) {
    x.port.connect(gateway);
    x.place_again();
  });
}

caf::result<streams_msg> stream_hub_state::on_inspect() {
  auto promise = self->make_response_promise<streams_msg>();
  auto ticket = ++tickets;
  questions.emplace(ticket, promise);
  on_loop([ticket, me = stream_hub_actor{self}](hub_loop& x) {
    caf::anon_send(me, streams_msg{ticket, x.list()});
  });
  return promise;
}

void stream_hub_state::on_streams(streams_msg& msg) {
  auto found = questions.find(msg.ticket);
  if (found == questions.end())
    return;
  found->second.deliver(std::move(msg));
  questions.erase(found);
}

caf::result<relay_moved_msg> stream_hub_state::on_move_relay(const move_relay_msg& msg) {
  auto promise = self->make_response_promise<relay_moved_msg>();
  auto ticket = ++tickets;
  moves.emplace(ticket, promise);
  on_loop([ticket, msg, me = stream_hub_actor{self}](hub_loop& x) {
    auto told = [ticket, me](relay_moved what) {
      caf::anon_send(me, relay_moved_msg{ticket, std::move(what)});
    };
    if (x.relays)
      x.relays->move({msg.stream.stream, msg.from, msg.to, msg.policy}, std::move(told));
    else
      told({.outcome = "refused", .reason = "nothing is relayed there", .at = msg.from});
  });
  return promise;
}

void stream_hub_state::on_relay_moved(relay_moved_msg& msg) {
  auto found = moves.find(msg.ticket);
  if (found == moves.end())
    return;
  found->second.deliver(std::move(msg));
  moves.erase(found);
}

void stream_hub_state::on_tick() {
  self->delayed_send(self, config.sweep_every, tick_atom::value);
  on_loop([](hub_loop& x) { x.sweep(); });
}

stream_hub_actor::behavior_type
make_stream_hub(stream_hub_state::pointer self, stream_hub_config config) {
  return self->state.make_behavior(self, std::move(config));
}

} // namespace llumnix
