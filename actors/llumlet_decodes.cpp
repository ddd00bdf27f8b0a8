#include "actors/llumlet_actor.hpp"
#include "runtime/base/log.hpp"
#include "runtime/migration/move_ladder.hpp"

#include <algorithm>

/// LLUMLET's part in prefill and decode apart: a request that is prefilled here goes on elsewhere
/// by a hand-over that begins while it is prefilled. Whoever does not take it is not asked twice;
/// when nobody is left it decodes here.
namespace llumnix {

namespace {

constexpr std::chrono::seconds choice_limit{2}; ///< for GATEWAY's answer; the request stands

} // namespace

void llumlet_state::hand_over(
  decode_wanted_msg wanted, const stream_owner& to, move_path path, std::string no_kv) {
  departure next;
  next.stream = wanted.stream;
  next.to = to;
  next.policy = "decode";
  next.path = path;
  next.no_kv = std::move(no_kv);
  wanted.tried.push_back(to.instance);
  next.decode = std::move(wanted);
  start(std::move(next));
}

/// A hand-over under way has been told by ENGINE itself.
void llumlet_state::on_prefilled(const prefilled_msg& msg) {
  const auto& wanted = msg.wanted;
  bool cared_for
    = decode_asked.contains({wanted.stream, wanted.epoch})
      || std::any_of(departures.begin(), departures.end(), [&](const auto& entry) {
           const auto& x = entry.second;
           return x.stream == wanted.stream && x.decode && x.decode->epoch >= wanted.epoch;
         });
  if (!cared_for)
    ask_decode(wanted);
}

void llumlet_state::on_handed_over(departure leaving, departed_msg& msg) {
  auto wanted = std::move(*leaving.decode);
  wanted.epoch = std::max(wanted.epoch, msg.result.epoch); // it may have been taken back
  bool over = msg.result.outcome == "moved" || msg.result.outcome == "finished";
  auto path = over ? std::nullopt : next_decode_path(leaving.path, msg.why.code);
  auto no_kv = path ? why_no_kv(msg.result.reason) : std::string{};
  if (path)
    tell_no_kv(msg, leaving.to);
  else if (!over)
    log::llumlet.info(
      "not-handed-over", "{} to {}: {}", msg.result.request, leaving.to.instance,
      msg.result.reason);
  msg.result.reason = told_reason(leaving.no_kv, std::move(msg.result.reason));
  settle(leaving.order, std::move(msg.result));
  if (path) {
    wanted.tried.pop_back(); // is asked once more
    hand_over(std::move(wanted), leaving.to, *path, std::move(no_kv));
  } else if (!over) {
    ask_decode(std::move(wanted));
  }
}

void llumlet_state::ask_decode(decode_wanted_msg wanted) {
  const auto* card = peer({wanted.stream.node, wanted.stream.incarnation});
  if (!card || card->gateway.empty())
    return decode_here(wanted); // which ends it with its gateway
  decode_asked.insert({wanted.stream, wanted.epoch});
  self->request(card->gateway.front(), choice_limit, wanted)
    .then(
      [this, wanted](const decode_at_msg& answer) { on_decode_at(wanted, answer.decode); },
      [this, wanted](const caf::error&) { on_decode_at(wanted, {}); });
}

void llumlet_state::on_decode_at(decode_wanted_msg wanted, const stream_owner& to) {
  decode_asked.erase({wanted.stream, wanted.epoch});
  if (to.instance.empty() || to == own())
    decode_here(wanted);
  else
    hand_over(
      std::move(wanted), to, kv ? move_path::kv : move_path::recompute, why_none_copied());
}

void llumlet_state::decode_here(const decode_wanted_msg& wanted) {
  self->send(engine, decode_here_msg{wanted.stream, wanted.epoch});
}

} // namespace llumnix
