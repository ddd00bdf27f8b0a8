#include "gateway/relay/asking.hpp"
#include "gateway/relay/relay_session.hpp"
#include "gateway/relay/relay_table.hpp"
#include "runtime/base/log.hpp"

#include <utility>

/// How a relay leaves an engine that is well for another one, by plan. It does what it does when an
/// engine is lost, but only where that cannot be noticed, and it stays where it is otherwise.
///
/// Before its first token a stream is asked for once more elsewhere at once: later it would be no
/// cheaper, and some could not go at all. A reply that is not streamed ends where it is: how far it
/// is cannot be seen, and asked for once more it may take twice as long.
namespace llumnix::relay {

void relay_session::move(const relay_move& wanted, std::function<void(relay_moved)> done) {
  relay_moved no{.request = request_.id.text(), .outcome = "refused", .at = wanted.from};
  no.epoch = epoch_;
  tell_prompt();
  auto stays = stream_.why_stays();
  if (!request_.wish.stream)
    stays = "its reply is not streamed, so that nobody sees how far it is; it ends where it is";
  if (phase_ == phase::over || !owner_ || owner_->instance != wanted.from) {
    no.outcome = "finished";
    no.reason = "it had left before it could be moved";
  } else if (move_) {
    no.reason = "it is on its way already";
  } else if (!stays.empty()) {
    no.lasting = true;
    no.reason = std::move(stays);
  } else {
    no.reason = why_not_to(wanted);
  }
  if (!no.reason.empty())
    return done(std::move(no));
  move_.emplace(planned_move{wanted, std::move(done), table_.now()});
  if (stream_.may_leave())
    leave_by_plan();
}

/// Why the request could not go on there now; empty if it can.
std::string relay_session::why_not_at(const engine_endpoint& engine) const {
  if (engine.draining)
    return "it is being drained";
  if (!engine.serves(request_.wish.model))
    return "it does not serve '" + request_.wish.model + "'";
  if (!engine.suits(wanted()))
    return "it has no /inference/v1/generate";
  if (engine.rest_end() > table_.now())
    return "it is left alone for a while, after failures";
  if (stream_.begun() && !engine.token_ids && !wanted().tokens)
    return "it tells no token ids";
  resumption next;
  next.where = stream_.begun() ? resumption::from::ids : resumption::from::scratch;
  return std::string{cannot_go_on(request_.wish, next, engine)};
}

std::string relay_session::why_not_to(const relay_move& wanted) const {
  const auto& engines = table_.services().engines;
  if (wanted.to.empty()) {
    auto suits = [&](const instance_id& id, const engine_endpoint& engine) {
      return id != wanted.from && why_not_at(engine).empty();
    };
    return engines.such(suits).empty() ? "no other engine could go on with it now" : "";
  }
  const auto* engine = engines.find(wanted.to);
  if (!engine)
    return wanted.to + " is no engine behind HTTP that its gateway knows";
  auto why = why_not_at(*engine);
  return why.empty() ? why : wanted.to + " cannot take it: " + why;
}

/// The engine hears of it by its socket, as of a client that leaves.
void relay_session::leave_by_plan() {
  call_.reset();
  recall_.reset();
  answer_.reset();
  held_ = false;
  static_cast<void>(std::exchange(reply_, {}));
  if (events_)
    write_on();
  if (phase_ == phase::over)
    return; // the client went away meanwhile
  auto next = stream_.resume();
  if (!next)
    return fail(std::move(next.error()).while_doing("move it"));
  resume_ = std::move(*next);
  move_->left_at = table_.now();
  give_up_at_ = table_.now() + table_.services().config.wait_for_instance;
  move_->tokens = stream_.prompt_tokens() + resume_.kept;
  why_ = {
    errc::no_instance,
    "it is moved from " + move_->wanted.from + " (" + move_->wanted.policy + ")"};
  log::gateway.debug("leaves", "{}: {}", request_.id.text(), why_.context);
  owner_.reset();
  ++epoch_;
  place();
}

/// Who has failed it and, where it goes on from token ids, who tells none: by its text it may go on
/// otherwise, so that is for when nobody else is left.
std::vector<instance_id> relay_session::failed_or_telling_less() const {
  if (resume_.where != resumption::from::ids || wanted().tokens)
    return failed_;
  auto all = failed_;
  auto less = table_.services().engines.such(
    [](const instance_id&, const engine_endpoint& engine) { return !engine.token_ids; });
  all.insert(all.end(), less.begin(), less.end());
  return table_.services().engines.any_beside(all, wanted()) ? all : failed_;
}

std::vector<instance_id> relay_session::excluded() {
  auto& engines = table_.services().engines;
  if (!on_trial())
    return engines.unsuited(wanted(), failed_or_telling_less(), asked_at_);
  const auto& plan = move_->wanted;
  auto left = engines.such([&](const instance_id& id, const engine_endpoint& engine) {
    return plan.to.empty() ? id == plan.from || !why_not_at(engine).empty() : id != plan.to;
  });
  return engines.unsuited(wanted(), left, asked_at_);
}

/// Others were excluded and are chosen all the same if the one it is to go to takes no work: not
/// all of them may suit.
bool relay_session::was_diverted(const instance_id& placed_at) {
  if (!on_trial() || move_->wanted.to.empty() || placed_at == move_->wanted.to)
    return false;
  move_->trouble = move_->wanted.to + " takes no work now";
  ++epoch_;
  place();
  return true;
}

/// Its engine was lost: the one it was to leave, or the one it came to.
void relay_session::note_move_trouble(const std::string& why) {
  if (move_ && !move_->left_at)
    settle_move("finished", "its engine was lost before it could be moved");
  else if (on_trial())
    move_->trouble = (owner_ ? owner_->instance : "the next engine") + " did not take it: " + why;
}

/// The engine that goes on has said something.
void relay_session::note_arrival() {
  if (!move_ || !move_->left_at)
    return;
  auto reason = move_->trouble;
  if (owner_->instance != move_->wanted.from)
    return settle_move("moved", std::move(reason));
  reason += reason.empty() ? "no other engine took it" : "; it goes on where it was";
  settle_move("failed", std::move(reason));
}

void relay_session::settle_move(std::string outcome, std::string reason) {
  if (!move_)
    return;
  auto move = std::move(*move_);
  move_.reset();
  relay_moved told{
    .request = request_.id.text(), .outcome = std::move(outcome), .reason = std::move(reason)};
  told.at = owner_ ? owner_->instance : move.wanted.from;
  told.epoch = epoch_;
  if (move.left_at) {
    told.tokens = move.tokens;
    told.gap = table_.now() - *move.left_at;
  }
  move.done(std::move(told));
}

} // namespace llumnix::relay
