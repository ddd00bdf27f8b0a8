#include "runtime/serving/stream_table.hpp"

#include "runtime/base/assert.hpp"
#include "runtime/base/log.hpp"
#include "runtime/serving/step_batch.hpp"
#include "runtime/serving/stream_claims.hpp"
#include "runtime/serving/token_stream.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

namespace llumnix {

/// One output sequence on its way to a client.
struct stream_table::entry {
  inference_request request; ///< `output` grows with what was delivered
  stream_options options;
  response_sink* sink;
  token_stream text;
  time_point opened;
  time_point last_news;
  std::optional<stream_owner> owner;
  bool news_from_owner = false; ///< a token came under this epoch
  std::uint32_t placements = 0;
  stream_times times{}; ///< `placed` before the news of it came: when it was asked for
  std::uint32_t consumed = 0;
  std::uint32_t granted = 0;
  std::uint32_t cached_tokens = 0;
  std::unique_ptr<stream_claims> claims{}; ///< once a claim or an ABANDON was heard
  std::optional<std::uint32_t> moving{};   ///< the epoch under which it was last handed over

  std::uint64_t number() const { return request.stream.stream; }
  std::uint32_t delivered() const { return static_cast<std::uint32_t>(request.output.size()); }
  const char* state() const {
    return moving == request.epoch ? "moving"
           : news_from_owner       ? "running"
           : placements > 1        ? "replaying"
           : owner                 ? "prefilling"
                                   : "queued";
  }
};

namespace {

/// More nodes than a cluster loses while their claims are still on their way.
constexpr std::size_t lost_max = 4096;

/// Refusals that no other instance would answer differently.
bool final_refusal(errc code) {
  return code == errc::invalid_argument || code == errc::too_long || code == errc::unsupported;
}

} // namespace

void stream_port::place_relayed(
  inference_request, relayed_request, bool, std::vector<instance_id>) {
  LLUMNIX_ASSERT(!"this port relays nothing");
}

stream_table::stream_table(
  const gateway_config& config, stream_ref self, const tokenizer& words, stream_port& port)
  : config_{config}, self_{std::move(self)}, words_{words}, port_{port} {}

stream_table::~stream_table() = default;

std::uint64_t stream_table::open(
  inference_request request, stream_options options, response_sink& sink, time_point now) {
  auto number = ++next_;
  request.stream = self_;
  request.stream.stream = number;
  request.epoch = 0;
  token_stream text{words_, options.stop, options.include_stop, request.sampling.min_tokens};
  auto made = std::make_unique<entry>(entry{
    .request = std::move(request),
    .options = std::move(options),
    .sink = &sink,
    .text = std::move(text),
    .opened = now,
    .last_news = now,
    .owner = std::nullopt});
  auto& stream = *streams_.emplace(number, std::move(made)).first->second;
  request_placement(stream, false, {}, now);
  return number;
}

void stream_table::request_placement(
  entry& stream, bool replay, std::vector<instance_id> exclude, time_point now) {
  ++stream.placements;
  stream.owner.reset();
  stream.news_from_owner = false;
  stream.last_news = now;
  if (!stream.times.first_token)
    stream.times.placed = now - stream.opened;
  stream.granted = stream.options.bounded ? stream.consumed + config_.credit_window
                                          : inference_request::no_limit;
  stream.request.credit = stream.granted;
  port_.place(stream.request, replay, std::move(exclude));
}

void stream_table::replay(entry& stream, std::vector<instance_id> exclude, time_point now) {
  if (stream.placements >= config_.max_placements) {
    fail(
      stream,
      {errc::no_instance, "gave up after " + std::to_string(stream.placements) + " placements"});
    return;
  }
  ++stream.request.epoch;
  if (stream.claims)
    stream.claims->raised(stream.request.epoch, stream.delivered());
  request_placement(stream, true, std::move(exclude), now);
}

void stream_table::consumed(std::uint64_t number, std::uint32_t tokens, time_point) {
  auto found = streams_.find(number);
  if (found == streams_.end())
    return;
  found->second->consumed += tokens;
  grant_more(*found->second);
}

/// Tells the owner of new credit once half a window has been consumed, so that a grant goes with
/// many tokens.
void stream_table::grant_more(entry& stream) {
  if (!stream.options.bounded || !stream.owner)
    return;
  auto may = stream.consumed + config_.credit_window;
  if (may - stream.granted < std::max(1u, config_.credit_window / 2))
    return;
  stream.granted = may;
  port_.grant(*stream.owner, stream.number(), stream.request.epoch, may);
}

void stream_table::cancel(std::uint64_t number, time_point, error why) {
  auto found = streams_.find(number);
  if (found == streams_.end())
    return;
  auto& stream = *found->second;
  if (stream.owner)
    port_.abort(*stream.owner, number, stream.request.epoch);
  else
    port_.withdraw(number, stream.request.epoch);
  if (std::exchange(stream.sink->flush_pending, false))
    std::erase(touched_, stream.sink);
  finish(number, why.code == errc::cancelled ? "cancelled" : "failed", why);
}

void stream_table::on_batch(
  const node_life& from, const instance_id& instance, const std::vector<char>& bytes,
  time_point now) {
  stream_owner sender{from, instance};
  auto read = read_step_batch(bytes, [&](const token_delta& delta) { hear(sender, delta, now); });
  if (!read)
    log::gateway.error("bad-batch", "from {} of {}: {}", instance, from.node, read.error().context);
  auto flushing = std::exchange(touched_, {});
  for (auto* sink : flushing)
    sink->flush_pending = false;
  for (auto* sink : flushing)
    sink->flush();
}

/// The batch rule of spec/migration.md 12.2.
void stream_table::hear(const stream_owner& sender, const token_delta& delta, time_point now) {
  auto found = streams_.find(delta.stream);
  if (found == streams_.end()) {
    port_.abort(sender, delta.stream, delta.epoch);
    return;
  }
  auto& stream = *found->second;
  bool current = delta.epoch == stream.request.epoch;
  if (current && !stream.owner)
    stream.owner = sender; // its first token overtook the news of its placement
  if (delta.epoch > stream.request.epoch || (current && *stream.owner != sender)) {
    log::gateway.warn(
      "odd-delta", "{} of {} speaks for stream {} under epoch {}, which it does not own",
      sender.instance, sender.life.node, delta.stream, delta.epoch);
    return;
  }
  auto verdict = stream.claims
                   ? stream.claims->judge(delta, stream.request.epoch, stream.delivered())
                   : judge(delta, stream.request.epoch, stream.delivered());
  if (verdict.abort)
    port_.abort(sender, delta.stream, delta.epoch);
  if (current) {
    stream.last_news = now;
    stream.news_from_owner = true;
  }
  if (verdict.hold) {
    if (!stream.claims || !stream.claims->hold(sender, delta, now))
      gap(stream, delta, now);
    return;
  }
  if (verdict.take == 0 && !verdict.finish && !current)
    return;
  accept(stream, delta, verdict.skip, verdict.take, verdict.finish, now);
  hear_held(delta.stream, now);
}

/// Batches that waited for the one just heard.
void stream_table::hear_held(std::uint64_t number, time_point now) {
  for (;;) {
    auto found = streams_.find(number);
    if (found == streams_.end() || !found->second->claims)
      return;
    auto held = found->second->claims->next_held(found->second->delivered());
    if (!held)
      return;
    hear(held->sender, held->batch, now);
  }
}

/// Tokens are missing that nobody will send: they are computed again.
void stream_table::gap(entry& stream, const token_delta& delta, time_point now) {
  log::gateway.warn(
    "gap", "stream {} expected token {}, got {}", stream.request.text_id, stream.delivered(),
    delta.start);
  take_back(stream, now);
}

/// Its owner may still run it, or wait for credit that will never come: it hears of the end.
void stream_table::take_back(entry& stream, time_point now) {
  if (stream.owner)
    port_.abort(*stream.owner, stream.number(), stream.request.epoch);
  replay(stream, {}, now);
}

/// Delivers `take` tokens after the first `skip`, which were delivered before.
void stream_table::accept(
  entry& stream, const token_delta& delta, std::size_t skip, std::size_t take, bool ends,
  time_point now) {
  if (delta.cached_tokens > 0)
    stream.cached_tokens = delta.cached_tokens;
  if (take > 0) {
    stream.times.last_token = now - stream.opened;
    if (!stream.times.first_token)
      stream.times.first_token = stream.times.last_token;
  }
  auto end = skip + take;
  auto used = skip;
  bool stopped = false;
  for (; used < end && !stopped; ++used) {
    stream.request.output.push_back(delta.tokens[used]);
    stopped = stream.text.take(delta.tokens[used]);
  }
  auto ended = stopped ? finish_reason::stop : ends ? delta.finish : finish_reason::none;
  if (ended == finish_reason::abort) { // the engine gave it up: another one goes on
    replay(stream, {}, now);
    return;
  }
  if (ended != finish_reason::none && !stopped)
    stream.text.end();

  std::span<const token_id> tokens{delta.tokens};
  std::span<const token_logprob> logprobs{delta.logprobs};
  stream_update update{
    .choice = stream.request.sampling.choice,
    .text = stream.text.ready(),
    .tokens = tokens.subspan(skip, used - skip),
    .logprobs = logprobs.size() >= used ? logprobs.subspan(skip, used - skip)
                                        : std::span<const token_logprob>{},
    .finish = ended,
    .stop_match = stream.text.match(),
    .prompt_tokens = static_cast<std::uint32_t>(stream.request.prompt.size()),
    .output_tokens = stream.delivered(),
    .cached_tokens = stream.cached_tokens};
  if (!std::exchange(stream.sink->flush_pending, true))
    touched_.push_back(stream.sink);
  auto number = stream.number();
  stream.sink->on_update(update);
  auto found = streams_.find(number);
  if (found == streams_.end())
    return; // the sink cancelled it meanwhile
  stream.text.shown();
  if (ended == finish_reason::none)
    return;
  if (stopped && delta.finish == finish_reason::none)
    port_.abort(*stream.owner, number, stream.request.epoch);
  finish(number, ended == finish_reason::length ? "length" : "stop", {errc::ok, {}});
}

void stream_table::on_placed(
  std::uint64_t number, std::uint32_t epoch, const stream_owner& owner, time_point now) {
  auto found = streams_.find(number);
  if (found == streams_.end() || epoch != found->second->request.epoch) {
    port_.abort(owner, number, epoch); // cancelled while it was on its way
    return;
  }
  auto& stream = *found->second;
  stream.owner = owner;
  stream.last_news = now;
  if (!stream.news_from_owner && !stream.times.first_token)
    stream.times.placed = now - stream.opened;
  grant_more(stream);
}

void stream_table::on_unplaceable(
  std::uint64_t number, std::uint32_t epoch, const error& why, time_point) {
  auto found = streams_.find(number);
  if (found != streams_.end() && epoch == found->second->request.epoch)
    fail(*found->second, why);
}

void stream_table::on_refused(
  std::uint64_t number, std::uint32_t epoch, const instance_id& by, const error& why,
  time_point now) {
  auto found = streams_.find(number);
  if (found == streams_.end() || epoch != found->second->request.epoch)
    return;
  if (final_refusal(why.code))
    fail(*found->second, why);
  else
    replay(*found->second, {by}, now);
}

void stream_table::end_requests(
  const std::vector<std::string>& text_ids, const std::vector<instance_id>& at, const error& why) {
  const std::set<std::string_view> names{text_ids.begin(), text_ids.end()};
  std::vector<std::uint64_t> meant;
  for (const auto& [number, stream] : streams_)
    if (
      stream->owner && std::ranges::find(at, stream->owner->instance) != at.end()
      && names.contains(stream->request.text_id))
      meant.push_back(number);
  for (auto number : meant) {
    auto found = streams_.find(number);
    if (found == streams_.end())
      continue; // with a choice of the same request
    auto& stream = *found->second;
    port_.abort(*stream.owner, number, stream.request.epoch);
    fail(stream, why);
  }
}

void stream_table::on_node_back(const node_life& life) {
  auto gone = lost_.find(life.node);
  if (gone == lost_.end() || gone->second.incarnation < life.incarnation)
    return;
  if (life.incarnation > 0)
    gone->second.incarnation = life.incarnation - 1;
  else
    lost_.erase(gone);
}

void stream_table::note_lost(const node_life& life) {
  auto& last = lost_[life.node];
  last = {std::max(last.incarnation, life.incarnation), ++losses_};
  if (lost_.size() > lost_max)
    lost_.erase(std::min_element(lost_.begin(), lost_.end(), [](const auto& a, const auto& b) {
      return a.second.order < b.second.order;
    }));
}

bool stream_table::is_lost(const node_life& life) const {
  auto gone = lost_.find(life.node);
  return gone != lost_.end() && life.incarnation <= gone->second.incarnation;
}

void stream_table::on_node_lost(const node_life& life, time_point now) {
  note_lost(life);
  std::vector<std::uint64_t> orphans;
  for (const auto& [number, stream] : streams_)
    if (
      stream->owner && stream->owner->life.node == life.node
      && stream->owner->life.incarnation <= life.incarnation)
      orphans.push_back(number);
  std::sort(orphans.begin(), orphans.end()); // the oldest first, whatever the table's order
  for (auto number : orphans)
    if (auto found = streams_.find(number); found != streams_.end())
      replay(*found->second, {}, now);
}

void stream_table::on_holds_answer(
  const stream_owner& from, std::uint64_t number, std::uint32_t epoch, bool holds, time_point now) {
  auto found = streams_.find(number);
  if (holds || found == streams_.end())
    return;
  auto& stream = *found->second;
  if (no_counts(from, epoch, stream.owner, stream.request.epoch))
    replay(stream, {}, now);
}

stream_table::entry* stream_table::find(const stream_ref& stream) {
  auto found = streams_.find(stream.stream);
  return found == streams_.end() || found->second->request.stream != stream ? nullptr
                                                                            : found->second.get();
}

stream_claims& stream_table::claims_of(entry& stream) {
  if (!stream.claims)
    stream.claims = std::make_unique<stream_claims>(claim_settings{}, stream.request.epoch);
  return *stream.claims;
}

template <class Claim>
handover::claim_answer stream_table::answer(const Claim& claim, time_point now) {
  auto* stream = find(claim.of.stream);
  if (!stream)
    return answer_when_gone(claim);
  auto& claims = claims_of(*stream);
  auto epoch = stream->request.epoch;
  bool lost = is_lost(claim.claimant.life);
  auto decided = [&] {
    if constexpr (std::is_same_v<Claim, handover::claim>)
      return claims.on_claim(claim, epoch, lost);
    else
      return claims.on_reclaim(claim, epoch, lost);
  }();
  if (decided.took_over) {
    stream->request.epoch = claim.of.epoch + 1;
    stream->owner = claim.claimant;
    stream->last_news = now;
    if (stream->options.bounded)
      stream->granted = stream->consumed + config_.credit_window;
  }
  decided.answer.credit = stream->granted;
  return decided.answer;
}

handover::claim_answer stream_table::on_claim(const handover::claim& claim, time_point now) {
  return answer(claim, now);
}

handover::claim_answer stream_table::on_reclaim(const handover::reclaim& claim, time_point now) {
  return answer(claim, now);
}

void stream_table::on_abandon(const handover::abandon& what, time_point now) {
  auto* stream = find(what.of.stream);
  if (stream && claims_of(*stream).on_abandon(what, stream->request.epoch, now))
    replay(*stream, {}, now);
}

void stream_table::on_moving(std::uint64_t number, std::uint32_t epoch, bool on) {
  auto found = streams_.find(number);
  if (found == streams_.end() || epoch != found->second->request.epoch)
    return;
  found->second->moving = on ? std::optional{epoch} : std::nullopt;
}

void stream_table::place_again(time_point now) {
  std::vector<std::uint64_t> waiting;
  for (const auto& [number, stream] : streams_)
    if (!stream->owner)
      waiting.push_back(number);
  std::sort(waiting.begin(), waiting.end());
  for (auto number : waiting) {
    auto& stream = *streams_.at(number);
    --stream.placements; // the same placement, asked for once more
    request_placement(stream, stream.placements > 0, {}, now);
  }
}

void stream_table::sweep(time_point now) {
  std::vector<std::uint64_t> silent;
  std::vector<std::uint64_t> given_up;
  for (const auto& [number, stream] : streams_) {
    if (stream->claims && stream->claims->replay_due(now))
      given_up.push_back(number);
    else if (stream->owner && now - stream->last_news >= config_.silence)
      silent.push_back(number);
  }
  std::sort(given_up.begin(), given_up.end());
  for (auto number : given_up)
    if (auto found = streams_.find(number); found != streams_.end())
      take_back(*found->second, now);
  std::sort(silent.begin(), silent.end());
  for (auto number : silent) {
    auto found = streams_.find(number);
    if (found == streams_.end())
      continue; // a sink that heard of a failure cancelled it
    auto& stream = *found->second;
    stream.last_news = now; // asked again after another silence
    port_.ask_holds(*stream.owner, number, stream.request.epoch);
  }
}

void stream_table::fail(entry& stream, const error& why) {
  auto number = stream.number();
  auto* sink = stream.sink;
  auto choice = stream.request.sampling.choice;
  if (std::exchange(sink->flush_pending, false))
    std::erase(touched_, sink);
  finish(number, why.code == errc::cancelled ? "cancelled" : "failed", why);
  sink->on_failure(choice, why);
}

void stream_table::finish(std::uint64_t number, std::string outcome, const error& failure) {
  auto found = streams_.find(number);
  auto stream = std::move(found->second);
  streams_.erase(found);
  port_.closed(
    {.stream = stream->request.stream,
     .text_id = stream->request.text_id,
     .outcome = std::move(outcome),
     .failure = failure,
     .prompt_tokens = static_cast<std::uint32_t>(stream->request.prompt.size()),
     .output_tokens = stream->delivered(),
     .placements = stream->placements,
     .times = stream->times});
}

std::vector<stream_info> stream_table::list(time_point now) const {
  std::vector<stream_info> all;
  all.reserve(streams_.size());
  for (const auto& [number, stream] : streams_) {
    all.push_back(
      {.text_id = stream->request.text_id,
       .stream = stream->request.stream,
       .instance = stream->owner ? stream->owner->instance : instance_id{},
       .state = stream->state(),
       .epoch = stream->request.epoch,
       .prompt_tokens = static_cast<std::uint32_t>(stream->request.prompt.size()),
       .output_tokens = stream->delivered(),
       .age_ms
       = std::chrono::duration_cast<std::chrono::milliseconds>(now - stream->opened).count(),
       .client = stream->options.client});
  }
  std::sort(
    all.begin(), all.end(), [](const auto& a, const auto& b) { return a.stream < b.stream; });
  return all;
}

} // namespace llumnix
