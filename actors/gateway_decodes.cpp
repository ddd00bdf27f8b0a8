// Prefill and decode apart: where a request decodes that another instance prefills.
#include "actors/gateway_actor.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {

/// Where a request decodes that is prefilled at an instance: for the first time, or because those
/// who were asked did not take it.
caf::result<decode_at_msg> gateway_state::on_decode_wanted(const decode_wanted_msg& msg) {
  const auto* placed = records->placed(msg.request);
  if (!placed || placed->epoch > msg.epoch)
    return decode_at_msg{}; // it has ended, or was placed anew
  if (!msg.tried.empty())
    release(msg.request); // what is booked at those who did not take it
  placement_question question{msg.stream, msg.epoch, {msg.request, msg.tokens, msg.tried}};
  question.query.mode = serving_mode::pd_staged;
  question.query.stage = infer_type::decode;
  question.query.wishes = msg.wishes;
  if (!asks_scheduler())
    return choose_decode_by_view(msg, question);
  auto& [node, scheduler] = nearest_scheduler();
  auto promise = self->make_response_promise<decode_at_msg>();
  self
    ->request(
      scheduler.actor, time_to_answer(node),
      place_msg{{question}, std::exchange(scheduler.released, {})})
    .then(
      [this, promise, msg](placements_msg& answer) mutable {
        placed_msg none;
        promise.deliver(take_decode(msg, answer.placed.empty() ? none : answer.placed.front()));
      },
      [this, promise, msg, question](const caf::error&) mutable {
        promise.deliver(choose_decode_by_view(msg, question));
      });
  return promise;
}

decode_at_msg gateway_state::choose_decode_by_view(
  const decode_wanted_msg& wanted, const placement_question& question) {
  auto choice = own_view->place(question.query, nullptr, now_ms(), true);
  placed_msg placed{wanted.stream, wanted.epoch, {}, std::move(choice.reasons)};
  if (const auto* chosen = own_view->view().find(choice.instance))
    placed.owner = {chosen->life, choice.instance};
  return take_decode(wanted, placed);
}

/// Whoever was asked already is no choice, though nobody else is left.
decode_at_msg gateway_state::take_decode(const decode_wanted_msg& wanted, placed_msg& choice) {
  const auto& chosen = choice.owner.instance;
  const auto* placed = records->placed(wanted.request);
  if (!placed || placed->epoch > wanted.epoch) { // it ended, or was placed anew, meanwhile
    if (!placed)
      release(wanted.request); // nobody else takes this back
    return {};
  }
  bool tried = std::ranges::find(wanted.tried, chosen) != wanted.tried.end();
  if (!chosen.empty() && !tried) {
    if (!config.scheduling.full_mode) // as `count_here`
      own_view->book(
        chosen, to_dispatch({wanted.request, wanted.tokens, {}}, infer_type::decode, 0), now_ms(),
        false);
    note_decode(wanted.request, wanted.epoch, chosen, std::move(choice.reasons));
    return {choice.owner};
  }
  config.counters->decodes_at_prefill.fetch_add(1, std::memory_order_relaxed);
  flight_event event;
  event.at = now_ms();
  event.kind = "decodes_at_prefill";
  event.instance = wanted.at.instance;
  event.epoch = wanted.epoch;
  event.note = "no decode instance is left that was not asked";
  if (chosen.empty()) {
    event.note = sentence(choice.reasons, {});
    event.reasons = std::move(choice.reasons);
  }
  records->note_late(wanted.request, std::move(event));
  if (watched())
    tell("decodes_at_prefill", {{"request", wanted.request}, {"instance", wanted.at.instance}});
  return {};
}

void gateway_state::note_decode(
  const std::string& text_id, std::uint32_t epoch, const instance_id& chosen,
  placement_reasons reasons) {
  records->note_late(text_id, {now_ms(), "decode_placed", chosen, epoch, std::move(reasons), {}});
  if (watched())
    tell("decode_placed", {{"request", text_id}, {"instance", chosen}});
}

} // namespace llumnix
