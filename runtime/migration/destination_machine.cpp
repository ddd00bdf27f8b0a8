#include "runtime/migration/destination_machine.hpp"

#include <algorithm>
#include <limits>

namespace llumnix {

namespace {

std::uint64_t tokens_of(const inference_request& request) {
  return std::uint64_t{request.prompt.size()} + request.output.size();
}

/// All ids of a request, in order.
std::vector<token_id> ids_of(const inference_request& request) {
  auto ids = request.prompt;
  ids.insert(ids.end(), request.output.begin(), request.output.end());
  return ids;
}

} // namespace

std::string_view to_string(destination_outcome outcome) {
  switch (outcome) {
    case destination_outcome::moved: return "moved";
    case destination_outcome::refused: return "refused";
    case destination_outcome::cancelled: return "cancelled";
    case destination_outcome::unclaimed: return "unclaimed";
    case destination_outcome::abandoned: return "abandoned";
  }
  return "unknown";
}

result<void> compatible(const handover::offer& offer, const kv_geometry& mine) {
  const auto& request = offer.request;
  if (request.stream != offer.of.stream || request.epoch != offer.of.epoch)
    return {errc::invalid_argument, "the offer is for another request than it holds"};
  if (request.prompt.empty())
    return {errc::invalid_argument, "no prompt"};
  if (offer.geometry.model != mine.model)
    return {errc::unsupported, "model " + offer.geometry.model + ", here " + mine.model};
  if (tokens_of(request) >= mine.max_model_len)
    return {
      errc::too_long, std::to_string(tokens_of(request)) + " tokens, the model here takes "
                        + std::to_string(mine.max_model_len)};
  if (offer.path == move_path::recompute)
    return {};
  if (offer.kv_address.empty())
    return {errc::invalid_argument, "no address to pull KV from"};
  if (offer.geometry.layout != mine.layout)
    return {errc::unsupported, "KV layout " + offer.geometry.layout + ", here " + mine.layout};
  if (
    offer.geometry.block_tokens != mine.block_tokens
    || offer.geometry.bytes_per_token != mine.bytes_per_token)
    return {
      errc::unsupported, "KV blocks of " + std::to_string(offer.geometry.block_tokens)
                           + " positions of " + std::to_string(offer.geometry.bytes_per_token)
                           + " bytes, here " + std::to_string(mine.block_tokens) + " of "
                           + std::to_string(mine.bytes_per_token)};
  return {};
}

destination_machine::destination_machine(const destination_settings& settings, stream_owner self)
  : settings_{settings}, self_{std::move(self)} {}

std::vector<destination_effect>
destination_machine::on(const destination_event& event, time_point now) {
  out_.clear();
  now_ = now;
  std::visit(
    [this](const auto& what) {
      const auto* id = id_of(what);
      bool begins = std::is_same_v<std::decay_t<decltype(what)>, destination_side::offered>;
      if (begins == (state_ == state::idle) && (id == nullptr || *id == of_.id))
        hear(what);
    },
    event);
  return std::exchange(out_, {});
}

std::optional<time_point> destination_machine::deadline() const {
  switch (state_) {
    case state::reserved:
    case state::running: return limit_;
    case state::claiming:
    case state::abandoning: return std::min(limit_, again_at_);
    default: return std::nullopt;
  }
}

bool destination_machine::holds(std::uint32_t epoch) const {
  return (state_ == state::claiming || state_ == state::adopting) && epoch == of_.epoch + 1;
}

// --- reserved -----------------------------------------------------------------------------------

void destination_machine::hear(const destination_side::offered& event) {
  const auto& offer = event.offer;
  of_ = offer.of;
  source_ = offer.source;
  path_ = offer.path;
  if (!event.room) {
    make(handover::reject{of_, event.room.error()});
    return end(destination_outcome::refused, event.room.error());
  }
  request_ = offer.request;
  room_ = *event.room;
  block_tokens_ = offer.geometry.block_tokens;
  ready_ = room_.present_tokens;
  digest_.add(request_.prompt);
  digest_.add(request_.output);
  lease_ = offer.lease > nanoseconds{0} ? std::min(settings_.lease, offer.lease) : settings_.lease;
  state_ = state::reserved;
  limit_ = now_ + std::min(lease_, settings_.first_word);
  hear(offer);
}

void destination_machine::hear(const handover::offer&) {
  switch (state_) {
    case state::reserved:
      make(handover::accept{
        .of = of_,
        .destination = self_,
        .present_tokens = room_.present_tokens,
        .reserved_tokens = room_.reserved_tokens});
      break;
    case state::freeing:
    case state::abandoning:
    case state::done:
      make(handover::reject{of_, {errc::stale, "that hand-over has ended here"}});
      break;
    default: // it has gone on
      break;
  }
}

void destination_machine::renew() {
  limit_ = now_ + lease_;
}

void destination_machine::hear(const handover::copy_progress& message) {
  if (state_ != state::reserved)
    return;
  renew();
  if (message.round == 0)
    return say_prepared();
  if (message.watermark <= target_) { // late, or again: the answer may have been lost
    if (ready_ >= target_)
      say_prepared();
    return;
  }
  if (auto learnt = learn(message); !learnt)
    return let_go(std::move(learnt).error());
  pull_more();
}

/// Takes in what a progress tells, and nothing of it when that makes no sense.
result<void> destination_machine::learn(const handover::copy_progress& message) {
  auto known = request_.output.size();
  auto first = message.first_output;
  if (first > known)
    return {errc::bad_message, "output ids are missing"};
  auto shared = std::min(known - first, message.ids.size());
  if (!std::equal(
        message.ids.begin(), message.ids.begin() + static_cast<std::ptrdiff_t>(shared),
        request_.output.begin() + first))
    return {errc::bad_message, "other output ids than before"};
  auto total = tokens_of(request_) + (message.ids.size() - shared);
  if (total > room_.reserved_tokens)
    return {errc::out_of_blocks, "outgrew its room"};
  if (message.watermark >= total)
    return {errc::bad_message, "KV of more tokens than there are"};
  if (
    path_ == move_path::kv
    && std::uint64_t{message.blocks.size()} * block_tokens_ < message.watermark)
    return {errc::bad_message, "KV without blocks"};
  request_.output.insert(
    request_.output.end(), message.ids.begin() + static_cast<std::ptrdiff_t>(shared),
    message.ids.end());
  digest_.add(std::span{message.ids}.subspan(shared));
  target_ = message.watermark;
  round_ = message.round;
  source_blocks_ = message.blocks;
  return {};
}

void destination_machine::pull_more() {
  if (ready_ >= target_)
    return say_prepared();
  if (path_ == move_path::recompute) {
    make(destination_side::compute_ahead{ids_of(request_)});
  } else if (!pulling_ && !verifying_) {
    pulling_ = true;
    pulled_to_ = target_;
    make(destination_side::pull{ready_, target_, source_blocks_});
  }
}

void destination_machine::say_prepared() {
  make(handover::prepared{.of = of_, .round = round_, .watermark = ready_, .bytes = bytes_});
}

void destination_machine::hear(const destination_side::pulled& event) {
  if (!std::exchange(pulling_, false))
    return;
  bytes_ += event.bytes;
  if (state_ == state::freeing)
    return free_room();
  if (state_ != state::reserved)
    return;
  if (event.why.code != errc::ok)
    return let_go(event.why);
  renew();
  verifying_ = true;
  make(destination_side::verify{ready_, pulled_to_, ids_of(request_)});
}

void destination_machine::hear(const destination_side::verified& event) {
  if (!std::exchange(verifying_, false) || state_ != state::reserved)
    return;
  if (event.why.code != errc::ok)
    return let_go(event.why);
  ready_ = pulled_to_;
  pull_more();
}

void destination_machine::hear(const destination_side::computed& event) {
  if (state_ != state::reserved || path_ != move_path::recompute)
    return;
  bool was_ready = ready_ >= target_;
  auto most = static_cast<std::uint32_t>(tokens_of(request_)) - 1; // the last token has no KV
  ready_ = std::max(ready_, std::min(event.ready_tokens, most));
  if (!was_ready && ready_ >= target_)
    say_prepared();
}

void destination_machine::hear(const handover::cancel& message) {
  switch (state_) {
    case state::reserved:
      answer_cancel_ = true;
      let_go(message.why);
      break;
    case state::freeing: // answered once nothing can land
      answer_cancel_ = true;
      break;
    case state::abandoning:
    case state::done: make(handover::cancelled{of_}); break;
    default: // A decides
      break;
  }
}

void destination_machine::hear(const handover::cancelled&) {}

void destination_machine::let_go(error why) {
  why_ = std::move(why);
  if (!pulling_)
    return free_room();
  state_ = state::freeing;
  make(destination_side::cancel_pull{});
}

/// Frees the room, into which nothing is under way, and says so.
void destination_machine::free_room() {
  make(destination_side::give_up{});
  if (answer_cancel_)
    make(handover::cancelled{of_});
  else if (!source_told_)
    make(handover::cancel{of_, why_});
  end(destination_outcome::cancelled, why_);
}

void destination_machine::end(destination_outcome outcome, error why) {
  state_ = state::done;
  make(destination_side::ended{
    .outcome = outcome,
    .why = std::move(why),
    .epoch = of_.epoch + (outcome == destination_outcome::moved ? 1 : 0),
    .path = path_,
    .ready_tokens = ready_,
    .bytes = bytes_});
}

// --- claiming -----------------------------------------------------------------------------------

void destination_machine::hear(const handover::freeze_commit& message) {
  if (state_ == state::running)
    make(handover::committed{of_});
  if (state_ != state::reserved)
    return;
  if (auto good = check(message); !good) {
    make(handover::commit_failed{of_, handover::commit_failure::refused, good.error()});
    source_told_ = true;
    return let_go(std::move(good).error());
  }
  request_.output = message.output;
  request_.credit = message.credit;
  sent_ = message.sent;
  state_ = state::claiming;
  limit_ = now_ + settings_.claim_limit;
  send_claim();
}

result<void> destination_machine::check(const handover::freeze_commit& message) {
  const auto& known = request_.output;
  if (message.of != of_)
    return {errc::bad_message, "not the request that was offered"};
  if (
    message.output.size() < known.size()
    || !std::equal(known.begin(), known.end(), message.output.begin()))
    return {errc::bad_message, "other output ids than before"};
  if (message.sent > message.output.size())
    return {errc::bad_message, "more tokens told than made"};
  auto total = request_.prompt.size() + message.output.size();
  if (total > room_.reserved_tokens)
    return {errc::out_of_blocks, "outgrew its room"};
  if (message.watermark >= total)
    return {errc::bad_message, "KV of more tokens than there are"};
  if (pulling_ || message.watermark > ready_)
    return {errc::bad_message, "KV that is not here yet"};
  digest_.add(std::span{message.output}.subspan(known.size()));
  if (digest_.value() != message.digest)
    return {errc::bad_message, "the digest of the ids is wrong"};
  return {};
}

void destination_machine::send_claim() {
  make(handover::claim{.of = of_, .claimant = self_, .start = sent_});
  again_at_ = now_ + settings_.claim_every;
}

void destination_machine::hear(const handover::claim_answer& message) {
  if (message.reclaimed)
    return;
  bool granted = message.verdict == handover::claim_verdict::granted;
  switch (state_) {
    case state::claiming:
      if (granted) {
        request_.epoch = of_.epoch + 1;
        request_.credit = message.credit;
        state_ = state::adopting;
        make(destination_side::adopt{std::move(request_), sent_});
        source_blocks_ = {};
      } else if (message.verdict == handover::claim_verdict::aborted) {
        fail_claim(handover::commit_failure::aborted, {errc::cancelled, "the stream is over"});
      } else {
        fail_claim(handover::commit_failure::unknown, {errc::stale, "the claim was refused"});
      }
      break;
    case state::freeing:
    case state::abandoning:
    case state::done:
      if (granted && !ran_here_)
        make(handover::abandon{of_, self_});
      break;
    default: break;
  }
}

void destination_machine::hear(const destination_side::adopted& event) {
  if (state_ != state::adopting)
    return;
  if (event.why.code != errc::ok)
    return abandon(event.why);
  ran_here_ = true;
  make(handover::committed{of_});
  make(handover::release{of_});
  if (abort_wanted_)
    make(destination_side::end_request{of_.epoch + 1});
  end(destination_outcome::moved, {errc::ok, {}});
  if (!abort_wanted_) {
    state_ = state::running;
    limit_ = now_ + settings_.remember;
  }
}

void destination_machine::fail_claim(handover::commit_failure why, error detail) {
  make(destination_side::give_up{});
  make(handover::commit_failed{of_, why, detail});
  end(destination_outcome::unclaimed, std::move(detail));
}

/// A may have granted the stream, or will: it must learn that nobody runs it.
void destination_machine::abandon(error why) {
  make(destination_side::give_up{});
  make(handover::commit_failed{of_, handover::commit_failure::unknown, why});
  end(destination_outcome::abandoned, std::move(why));
  make(handover::abandon{of_, self_});
  state_ = state::abandoning;
  limit_ = now_ + settings_.remember;
  again_at_ = now_ + settings_.abandon_every;
}

void destination_machine::hear(const handover::abandoned&) {
  if (state_ == state::abandoning)
    state_ = state::done;
}

// --- news ---------------------------------------------------------------------------------------

void destination_machine::hear(const destination_side::aborted& event) {
  if (event.epoch <= of_.epoch)
    return; // of an earlier owner
  if (state_ == state::claiming)
    fail_claim(handover::commit_failure::aborted, {errc::cancelled, "wanted no longer"});
  else if (state_ == state::adopting)
    abort_wanted_ = true;
  else if (state_ == state::running)
    state_ = state::done;
}

void destination_machine::hear(const destination_side::request_ended&) {
  if (state_ == state::running)
    state_ = state::done;
}

void destination_machine::hear(const destination_side::source_lost&) {
  if (state_ == state::reserved)
    let_go({errc::unreachable, "the source is gone"});
}

void destination_machine::hear(const destination_side::owner_lost&) {
  error why{errc::unreachable, "the stream's owner is gone"};
  switch (state_) {
    case state::reserved: let_go(std::move(why)); break;
    case state::claiming: fail_claim(handover::commit_failure::unknown, std::move(why)); break;
    case state::adopting: abort_wanted_ = true; break;
    case state::abandoning: state_ = state::done; break;
    default: break;
  }
}

void destination_machine::hear(const destination_side::tick&) {
  bool over = now_ >= limit_;
  switch (state_) {
    case state::reserved:
      if (over)
        let_go({errc::timeout, "nothing was heard of the source"});
      break;
    case state::claiming:
      if (over)
        abandon({errc::timeout, "the stream's owner does not answer"});
      else if (now_ >= again_at_)
        send_claim();
      break;
    case state::running:
      if (over)
        state_ = state::done;
      break;
    case state::abandoning:
      if (over) {
        state_ = state::done;
      } else if (now_ >= again_at_) {
        again_at_ = now_ + settings_.abandon_every;
        make(handover::abandon{of_, self_});
      }
      break;
    default: break;
  }
}

} // namespace llumnix
