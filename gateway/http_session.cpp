#include "gateway/http_session.hpp"

#include "runtime/base/log.hpp"

#include <algorithm>
#include <utility>

namespace llumnix {
namespace {

openai::chunk_writer::usage_field usage_field_of(const openai::generation_request& wish) {
  using field = openai::chunk_writer::usage_field;
  return wish.continuous_usage ? field::counted : wish.include_usage ? field::null : field::absent;
}

} // namespace

http_session::http_session(
  session_services& services, std::shared_ptr<net::exchange> client, session_request request)
  : services_{services},
    client_{std::move(client)},
    request_{std::move(request)},
    head_{request_.wish.kind, request_.id.text(), request_.wish.model, request_.created},
    chunks_{head_, usage_field_of(request_.wish)} {
  client_->watch(this);
}

http_session::~http_session() {
  client_->watch(nullptr);
  if (!std::exchange(over_, true)) {
    record(499);
    why_cancelled_.context = "the gateway stops";
  }
  for (const auto& x : choices_)
    if (x.open)
      services_.streams.cancel(x.stream, services_.loop.now(), why_cancelled_);
}

void http_session::start(std::vector<openai::tokenized_prompt> prompts, std::uint64_t seed) {
  auto& wish = request_.wish;
  services_.probes.on_started(services_.loop.now() - request_.arrived);
  prompts_ = std::move(prompts);
  if (!wish.seeded)
    wish.sampling.seed = seed;
  choices_.resize(prompts_.size() * wish.n);
  open_ = choices_.size();
  for (std::size_t p = 0; p < prompts_.size(); ++p)
    sinks_.emplace_back(*this, p * wish.n);

  for (std::size_t i = 0; i < choices_.size() && !over_; ++i) {
    const auto& prompt = prompts_[i / wish.n];
    inference_request request;
    request.text_id
      = request_.id.text(); // of a further choice "ID.1": it is placed and told of by itself
    if (i > 0)
      request.text_id += '.' + std::to_string(i);
    request.model = wish.model;
    request.prompt = prompt.ids;
    request.sampling = wish.sampling;
    request.sampling.choice = static_cast<std::uint32_t>(i % wish.n);
    request.sampling.max_tokens = prompt.max_tokens;
    request.sampling.min_tokens = std::min(wish.sampling.min_tokens, prompt.max_tokens);
    request.wishes = request_.wishes;
    request.priority = request_.wishes.priority;
    choices_[i].open = true;
    if (!wish.stream)
      choices_[i].shown.text = prompt.echo;
    choices_[i].stream = services_.streams.open(
      std::move(request),
      {.stop = wish.stop,
       .include_stop = wish.include_stop,
       .bounded = wish.stream,
       .client = request_.client},
      sinks_[i / wish.n], services_.loop.now());
  }
}

void http_session::update(std::size_t index, const stream_update& update) {
  if (over_)
    return;
  auto& target = choices_[index];
  note_tokens(target, update);
  if (request_.wish.stream)
    show(index, update);
  else
    collect(target, update);
  if (update.finish != finish_reason::none) {
    target.open = false;
    --open_;
  }
}

void http_session::note_tokens(choice& target, const stream_update& update) {
  target.output_tokens = update.output_tokens;
  target.cached_tokens = update.cached_tokens;
  if (update.tokens.empty())
    return;
  auto now = services_.loop.now();
  if (!first_token_)
    first_token_ = now;
  if (target.last_token != time_point{})
    services_.probes.on_token_gap(now - target.last_token);
  target.last_token = now;
  target.unconsumed += static_cast<std::uint32_t>(update.tokens.size());
}

/// Writes the update's events: in a chat the end has an event of its own, in a completion it goes
/// with the text.
void http_session::show(std::size_t index, const stream_update& update) {
  const auto& wish = request_.wish;
  auto& target = choices_[index];
  auto chat = wish.kind == openai::endpoint::chat;
  auto ends = update.finish != finish_reason::none;
  rendered_.clear();
  if (
    wish.sampling.logprobs && !update.tokens.empty()
    && update.logprobs.size() == update.tokens.size()) {
    if (chat)
      services_.logprobs.chat(
        rendered_, update.tokens, update.logprobs, wish.sampling.top_logprobs);
    else
      services_.logprobs.completion(
        rendered_, update.tokens, update.logprobs, wish.sampling.top_logprobs, target.text_offset);
  }
  auto so_far = wish.continuous_usage ? counts() : openai::usage{};
  openai::chunk event{.index = static_cast<std::uint32_t>(index)};
  if (const auto& echo = prompts_[index / wish.n].echo; !target.begun && !echo.empty()) {
    event.text = echo;
    chunks_.write(out_, event, so_far);
    target.begun = true;
  }
  event.text = update.text;
  event.logprobs = rendered_;
  if (!event.text.empty() || !event.logprobs.empty() || (ends && (!chat || !target.begun))) {
    event.first = !target.begun;
    event.finish = chat ? finish_reason::none : update.finish;
    event.stop_match = update.stop_match;
    chunks_.write(out_, event, so_far);
    target.begun = true;
  }
  if (chat && ends)
    chunks_.write(
      out_, {.index = event.index, .finish = update.finish, .stop_match = update.stop_match},
      so_far);
}

void http_session::collect(choice& target, const stream_update& update) {
  target.shown.text += update.text;
  if (request_.wish.sampling.logprobs && update.logprobs.size() == update.tokens.size()) {
    target.shown.tokens.insert(
      target.shown.tokens.end(), update.tokens.begin(), update.tokens.end());
    target.shown.logprobs.insert(
      target.shown.logprobs.end(), update.logprobs.begin(), update.logprobs.end());
  }
  target.shown.finish = update.finish;
  target.shown.stop_match = update.stop_match;
}

void http_session::flush() {
  if (over_)
    return;
  if (open_ == 0) {
    request_.wish.stream ? end_stream() : reply_whole();
    return;
  }
  if (!request_.wish.stream)
    return;
  if (!out_.empty()) {
    send_head();
    client_->write(out_);
    out_.clear();
    client_->flush(); // may find the client gone
  }
  if (!over_ && client_->backlog() == 0)
    acknowledge();
}

/// The head waits for the first event, so that what fails before it has a status of its own.
void http_session::send_head() {
  if (std::exchange(head_sent_, true))
    return;
  client_->begin_stream(
    200, {{"content-type", "text/event-stream; charset=utf-8"},
          {"cache-control", "no-cache"},
          {"x-accel-buffering", "no"},
          {"x-request-id", request_.id.text()}});
}

void http_session::end_stream() {
  send_head();
  if (request_.wish.include_usage)
    chunks_.write_usage(out_, counts());
  openai::chunk_writer::write_done(out_);
  client_->write(out_);
  client_->end_stream();
  end(200);
}

void http_session::reply_whole() {
  std::vector<openai::whole_choice> shown;
  shown.reserve(choices_.size());
  for (auto& x : choices_)
    shown.push_back(std::move(x.shown));
  const auto& sampling = request_.wish.sampling;
  client_->reply(
    {200,
     {{"content-type", "application/json"}, {"x-request-id", request_.id.text()}},
     openai::render_reply(
       head_, shown, counts(), sampling.logprobs, sampling.top_logprobs, services_.logprobs)});
  end(200);
}

/// One failed choice ends the whole request. Inside a stream there is no status left to say it
/// with: an error event, and no [DONE], so that half an answer is not taken for a whole one.
void http_session::fail(const error& why) {
  if (over_)
    return;
  why_cancelled_ = {errc::cancelled, "another choice of the request failed"};
  auto failure = openai::to_api_error(why);
  log::gateway.debug(
    "request-failed", "{}: {} {}", request_.id.text(), failure.status, failure.message);
  if (!head_sent_) {
    client_->reply(openai::error_reply(failure, request_.id.text()));
  } else {
    send_head();
    openai::chunk_writer::write_error(out_, openai::render_error(failure));
    client_->write(out_);
    client_->end_stream();
  }
  end(failure.status);
}

/// Everything written has left our hands: the streams may go on.
void http_session::acknowledge() {
  for (auto& x : choices_)
    if (auto tokens = std::exchange(x.unconsumed, 0); tokens > 0 && x.open)
      services_.streams.consumed(x.stream, tokens, services_.loop.now());
}

/// The answer has been handed over as a whole, or there is nobody left to answer.
void http_session::end(int status) {
  if (std::exchange(over_, true))
    return; // the client went away while it was written
  record(status);
  services_.free_later(*this);
}

void http_session::on_gone() {
  end(499);
}

void http_session::on_drained() {
  acknowledge();
}

void http_session::give_up(const error& why) {
  if (over_)
    return;
  fail(why);
  why_cancelled_ = why;
}

void http_session::check_stalled(time_point now, std::chrono::milliseconds limit) {
  if (over_ || client_->backlog() == 0 || now - client_->stalled_since() <= limit)
    return;
  log::gateway.info(
    "stalled-client", "{} of {} read nothing for too long", request_.id.text(), request_.client);
  client_->watch(nullptr);
  client_->abandon();
  why_cancelled_.context = "the client read nothing for too long";
  end(499);
}

void http_session::record(int status) {
  auto used = counts();
  auto now = services_.loop.now();
  request_outcome outcome{
    .status = status,
    .input_tokens = used.prompt_tokens,
    .output_tokens = used.completion_tokens,
    .duration = now - request_.arrived,
    .first_token = std::nullopt};
  if (first_token_)
    outcome.first_token = *first_token_ - request_.arrived;
  services_.probes.on_ended(outcome);
  log::gateway.debug(
    "request-ended", "{}: {}, {} tokens in, {} out, {} ms", request_.id.text(), status,
    used.prompt_tokens, used.completion_tokens,
    std::chrono::duration_cast<std::chrono::milliseconds>(outcome.duration).count());
}

/// A prompt counts once, however many choices it has.
openai::usage http_session::counts() const {
  openai::usage total;
  for (std::size_t p = 0; p < prompts_.size(); ++p) {
    total.prompt_tokens += prompts_[p].ids.size();
    std::uint32_t cached = 0;
    for (std::size_t i = p * request_.wish.n; i < (p + 1) * request_.wish.n; ++i) {
      total.completion_tokens += choices_[i].output_tokens;
      cached = std::max(cached, choices_[i].cached_tokens);
    }
    total.cached_tokens += cached;
  }
  return total;
}

} // namespace llumnix
