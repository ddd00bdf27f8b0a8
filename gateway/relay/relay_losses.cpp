#include "gateway/openai/api_error.hpp"
#include "gateway/relay/asking.hpp"
#include "gateway/relay/relay_session.hpp"
#include "gateway/relay/relay_table.hpp"
#include "gateway/relay/retry_after.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <utility>

/// How a relay loses its engine: it refuses, fails or falls silent. Another one goes on from what
/// the client has, within bounds.
namespace llumnix::relay {

namespace {

using namespace std::chrono_literals;

constexpr auto retry_pause = 100ms;  // once every engine has failed
constexpr auto recall_patience = 1s; // with an engine that is asked what another held back
constexpr std::uint32_t asks_max = 3; // for the models of engines, by one request
constexpr std::uint32_t cuts_max = 3; // of one request: what kills engines must not meet them all
constexpr std::string_view budget_spent = ", and the retry budget is spent: gateway.engine_retries";

/// Another engine may answer it differently. `tokens`: it has /inference/v1/generate, which this
/// one had when it was asked, and has no more (403).
bool worth_a_retry(int status, bool tokens) {
  return status == 408 || status == 429 || status >= 500 || (tokens && status == 403);
}

std::string counted(std::size_t number, const char* what) {
  return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
}

} // namespace

/// It listed the model of the request, and knows it no more: an adapter that was unloaded. Others
/// may have it still.
bool relay_session::lost_its_model() const {
  const auto* engine = table_.services().engines.find(owner_->instance);
  return reply_.status == 404 && engine && !engine->models.empty() && !request_.wish.model.empty()
         && engine->serves(request_.wish.model);
}

/// `reply_` is an error, told by its status or, by engines that find it later, as an event where
/// the first token belongs: the client's fault, or worth to ask another.
void relay_session::on_refusal() {
  auto why = "the engine answered " + std::to_string(reply_.status);
  if (lost_its_model() && !on_trial()) {
    model_lost_ = true;
    answer_.reset();
    refusal_ = std::exchange(reply_, {});
    return lose_engine({errc::internal, why + " for a model that it had listed"});
  }
  if (!worth_a_retry(reply_.status, wanted().tokens) && !on_trial()) {
    if (stream_.begun())
      return fail({errc::internal, why + " when it was to go on"});
    return answer_with(
      std::move(reply_), "failed", {errc::invalid_argument, "the engine refused the request"});
  }
  auto* trouble = table_.services().engines.trouble(owner_->instance);
  auto now = table_.now();
  auto pause = asked_rest(
    header(reply_, "retry-after"), header(reply_, "date"), table_.services().wall.at(now));
  bool may_be_the_clients = reply_.status == 408;
  if (pause > 0ms && trouble)
    trouble->rest(now + pause, now);
  else if (!may_be_the_clients && worth_a_retry(reply_.status, wanted().tokens))
    note_failure(errc::unreachable);
  answer_.reset();
  refusal_ = std::exchange(reply_, {});
  if (!stream_.begun() && !may_retry())
    return answer_with(
      std::move(*refusal_), "failed", {errc::queue_full, why + std::string{budget_spent}});
  lose_engine({errc::internal, std::move(why)});
}

/// The engine is done with; if it gave nothing for this reason, it is left alone for a while.
void relay_session::note_failure(errc code) {
  bool its_fault
    = code == errc::bad_message || code == errc::disconnected || code == errc::unreachable;
  if (answer_ && !answer_->begun() && its_fault)
    if (auto* trouble = table_.services().engines.trouble(owner_->instance))
      trouble->on_failure(answer_->asked_at(), table_.now());
  answer_.reset();
}

/// Within the retry budget, or not counted in it, as nobody knew of the engine's trouble when the
/// request was sent there. Who is moved by plan did nothing that would have to be bounded.
bool relay_session::may_retry() {
  if (on_trial())
    return true;
  const auto* trouble = owner_ ? table_.services().engines.trouble(owner_->instance) : nullptr;
  return (trouble && trouble->surprised(asked_at_)) || table_.may_retry();
}

/// The engine that was asked is of no use: another one goes on from what the client has.
void relay_session::lose_engine(error why) { // a copy: `resume` forgets failures
  call_.reset();
  recall_.reset();
  note_failure(why.code);
  held_ = false;
  drop_reply(); // with its memory, which may be much
  if (events_)
    write_on(); // what came before is good
  if (phase_ == phase::over)
    return; // the client went away meanwhile
  log::gateway.info(
    "engine-lost", "{} by {}: {}", request_.id.text(), owner_ ? owner_->instance : "nobody",
    why.context);
  if (stream_.finish(out_))
    return complete();
  // Without a connection it knows nothing of the request. What is silent was waited for, and what
  // refuses has been asked about already.
  bool asked = owner_ && phase_ >= phase::asking && why.code != errc::unreachable;
  bool cut = why.code == errc::disconnected;
  bool early = asked && !stream_.begun();
  bool over_budget = early && (cut || why.code == errc::bad_message) && !may_retry();
  cuts_ += early && cut;
  if (asked)
    note_attempt();
  note_move_trouble(why.context);
  if (owner_)
    failed_.push_back(owner_->instance);
  owner_.reset();
  why_ = why;
  tell_prompt();
  auto next = stream_.resume();
  if (!next)
    return fail(std::move(next.error()).while_doing(why.context));
  resume_ = std::move(*next);
  auto enough = "gave up after " + counted(attempts_, "attempt") + " at "
                + counted(tried_.size(), "engine") + ": ";
  if (attempts_ >= table_.services().config.max_placements) {
    if (refusal_ && !stream_.begun())
      return answer_with(std::move(*refusal_), "failed", why);
    return fail({why.code, enough + why.context});
  }
  if (early && cuts_ >= cuts_max)
    return fail(
      {why.code, enough + why.context + ", " + counted(cuts_, "time")
                   + " before a first token: the request itself may be the reason"});
  if (over_budget)
    return fail({why.code, why.context + std::string{budget_spent}});
  retry_or_give_up(why);
}

/// The engine took it and did not end it. How long another one is waited for counts from here.
void relay_session::note_attempt() {
  ++attempts_;
  give_up_at_ = table_.now() + table_.services().config.wait_for_instance;
  if (std::find(tried_.begin(), tried_.end(), owner_->instance) == tried_.end())
    tried_.push_back(owner_->instance);
}

/// Who sends its prompt as token ids is not told them again: `stream_` learns them when it is to go
/// on elsewhere.
void relay_session::tell_prompt() {
  if (wanted().tokens && stream_.begun())
    stream_.set_prompt(prompt_ids(*request_.body, request_.wish));
}

void relay_session::retry_or_give_up(const error& why) {
  if (!table_.services().engines.any_beside(failed_, wanted()))
    return wait_for_return(why);
  ++epoch_;
  place();
}

/// The engine before held text back. This one is asked for it, that it may go on behind that.
void relay_session::recall_text(const engine_endpoint& engine) {
  phase_ = phase::recalling;
  recalling_since_ = table_.now();
  auto done = [this](std::optional<std::string> text) { on_recalled(std::move(text)); };
  recall_ = std::make_unique<token_reader>(
    table_.services().pool, engine.address, request_.headers, request_.wish.model,
    *stream_.hidden(), done);
}

/// Nothing: the engine goes on from where it computes some of the text again.
void relay_session::on_recalled(std::optional<std::string> text) {
  recall_.reset();
  if (auto behind = stream_.resume_behind(std::move(text)))
    resume_ = std::move(*behind);
  ask(stream_owner{*owner_}); // much may have happened to the engine meanwhile
}

void relay_session::give_up_recalling(time_point now) {
  if (now - recalling_since_ > recall_patience)
    on_recalled(std::nullopt);
}

/// Where nobody else takes work an engine may be chosen although it was excluded.
bool relay_session::has_failed(const instance_id& engine) const {
  return !on_trial() && std::find(failed_.begin(), failed_.end(), engine) != failed_.end();
}

/// All that take work have failed it: one of them may be back soon, or another.
void relay_session::wait_for_return(const error& why) {
  owner_.reset();
  ++epoch_;
  if (refusal_ && !stream_.begun()) {
    if (std::exchange(model_lost_, false) && models_asked_ < asks_max)
      return wait_for_models();
    return answer_with(std::move(*refusal_), "failed", why); // all said no: the client may hear it
  }
  if (table_.now() >= give_up_at_)
    return fail(why);
  wait_to_place();
}

/// Nobody else is known to have it. Another may have loaded what this one unloaded.
void relay_session::wait_for_models() {
  ++models_asked_;
  wait_to_place();
  retry_at_ = table_.now() + table_.services().config.wait_for_instance; // the answer comes before
  table_.ask_models_for(*this);
}

void relay_session::on_models_asked() {
  if (phase_ != phase::waiting || !refusal_ || stream_.begun())
    return;
  if (table_.services().engines.any_beside({}, wanted()))
    place();
  else
    answer_with(
      std::move(*refusal_), "failed", {errc::not_found, "no engine lists the model any more"});
}

/// Then all may be asked again.
void relay_session::wait_to_place() {
  --placements_;
  failed_.clear();
  phase_ = phase::waiting;
  retry_at_ = table_.now() + retry_pause;
}

/// There are engines that could serve it, and none of them takes work.
void relay_session::wait_for_engine(const error& why) {
  owner_.reset();
  ++epoch_;
  why_ = why;
  bool nobody_will
    = wanted().tokens && table_.services().engines.nobody_takes_tokens(request_.wish.model);
  if (nobody_will && !stream_.begun())
    answer_with(openai::error_reply(no_engine_takes_tokens(), request_.id.text()), "failed", why);
  else if (table_.now() < give_up_at_)
    wait_to_place();
  else if (refusal_ && !stream_.begun())
    answer_with(std::move(*refusal_), "failed", why);
  else
    fail(why);
}

void relay_session::on_engine_lost(const instance_id& engine) {
  if (owner_ && owner_->instance == engine && phase_ != phase::over)
    lose_engine({errc::disconnected, "engine " + engine + " answers nobody any more"});
}

/// Where it is to be seen that the first token will not come, and somebody else could give it.
void relay_session::leave_silent_engine(time_point now) {
  auto& engines = table_.services().engines;
  auto silence = table_.services().config.engine_silence;
  auto wait = answer_->wait(now);
  if (wait.waited <= silence)
    return; // as nearly always
  wait.moves = silent_moves_;
  const auto* engine = engines.find(owner_->instance);
  if (!request_.wish.stream)
    wait.reply_tokens = whole_reply_tokens(request_.wish, engine ? engine->context_tokens : 0);
  if (auto at = engines.others_answered(answer_->engine(), answer_->asked_at()))
    wait.others_silent = now - *at;
  auto verdict = judge(wait, silence);
  auto left = failed_;
  left.push_back(owner_->instance);
  if (verdict == wait_verdict::wait || !engines.any_beside(left, wanted()))
    return;
  ++silent_moves_;
  if (verdict == wait_verdict::overtaken)
    return lose_engine(
      {errc::timeout, "the engine answered requests that came later, and not this one"});
  bool others_do = verdict == wait_verdict::hung;
  if (!wait.engine_hung)
    log::gateway.warn(
      "engine-hung", "{} gives nobody a token, {}; it gets nothing new for {} ms", owner_->instance,
      others_do ? "while others do" : "for very long", silence.count());
  answer_->find_hung();
  if (auto* trouble = engines.trouble(owner_->instance))
    trouble->rest(now + silence, now);
  lose_engine(
    {errc::timeout, std::string{"the engine was silent before the first token, "}
                      + (others_do ? "while others answered" : "for very long")});
}

} // namespace llumnix::relay
