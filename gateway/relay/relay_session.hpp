#pragma once

#include "gateway/gateway_metrics.hpp"
#include "gateway/relay/engine_directory.hpp"
#include "gateway/relay/engine_pulse.hpp"
#include "gateway/relay/relay_stream.hpp"
#include "gateway/relay/token_reader.hpp"
#include "gateway/request_ids.hpp"
#include "net/body_budget.hpp"
#include "net/event_stream.hpp"
#include "net/http_server.hpp"
#include "net/upstream_pool.hpp"
#include "runtime/serving/relay_desk.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llumnix::relay {

class relay_table;

/// A request to be passed on, as its client meets it.
struct passed_request {
  relay_request wish;
  std::shared_ptr<const std::string> body;
  std::string path;
  net::header_list headers; ///< those of the client that engines may see
  request_ids::claim id;
  std::string client; ///< its address
  time_point arrived;
  std::shared_ptr<const void> held{}; ///< the body's share of what the server may hold
  placement_wishes wishes{};
};

/// One request on its way through an engine that speaks HTTP, and through another if that one is
/// lost. The client's connection and the engine's are on one loop, whose thread alone uses this;
/// only the question which engine crosses to GATEWAY and back.
///
///     placing -> (recalling) -> asking -> reading -> over
///        ^-----------'-------------'---------'    an engine was lost, or left by plan: placed anew
///
/// Recalling: an engine that is to go on is asked first for text that the one before held back.
class relay_session final : public net::exchange_watcher, public net::upstream_watcher {
public:
  relay_session(
    relay_table& table, std::uint64_t number, std::shared_ptr<net::exchange> client,
    passed_request request);
  /// Gives up what is still open.
  ~relay_session() override;
  relay_session(const relay_session&) = delete;
  relay_session& operator=(const relay_session&) = delete;

  std::uint64_t number() const { return number_; }
  /// Asks for an engine. Once.
  void start();
  void on_placed(std::uint32_t epoch, const stream_owner& owner);
  void on_unplaceable(std::uint32_t epoch, const error& why);
  /// Whoever was asked for a placement has forgotten.
  void place_again();
  /// Engines were asked which models they have, for this one.
  void on_models_asked();
  /// An engine answers nobody any more.
  void on_engine_lost(const instance_id& engine);
  /// It is to go on at another engine, though its own is well: as `relay_desk::move`.
  void move(const relay_move& wanted, std::function<void(relay_moved)> done);
  /// The gateway itself ends the request, for its own reasons.
  void give_up(const error& why);
  /// About ten times a second: what waited long enough, and who is silent for too long.
  void sweep(time_point now);
  stream_info info(time_point now) const;

  // Of the client.
  void on_gone() override;
  void on_drained() override;
  // Of the engine.
  void on_head(const net::http_reply& head) override;
  void on_body(std::string_view piece) override;
  void on_pause() override;
  void on_end(const error& failure) override;

private:
  enum class phase : std::uint8_t { placing, waiting, recalling, asking, reading, over };

  /// Engines that suit the request.
  engine_wish wanted() const {
    return {request_.wish.model, request_.wish.kind == openai::endpoint::tokens};
  }

  // relay_losses.cpp
  bool lost_its_model() const;
  void on_refusal();
  void note_failure(errc code);
  bool may_retry();
  void leave_silent_engine(time_point now);
  void lose_engine(error why);
  void note_attempt();
  void tell_prompt();
  void retry_or_give_up(const error& why);
  void recall_text(const engine_endpoint& engine);
  void on_recalled(std::optional<std::string> text);
  void give_up_recalling(time_point now);
  bool has_failed(const instance_id& engine) const;
  void wait_for_return(const error& why);
  void wait_for_models();
  void wait_to_place();
  void wait_for_engine(const error& why);

  // relay_moves.cpp
  /// A move somebody waits for.
  struct planned_move {
    relay_move wanted;
    std::function<void(relay_moved)> done;
    time_point asked_at;
    std::optional<time_point> left_at{}; ///< nothing: it waits for a place to go on from
    std::uint32_t tokens = 0;            ///< the next engine computes once more
    std::string trouble{};               ///< of the engine it came to first
  };
  std::string why_not_at(const engine_endpoint& engine) const;
  std::string why_not_to(const relay_move& wanted) const;
  void leave_by_plan();
  /// It has left its engine by plan, and the one it was to go to was not lost.
  bool on_trial() const { return move_ && move_->left_at && move_->trouble.empty(); }
  bool was_diverted(const instance_id& placed_at);
  void note_move_trouble(const std::string& why);
  void note_arrival();
  void settle_move(std::string outcome, std::string reason);
  std::vector<instance_id> excluded();
  std::vector<instance_id> failed_or_telling_less() const;

  void place();
  void ask(const stream_owner& owner);
  void send_to(const engine_endpoint& engine);
  void on_whole_body(std::string_view piece);
  void drop_reply();
  bool on_event(std::string_view data);
  std::string without_address(const std::string& text) const;
  void on_whole_reply();
  void on_broken(error why);
  void note_success(time_point now);
  void queue();
  void write_on();
  void complete();
  void fail(const error& why);
  void answer_with(net::http_reply reply, std::string outcome, const error& failure);
  void leave(std::string_view why);
  std::uint32_t prompt_tokens() const {
    return usage_ ? static_cast<std::uint32_t>(usage_->prompt_tokens) : stream_.prompt_tokens();
  }
  std::uint32_t output_tokens() const {
    return usage_ ? static_cast<std::uint32_t>(usage_->completion_tokens) : stream_.output_tokens();
  }
  void end(int status, std::string outcome, const error& failure);

  relay_table& table_;
  std::uint64_t number_;
  std::shared_ptr<net::exchange> client_;
  passed_request request_;
  relay_stream stream_;
  resumption resume_; ///< how the engine asked next goes on
  phase phase_ = phase::placing;
  std::uint32_t epoch_ = 0;
  std::uint32_t placements_ = 0;
  std::optional<stream_owner> owner_;
  time_point asked_at_{};           ///< an engine was last asked for, by what was known then
  std::vector<instance_id> failed_; ///< not asked again while there are others
  std::optional<planned_move> move_;
  std::vector<instance_id> tried_;   ///< engines that took it and did not end it, each once
  std::uint32_t attempts_ = 0;       ///< times that one of them was lost
  std::uint32_t models_asked_ = 0;   ///< times, as an engine knew its model no more
  bool model_lost_ = false;          ///< the engine asked last
  std::uint32_t cuts_ = 0;           ///< of those: with the connection, before the first token
  time_point retry_at_{};            ///< of phase `waiting`
  time_point give_up_at_{};          ///< when no engine is left to ask
  std::unique_ptr<net::upstream_call> call_;
  std::unique_ptr<token_reader> recall_;
  time_point recalling_since_{};
  std::optional<engine_pulse::expected> answer_; ///< of the engine that is asked
  std::uint32_t silent_moves_ = 0;               ///< engines left before their first token
  net::http_reply reply_; ///< the engine's head, and the body of one that is not streamed
  net::body_share held_reply_; ///< a large one counts among all that are held
  std::optional<net::http_reply> refusal_;  ///< the last engine that refused said this
  std::optional<net::event_stream> events_; ///< of a streamed reply
  std::size_t event_max_ = 0;               ///< bytes of one event
  error why_{errc::ok, {}};                 ///< the engine before was left
  std::optional<openai::usage> usage_;      ///< of a whole reply
  std::string out_;                         ///< for the client, since the last pause
  bool head_sent_ = false;
  bool held_ = false;        ///< the engine is slowed down, for the client is slow
  time_point last_progress_; ///< of the engine: it said something
  time_point last_token_{};
  time_point placed_at_{}; ///< for the last time before its first token
  std::optional<time_point> first_token_;
};

/// The first header of that name, in whatever case, or empty.
std::string_view header(const net::http_reply& reply, std::string_view name);

} // namespace llumnix::relay
