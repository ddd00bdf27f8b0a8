#include "apps/load/reply_check.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace llumnix::load {

namespace {

using json = nlohmann::json;

constexpr std::size_t event_bytes_max = 1 << 20;
constexpr std::size_t reply_bytes_max = 64 << 20;

/// A member of an object, or null where there is none.
const json& member(const json& object, const char* name) {
  static const json nothing;
  if (!object.is_object())
    return nothing;
  auto found = object.find(name);
  return found == object.end() ? nothing : *found;
}

std::string_view text_of(const json& value) {
  return value.is_string() ? std::string_view{value.get_ref<const std::string&>()}
                           : std::string_view{};
}

/// The short name of a server's error: a code out of few, never a sentence, so that failures can be
/// counted.
std::string name_of(const json& error) {
  const auto& code = member(error, "code");
  if (code.is_string() && !text_of(code).empty())
    return std::string{text_of(code).substr(0, 64)};
  if (code.is_number_integer())
    return std::to_string(code.get<int>());
  return std::string{text_of(member(error, "type")).substr(0, 64)};
}

} // namespace

reply_check::reply_check(
  const planned_request& request, const pattern_options& options, bool verify,
  std::optional<std::uint32_t> model_length, time_point due, load_stats& stats)
  : stats_{stats},
    due_{due},
    chat_{options.chat},
    stream_{options.stream},
    verify_{verify},
    index_{request.index},
    choices_(options.choices) {
  if (!verify)
    return;
  auto expected = chat_ ? expect_chat(request.prompt) : expect_completion(request.prompt);
  expected.max_tokens = request.max_tokens;
  if (model_length && *model_length > expected.length)
    expected.max_tokens
      = std::min(expected.max_tokens, static_cast<std::uint32_t>(*model_length - expected.length));
  expected.ignore_eos = options.ignore_eos;
  prompt_tokens_ = expected.length;
  for (std::uint32_t choice = 0; choice < options.choices; ++choice) {
    expected.key = sampling_key(request.seed, choice);
    choices_[choice].checker.emplace(expected);
  }
}

void reply_check::on_head(int status, std::string_view request_id, bool event_stream) {
  status_ = status;
  request_id_ = request_id;
  if (status == 200 && event_stream != stream_)
    fail(stream_ ? "answered without a stream" : "answered with a stream");
}

void reply_check::on_body(std::string_view piece, time_point now) {
  if (!stream_ || status_ != 200) {
    if (buffer_.size() + piece.size() <= reply_bytes_max)
      buffer_.append(piece);
    else
      fail("reply too large");
    return;
  }
  while (!piece.empty()) {
    auto end = piece.find('\n');
    if (buffer_.size() + event_.size() + std::min(end, piece.size()) > event_bytes_max)
      return fail("event too large");
    if (end == std::string_view::npos) {
      buffer_.append(piece);
      return;
    }
    if (buffer_.empty())
      on_line(piece.substr(0, end), now);
    else {
      buffer_.append(piece.substr(0, end));
      on_line(buffer_, now);
      buffer_.clear();
    }
    piece.remove_prefix(end + 1);
  }
}

void reply_check::on_line(std::string_view line, time_point now) {
  if (line.ends_with('\r'))
    line.remove_suffix(1);
  if (line.empty()) {
    if (!event_.empty())
      on_event(event_, now);
    event_.clear();
    return;
  }
  if (!line.starts_with("data:"))
    return; // a comment or a field that this protocol does not use
  line.remove_prefix(5);
  if (line.starts_with(' '))
    line.remove_prefix(1);
  if (!event_.empty())
    event_.push_back('\n');
  event_.append(line);
}

void reply_check::on_event(std::string_view data, time_point now) {
  if (done_)
    return fail("event after [DONE]");
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  auto document = json::parse(data, nullptr, false);
  if (document.is_discarded())
    return fail("event is not JSON");
  on_document(document, false, now);
}

void reply_check::on_document(const json& document, bool whole, time_point now) {
  if (const auto& error = member(document, "error"); !error.is_null())
    return on_error(error);
  const auto& choices = member(document, "choices");
  if (!choices.is_array())
    return fail("no choices in the answer");
  for (const auto& choice : choices)
    on_choice(choice, whole, now);
  if (const auto& usage = member(document, "usage"); usage.is_object())
    on_usage(usage);
}

void reply_check::on_choice(const json& choice, bool whole, time_point now) {
  const auto& number = member(choice, "index");
  auto index = number.is_number_unsigned() ? number.get<std::uint64_t>() : choices_.size();
  if (index >= choices_.size())
    return fail("a choice nobody asked for");
  auto& state = choices_[index];
  auto at = static_cast<std::uint32_t>(index);
  const char* part = whole ? "message" : "delta";
  auto text = text_of(chat_ ? member(member(choice, part), "content") : member(choice, "text"));
  if (!text.empty())
    on_text(state, at, text, now);
  const auto& reason = member(choice, "finish_reason");
  if (!reason.is_string())
    return;
  if (state.ended)
    return wrong(
      at, {state.checker ? state.checker->tokens() : 0, "nothing after the end", "another end"});
  state.ended = true;
  if (state.checker && !outcome_.has_wrong)
    if (auto bad = state.checker->finish(text_of(reason)))
      wrong(at, std::move(*bad));
}

void reply_check::on_text(
  choice_state& choice, std::uint32_t index, std::string_view text, time_point now) {
  ++pieces_;
  if (any_text_ && stream_)
    stats_.gap(now - last_text_);
  if (!any_text_)
    first_text_ = now;
  any_text_ = true;
  last_text_ = now;
  if (choice.ended)
    return wrong(
      index, {choice.checker ? choice.checker->tokens() : 0, "nothing after the end",
              std::string{text.substr(0, 24)}});
  if (choice.checker && !outcome_.has_wrong)
    if (auto bad = choice.checker->feed(text))
      wrong(index, std::move(*bad));
}

void reply_check::on_usage(const json& usage) {
  auto number = [&](const char* name) -> std::optional<std::uint64_t> {
    const auto& value = member(usage, name);
    if (!value.is_number_unsigned())
      return std::nullopt;
    return value.get<std::uint64_t>();
  };
  usage_prompt_ = number("prompt_tokens");
  usage_output_ = number("completion_tokens");
}

void reply_check::on_error(const json& error) {
  fail("error event " + name_of(error));
}

void reply_check::fail(std::string why) {
  if (outcome_.failure.empty())
    outcome_.failure = std::move(why);
}

void reply_check::wrong(std::uint32_t choice, mismatch what) {
  if (!verify_)
    return fail("output after its end");
  fail("wrong output");
  if (outcome_.has_wrong)
    return; // what follows the first wrong token is wrong because of it
  outcome_.has_wrong = true;
  outcome_.wrong = {request_id_, index_, choice, std::move(what)};
}

void reply_check::check_completeness() {
  if (stream_ && !done_) {
    outcome_.stream_broken = true;
    return fail("stream ended without [DONE]");
  }
  if (!outcome_.failure.empty())
    return;
  std::uint64_t produced = 0;
  for (std::uint32_t i = 0; i < choices_.size(); ++i) {
    auto& choice = choices_[i];
    produced += choice.checker ? choice.checker->tokens() : 0;
    if (!choice.ended)
      wrong(i, {choice.checker ? choice.checker->tokens() : 0, "a finish_reason", "none"});
  }
  if (!verify_ || !outcome_.failure.empty())
    return;
  auto told
    = [](std::optional<std::uint64_t> value) { return value ? std::to_string(*value) : "none"; };
  if (usage_output_ != produced)
    wrong(
      0, {static_cast<std::uint32_t>(produced),
          "usage of " + std::to_string(produced) + " completion tokens", told(usage_output_)});
  else if (usage_prompt_ != prompt_tokens_)
    wrong(
      0, {0, "usage of " + std::to_string(prompt_tokens_) + " prompt tokens", told(usage_prompt_)});
}

request_outcome reply_check::finish(std::string_view failure, time_point now) {
  bool began = status_ == 200;
  if (!failure.empty()) {
    outcome_.stream_broken = began && stream_ && !done_;
    fail(outcome_.stream_broken ? "stream broken: " + std::string{failure} : std::string{failure});
  } else if (!began) {
    auto document = json::parse(buffer_, nullptr, false);
    auto name = name_of(member(document, "error"));
    fail("HTTP " + std::to_string(status_) + (name.empty() ? "" : " " + name));
  } else {
    if (!stream_ && outcome_.failure.empty()) {
      auto document = json::parse(buffer_, nullptr, false);
      if (document.is_discarded())
        fail("reply is not JSON");
      else
        on_document(document, true, now);
    }
    check_completeness();
  }
  outcome_.prompt_tokens = usage_prompt_.value_or(began ? prompt_tokens_ : 0);
  outcome_.output_tokens = usage_output_.value_or(pieces_);
  for (const auto& choice : choices_)
    outcome_.checked_tokens += choice.checker && began ? choice.checker->tokens() : 0;
  outcome_.end_to_end = now - due_;
  if (any_text_ && stream_) {
    outcome_.first_token = first_text_ - due_;
    auto each = outcome_.output_tokens / choices_.size();
    if (each > 1)
      outcome_.per_token = (last_text_ - first_text_) / static_cast<std::int64_t>(each - 1);
  }
  return std::move(outcome_);
}

} // namespace llumnix::load
