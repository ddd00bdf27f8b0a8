#include "gateway/relay/relay_session.hpp"

#include "gateway/openai/api_error.hpp"
#include "gateway/relay/asking.hpp"
#include "gateway/relay/relay_table.hpp"
#include "gateway/relay/retry_after.hpp"
#include "gateway/relay/whole_reply.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::relay {

namespace {

using namespace std::chrono_literals;

constexpr auto place_patience = 1s;  // of a move, until its stream can be gone on with exactly
constexpr std::size_t backlog_high = 256 * 1024; // bytes for a slow client before its engine waits
constexpr std::size_t reply_max = 64 * 1024 * 1024;
constexpr std::size_t counted_reply = 64 * 1024; // larger ones count among all that are held
constexpr std::size_t refusal_max = 1024 * 1024; // of what is no answer: no stream, or a failure
constexpr std::size_t event_max = 1024 * 1024;   // and the ids of the prompt:
constexpr std::size_t id_bytes = 10;             // at most, for each token of the prompt

/// An engine's word for how an output ended, if it is one.
std::string outcome_of(std::string_view finish_reason) {
  constexpr std::size_t longest = 40;
  bool is_word = !finish_reason.empty() && finish_reason.size() <= longest
                 && std::all_of(finish_reason.begin(), finish_reason.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
                    });
  return is_word ? std::string{finish_reason} : "ended";
}

} // namespace

std::string_view header(const net::http_reply& reply, std::string_view name) {
  for (const auto& [key, value] : reply.headers)
    if (net::equal_ignoring_case(key, name))
      return value;
  return {};
}

relay_session::relay_session(
  relay_table& table, std::uint64_t number, std::shared_ptr<net::exchange> client,
  passed_request request)
  : table_{table},
    number_{number},
    client_{std::move(client)},
    request_{std::move(request)},
    stream_{request_.wish},
    held_reply_{*table.services().replies} {
  client_->watch(this);
}

relay_session::~relay_session() {
  client_->watch(nullptr);
  call_.reset();
  if (phase_ != phase::over)
    end(499, "cancelled", {errc::cancelled, "the gateway stops"});
}

void relay_session::start() {
  table_.services().probes.on_started(table_.now() - request_.arrived);
  give_up_at_ = table_.now() + table_.services().config.wait_for_instance;
  place();
}

void relay_session::place() {
  phase_ = phase::placing;
  ++placements_;
  inference_request head;
  head.stream = table_.services().self;
  head.stream.stream = number_;
  head.epoch = epoch_;
  head.text_id = request_.id.text();
  head.model = request_.wish.model;
  head.wishes = request_.wishes;
  if (table_.services().engines.is_adapter(head.model))
    head.wishes.adapter = head.model;
  head.wishes.priority = request_.wish.priority.value_or(request_.wishes.priority);
  if (table_.services().tells_prompts)
    head.prompt = prompt_ids(*request_.body, request_.wish);
  asked_at_ = table_.now();
  table_.services().port.place_relayed(
    std::move(head), {stream_.prompt_tokens(), stream_.output_tokens(), why_.context, on_trial()},
    epoch_ > 0, excluded());
}

void relay_session::place_again() {
  if (phase_ != phase::placing)
    return;
  --placements_; // the same one, asked for once more
  place();
}

void relay_session::on_placed(std::uint32_t epoch, const stream_owner& owner) {
  if (phase_ != phase::placing || epoch != epoch_ || was_diverted(owner.instance))
    return;
  if (!first_token_)
    placed_at_ = table_.now();
  ask(owner);
}

void relay_session::on_unplaceable(std::uint32_t epoch, const error& why) {
  if (phase_ != phase::placing || epoch != epoch_)
    return;
  if (refusal_ && !stream_.begun())
    answer_with(std::move(*refusal_), "failed", why);
  else
    fail(why);
}

void relay_session::ask(const stream_owner& owner) {
  owner_ = owner;
  const auto* engine = table_.services().engines.find(owner.instance);
  if (!engine)
    return lose_engine({errc::unreachable, "engine " + owner.instance + " is gone"});
  if (has_failed(owner.instance)) // nobody else takes work now
    return wait_for_return(why_);
  if (engine->draining) // whoever placed it does not know yet
    return wait_for_engine({errc::no_instance, owner.instance + " is being drained"});
  if (!engine->suits(wanted())) // nobody else takes work now
    return wait_for_engine(
      {errc::no_instance, "no engine that serves '" + request_.wish.model + "' "
                            + (wanted().tokens ? "and /inference/v1/generate " : "")
                            + "takes work"});
  if (resume_.where == resumption::from::ids && !engine->token_ids && !wanted().tokens)
    if (auto by_text = stream_.resume_by_text())
      resume_ = std::move(*by_text);
  if (auto obstacle = cannot_go_on(request_.wish, resume_, *engine); !obstacle.empty())
    return lose_engine(
      {errc::unsupported, owner.instance + " cannot go on: " + std::string{obstacle}});
  if (stream_.hidden())
    return recall_text(*engine);
  send_to(*engine);
}

void relay_session::send_to(const engine_endpoint& engine) {
  auto asked = ask_for(*request_.body, request_.wish, resume_, engine);
  if (!asked)
    return fail(std::move(asked.error()).while_doing(why_.context));
  stream_.hide_usage(asked->hides_usage);
  stream_.hide_ids(asked->hides_ids);
  phase_ = phase::asking;
  drop_reply();
  events_.reset();
  last_progress_ = table_.now();
  net::upstream_request question;
  question.address = engine.address;
  bool as_completion = resume_.where == resumption::from::ids && !wanted().tokens;
  question.target = as_completion ? "/v1/completions" : request_.path;
  question.headers.reserve(request_.headers.size() + 2);
  question.headers = request_.headers;
  question.headers.emplace_back("content-type", "application/json");
  question.headers.emplace_back(
    "x-request-id",
    epoch_ == 0 ? request_.id.text() : request_.id.text() + "-" + std::to_string(epoch_));
  question.body_begin
    = {request_.body, std::string_view{*request_.body}.substr(0, asked->body.kept)};
  question.body = std::move(asked->body.rest);
  auto prompt_max = question.body_begin.text.size() + question.body.size(); // of a byte each
  if (engine.context_tokens > 0)
    prompt_max = std::min<std::size_t>(prompt_max, engine.context_tokens);
  event_max_ = event_max + id_bytes * prompt_max;
  question.max_body_bytes = request_.wish.stream ? SIZE_MAX : reply_max;
  question.stream = request_.wish.stream;
  answer_.emplace(engine.pulse, stream_.prompt_tokens(), last_progress_);
  engine.common->trouble.on_asked(last_progress_);
  call_ = table_.services().pool.send(std::move(question), *this);
}

void relay_session::on_head(const net::http_reply& head) {
  phase_ = phase::reading;
  last_progress_ = table_.now();
  reply_ = head;
  if (auto coding = header(head, "content-encoding"); !coding.empty() && coding != "identity")
    return lose_engine(
      {errc::bad_message, "the engine compressed its answer, which nobody asked for"});
  if (
    head.status == 200 && request_.wish.stream
    && header(head, "content-type").starts_with("text/event-stream"))
    events_.emplace(event_max_);
}

void relay_session::on_body(std::string_view piece) {
  if (!events_)
    return on_whole_body(piece);
  bool alive = true;
  auto fed = events_->feed(
    piece, [&](const net::stream_event& event) { alive = alive && on_event(event.data); });
  if (alive && !fed)
    lose_engine(
      {errc::bad_message, "the engine's stream is no event stream: " + fed.error().context});
}

void relay_session::on_whole_body(std::string_view piece) {
  bool answers = !request_.wish.stream && reply_.status < 400;
  if (!answers && reply_.body.size() + piece.size() > refusal_max)
    return lose_engine(
      {errc::bad_message, request_.wish.stream ? "the engine's answer is no stream, and too long"
                                               : "the engine's refusal is too long"});
  reply_.body += piece;
  if (reply_.body.capacity() <= counted_reply || held_reply_.grow_to(reply_.body.capacity()))
    return;
  log::gateway.warn(
    "replies-full", "no room for a reply of more than {} bytes to {}", reply_.body.size(),
    request_.id.text());
  drop_reply();
  fail( // no other engine would help, and this one is not to blame
    {errc::bad_message,
     "the engine's answer is too long for what the gateway can hold of all answers now"});
}

void relay_session::drop_reply() {
  reply_ = {};
  held_reply_.clear();
}

/// False when this engine's stream is over.
bool relay_session::on_event(std::string_view data) {
  auto before = stream_.output_tokens();
  auto said_before = stream_.progress();
  switch (stream_.on_event(table_.chunks(), data, out_)) {
    case relay_stream::verdict::go_on: break;
    case relay_stream::verdict::complete: complete(); return false;
    case relay_stream::verdict::failed: lose_engine(stream_.failure()); return false;
    case relay_stream::verdict::broken: on_broken(stream_.failure()); return false;
    case relay_stream::verdict::refused:
      reply_
        = {stream_.refusal_status(), {{"content-type", "application/json"}}, std::string{data}};
      call_.reset();
      on_refusal();
      return false;
  }
  if (stream_.waiting() > event_max_ * std::min(request_.wish.choices, 16u)) {
    lose_engine({errc::bad_message, "the engine goes on and on without a token"});
    return false;
  }
  auto now = table_.now();
  if (stream_.progress() != said_before) {
    last_progress_ = now;
    note_success(now);
    note_arrival();
  }
  if (stream_.output_tokens() == before)
    return true;
  if (!first_token_)
    first_token_ = now;
  else
    table_.services().probes.on_token_gap(now - last_token_);
  last_token_ = now;
  return true;
}

/// What came does not go with what the client has. If that is nothing yet, another engine can say
/// all of it.
void relay_session::on_broken(error why) { // a copy: it belongs to the stream
  if (head_sent_)
    return fail(why);
  out_.clear();
  stream_ = relay_stream{request_.wish};
  first_token_.reset();
  lose_engine(std::move(why));
}

void relay_session::on_pause() {
  if (events_)
    write_on();
  if (phase_ == phase::reading && move_ && !move_->left_at && stream_.may_leave())
    leave_by_plan();
}

/// The head waits for the first token, so that what fails before it has a status of its own.
void relay_session::queue() {
  if (out_.empty())
    return;
  if (!std::exchange(head_sent_, true))
    client_->begin_stream(
      200, {{"content-type", "text/event-stream; charset=utf-8"},
            {"cache-control", "no-cache"},
            {"x-accel-buffering", "no"},
            {"x-request-id", request_.id.text()}});
  client_->write(out_);
  out_.clear();
}

void relay_session::write_on() {
  if (out_.empty())
    return;
  queue();
  client_->flush(); // may find the client gone
  if (phase_ == phase::over || held_ || client_->backlog() <= backlog_high || !call_)
    return;
  held_ = true;
  call_->hold();
}

void relay_session::on_drained() {
  if (!std::exchange(held_, false) || !call_)
    return;
  last_progress_ = table_.now(); // it could say nothing meanwhile
  call_->resume();
}

void relay_session::on_end(const error& failure) {
  call_.reset();
  auto code = failure.code == errc::too_long ? errc::bad_message : failure.code; // not the client's
  if (code != errc::ok)
    return lose_engine({code, without_address(failure.context)});
  if (events_ && stream_.on_end(table_.chunks(), out_))
    return complete();
  if (events_)
    return lose_engine({errc::disconnected, "the engine ended the stream before its output"});
  on_whole_reply();
}

/// What went wrong on the way to an engine, for clients: where that is is no business of theirs.
std::string relay_session::without_address(const std::string& text) const {
  const auto* engine = owner_ ? table_.services().engines.find(owner_->instance) : nullptr;
  if (!engine || !text.starts_with(engine->address + ": "))
    return text;
  return "the engine: " + text.substr(engine->address.size() + 2);
}

void relay_session::on_whole_reply() {
  auto status = reply_.status;
  if (status >= 400 && status < 600)
    return on_refusal();
  if (request_.wish.stream)
    return lose_engine({errc::bad_message, "the engine did not answer with a stream"});
  if (status != 200)
    return lose_engine({errc::bad_message, "the engine answered " + std::to_string(status)});
  auto read = read_whole_reply(reply_.body);
  if (!read)
    return lose_engine(read.error());
  if (read->choices != request_.wish.choices)
    return lose_engine(
      {errc::bad_message, "the engine was asked for " + std::to_string(request_.wish.choices)
                            + " outputs, and its reply holds " + std::to_string(read->choices)});
  last_token_ = table_.now();
  note_success(last_token_);
  auto known = wanted().tokens ? std::uint64_t{stream_.prompt_tokens()} : 0; // old vLLM tells none
  usage_ = read->usage.value_or(openai::usage{known, 0, 0});
  if (read->first_token) // else nobody knows when it came
    first_token_ = std::min(placed_at_ + *read->first_token, last_token_);
  answer_with(std::move(reply_), outcome_of(read->finish_reason), {errc::ok, {}});
}

/// The engine gave tokens.
void relay_session::note_success(time_point now) {
  if (!answer_->begun())
    if (auto* trouble = table_.services().engines.trouble(owner_->instance))
      trouble->on_success(answer_->asked_at());
  answer_->on_tokens(now);
}

void relay_session::give_up(const error& why) {
  if (phase_ != phase::over)
    fail(why);
}

void relay_session::sweep(time_point now) {
  const auto& config = table_.services().config;
  if (phase_ == phase::waiting && now >= retry_at_)
    return place();
  if (phase_ == phase::over)
    return;
  if (phase_ == phase::recalling)
    give_up_recalling(now);
  if (move_ && !move_->left_at && now - move_->asked_at > place_patience)
    settle_move("refused", "it came to no place from where another engine would repeat nothing");
  if (client_->backlog() > 0 && now - client_->stalled_since() > config.stalled_client) {
    log::gateway.info(
      "stalled-client", "{} of {} read nothing for too long", request_.id.text(), request_.client);
    client_->watch(nullptr);
    client_->abandon();
    return leave("the client read nothing for too long");
  }
  if (
    phase_ == phase::reading && events_ && stream_.begun() && !held_ && config.engine_silence > 0ms
    && now - last_progress_ > config.engine_silence)
    return lose_engine({errc::timeout, "the engine fell silent"});
  if (answer_ && !answer_->begun())
    leave_silent_engine(now);
}

void relay_session::complete() {
  call_.reset();
  queue();
  client_->end_stream();
  end(200, outcome_of(stream_.finish_reason()), {errc::ok, {}});
}

/// Inside a stream there is no status left to say it with: an error event, and no [DONE], so that
/// half an answer is not taken for a whole one.
void relay_session::fail(const error& why) {
  call_.reset();
  auto failure = openai::to_api_error(why);
  if (head_sent_ && failure.status < 502) // whatever the request asks for, an engine failed it
    failure = openai::to_api_error({errc::disconnected, why.context});
  if (!head_sent_)
    return answer_with(openai::error_reply(failure, request_.id.text()), "failed", why);
  openai::chunk_writer::write_error(out_, openai::render_error(failure));
  queue();
  client_->end_stream();
  end(failure.status, "failed", why);
}

/// The engine's answer as it came, but for what concerns one connection only.
void relay_session::answer_with(net::http_reply reply, std::string outcome, const error& failure) {
  net::http_reply passed{reply.status, {}, std::move(reply.body)};
  passed.headers.reserve(3);
  if (auto type = header(reply, "content-type"); !type.empty())
    passed.headers.emplace_back("content-type", type);
  if (auto rest = header(reply, "retry-after"); !rest.empty())
    passed.headers.emplace_back("retry-after", rest);
  passed.headers.emplace_back("x-request-id", request_.id.text());
  auto status = passed.status;
  client_->reply(std::move(passed));
  end(status, std::move(outcome), failure);
}

void relay_session::on_gone() {
  leave("the client went away");
}

/// There is nobody left to answer.
void relay_session::leave(std::string_view why) {
  call_.reset(); // the engine hears of it by its socket
  end(499, "cancelled", {errc::cancelled, std::string{why}});
}

void relay_session::end(int status, std::string outcome, const error& failure) {
  auto was = std::exchange(phase_, phase::over);
  if (was == phase::over)
    return;
  recall_.reset();
  answer_.reset();
  bool failed = failure.code != errc::ok && failure.code != errc::cancelled;
  settle_move(
    failed ? "failed" : "finished", failed ? failure.context : "it ended before it could be moved");
  auto& services = table_.services();
  if (was == phase::placing)
    services.port.withdraw(number_, epoch_);
  auto ref = services.self;
  ref.stream = number_;
  stream_times times;
  if (owner_)
    times.placed = placed_at_ - request_.arrived;
  if (first_token_) {
    times.first_token = *first_token_ - request_.arrived;
    if (request_.wish.choices == 1) // else tokens of several outputs come side by side
      times.last_token = last_token_ - request_.arrived;
  }
  services.port.closed(
    {.stream = ref,
     .text_id = request_.id.text(),
     .outcome = std::move(outcome),
     .failure = failure,
     .prompt_tokens = prompt_tokens(),
     .output_tokens = output_tokens(),
     .placements = placements_,
     .times = times});
  request_outcome told{
    .status = status,
    .input_tokens = prompt_tokens(),
    .output_tokens = output_tokens(),
    .duration = table_.now() - request_.arrived,
    .first_token = times.first_token};
  services.probes.on_ended(told);
  table_.free_later(*this);
}

stream_info relay_session::info(time_point now) const {
  auto ref = table_.services().self;
  ref.stream = number_;
  const char* state = move_                     ? "moving"
                      : first_token_            ? "running"
                      : placements_ > 1         ? "replaying"
                      : phase_ >= phase::asking ? "prefilling"
                                                : "queued";
  return {
    .text_id = request_.id.text(),
    .stream = ref,
    .instance = owner_ ? owner_->instance : instance_id{},
    .state = state,
    .epoch = epoch_,
    .prompt_tokens = stream_.prompt_tokens(),
    .output_tokens = stream_.output_tokens(),
    .age_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - request_.arrived).count(),
    .client = request_.client};
}

} // namespace llumnix::relay
