#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/serving/relay_desk.hpp"
#include "runtime/serving/stream_table.hpp"

#include <map>
#include <memory>

namespace llumnix {

/// What the streams of a loop ask of the world, as messages to this process's GATEWAY: one for all
/// that is said in a turn of the loop. Lives on the loop.
class gateway_stream_port final : public stream_port {
public:
  gateway_stream_port(executor& loop, stream_ref self);
  /// What was said so far was meant for another.
  void connect(gateway_actor gateway);

  void place(inference_request request, bool replay, std::vector<instance_id> exclude) override;
  void place_relayed(
    inference_request head, relayed_request load, bool replay,
    std::vector<instance_id> exclude) override;
  void abort(const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch) override;
  void withdraw(std::uint64_t stream, std::uint32_t epoch) override;
  void
  grant(const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch, std::uint32_t credit)
    override;
  void ask_holds(const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch) override;
  void closed(const stream_end& end) override;

private:
  stream_ref ref(std::uint64_t stream) const;
  void say(stream_word word);
  void flush();

  executor& loop_;
  stream_ref self_;
  gateway_actor gateway_; ///< null until the node's card names one
  std::vector<stream_word> words_;
  std::shared_ptr<gateway_stream_port*> me_; ///< what posted work checks: empty once this is gone
};

/// GATEWAY's answer to a stream that asked for an instance.
struct placement_news {
  std::uint64_t stream = 0;
  std::uint32_t epoch = 0;
  stream_owner owner;
  error failure{errc::ok, {}}; ///< if there is no owner
};

/// The streams of one I/O loop and their way out. Made by whoever owns the loop, used on the loop
/// only; but for `loop.post`.
struct hub_loop {
  hub_loop(
    executor& loop, const gateway_config& config, const stream_ref& self, const tokenizer& words)
    : loop{loop}, port{loop, self}, table{config, self, words, port} {}

  // Told to the stream, wherever it lives.
  void on_placement(const placement_news& news);
  // Told to all streams.
  void place_again();
  void sweep();
  std::vector<stream_info> list() const;

  executor& loop;
  gateway_stream_port port;
  stream_table table;
  relay_desk* relays = nullptr; ///< of engines over HTTP; null where the loop has none
};

struct stream_hub_config {
  node_life life;
  std::uint32_t hub = 0;
  std::shared_ptr<hub_loop> streams;
  milliseconds sweep_every{100};
};

/// STREAM HUB: hands what it hears to the loop, where the streams are.
struct stream_hub_state {
  stream_hub_state() = default;
  static inline const char* name = "stream_hub";
  using pointer = role_pointer<stream_hub_actor, stream_hub_state>;

  stream_hub_actor::behavior_type make_behavior(pointer actor, stream_hub_config settings);

  template <class Work>
  void on_loop(Work work);
  template <class Decide>
  void answer_claim(Decide decide);
  caf::result<streams_msg> on_inspect();
  caf::result<relay_moved_msg> on_move_relay(const move_relay_msg& msg);
  void on_relay_moved(relay_moved_msg& msg);
  void on_streams(streams_msg& msg);
  void on_peer_up(const peer_up_msg& msg);
  void on_tick();

  pointer self = nullptr;
  stream_hub_config config;
  gateway_actor gateway;
  std::map<std::uint64_t, caf::typed_response_promise<streams_msg>> questions;
  std::map<std::uint64_t, caf::typed_response_promise<relay_moved_msg>> moves;
  std::uint64_t tickets = 0;
};

stream_hub_actor::behavior_type
make_stream_hub(stream_hub_state::pointer self, stream_hub_config config);

} // namespace llumnix
