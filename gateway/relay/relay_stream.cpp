#include "gateway/relay/relay_stream.hpp"

#include "gateway/openai/json_text.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace llumnix::relay {

namespace {

/// The byte `characters` further on in UTF-8 text, or nothing where it ends before.
std::optional<std::size_t>
advance(std::string_view text, std::size_t from, std::uint32_t characters) {
  for (; characters > 0; --characters) {
    auto length = openai::utf8_sequence(text.substr(from));
    if (length == 0)
      return std::nullopt;
    from += length;
  }
  return from;
}

} // namespace

relay_stream::relay_stream(const relay_request& request)
  : request_{&request}, prompt_tokens_{request.prompt_tokens} {}

relay_stream::verdict
relay_stream::on_event(chunk_reader& reader, std::string_view data, std::string& out) {
  auto read = reader.read(data);
  if (!read)
    return fail(errc::bad_message, "the engine sent what is no chunk: " + read.error().context);
  const auto& facts = **read;
  switch (facts.kind) {
    case chunk_facts::type::error:
      return fail(errc::internal, "the engine reports: " + facts.error_message);
    case chunk_facts::type::done:
      if (finished_ < request_->choices)
        return fail(errc::disconnected, "the engine ended the stream before its output");
      out += pending_;
      openai::chunk_writer::write_done(out);
      return verdict::complete;
    case chunk_facts::type::usage:
    case chunk_facts::type::tokens: break;
  }
  if (engine_id_.empty())
    engine_id_ = facts.id;
  else if (facts.id != engine_id_)
    return fail(errc::bad_message, "the engine changed the id of the stream");
  return on_tokens(reader, facts, data, out);
}

relay_stream::verdict relay_stream::on_tokens(
  chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out) {
  for (const auto& choice : facts.choices) {
    if (choice.index >= request_->choices)
      return fail(errc::bad_message, "the engine speaks of a choice nobody asked for");
    if (choice.finish_reason == "abort")
      return fail(errc::disconnected, "the engine gave the request up");
  }
  if (facts.usage) {
    auto so_far = counts(*facts.usage);
    prompt_tokens_ = static_cast<std::uint32_t>(so_far.prompt_tokens);
    output_tokens_ = std::max(output_tokens_, static_cast<std::uint32_t>(so_far.completion_tokens));
  }
  return translator_ ? continue_with(reader, facts, out) : begin_with(reader, facts, data, out);
}

/// The engine that began: its bytes are passed on.
relay_stream::verdict relay_stream::begin_with(
  chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out) {
  if (first_.empty())
    first_ = data;
  if (facts.prompt_ids && request_->choices == 1) {
    prompt_ids_ = *facts.prompt_ids;
    prompt_tokens_ = static_cast<std::uint32_t>(prompt_ids_.size());
  }
  bool holds_token = facts.choices.empty() && begun_;
  for (const auto& choice : facts.choices)
    holds_token |= !choice.role_only || !choice.ids.empty() || !choice.finish_reason.empty();
  reader.append_as_sent(holds_token ? out += std::exchange(pending_, {}) : pending_, *request_);
  begun_ |= holds_token;
  note_tokens(facts);
  return verdict::go_on;
}

void relay_stream::note_tokens(const chunk_facts& facts) {
  for (const auto& choice : facts.choices) {
    other_delta_ |= choice.other_delta;
    finished_ += !choice.finish_reason.empty();
    end_shown_ |= !choice.finish_reason.empty();
    if (choice.ids.empty() && !choice.text.empty()) {
      ids_known_ = false;
      ++output_tokens_;
    }
    ids_.insert(ids_.end(), choice.ids.begin(), choice.ids.end());
    if (ids_known_)
      output_tokens_ = std::max(output_tokens_, static_cast<std::uint32_t>(ids_.size()));
    shown_ += choice.text;
    if (choice.text.empty() || !choice.finish_reason.empty())
      continue; // what ends an output is no place to go on from: it may be a token without text
    points_.push_back(
      {static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(shown_.size())});
  }
}

result<resumption> relay_stream::resume() {
  engine_id_.clear();
  if (!begun_) {
    *this = relay_stream{*request_};
    return resumption{};
  }
  if (!request_->single_use.empty())
    return error{
      errc::unsupported, "no engine can go on with a request that has '"
                           + std::string{request_->single_use} + "' once tokens were delivered"};
  if (other_delta_)
    return error{
      errc::unsupported,
      "no engine can go on with a text that its engine parsed tools or reasoning out of"};
  if (!ids_known_ || prompt_ids_.empty())
    return error{
      errc::unsupported, "the engine told no token ids, so no other can go on from the last"};
  if (!translator_)
    translator_.emplace(*request_, first_);
  auto from = place_to_go_on();
  kept_ = from.tokens;
  told_ = 0;
  compared_ = *advance(shown_, from.bytes, from.bytes == 0 ? 0 : request_->held_back);
  finished_ = 0;
  resumption next{false, prompt_ids_, kept_};
  next.ids.insert(next.ids.end(), ids_.begin(), ids_.begin() + kept_);
  return next;
}

/// The last point behind which a stop string that began before it would have been found already,
/// and which leaves at least one token to ask for. At a point with `held_back` characters the
/// tokens say so many more than was shown.
relay_stream::point relay_stream::place_to_go_on() const {
  constexpr std::uint32_t default_of_completions = 16;
  auto limit = request_->max_tokens.value_or(
    request_->kind == openai::endpoint::completions ? default_of_completions
                                                    : std::numeric_limits<std::uint32_t>::max());
  for (auto at = points_.rbegin(); at != points_.rend(); ++at)
    if (at->tokens < limit && advance(shown_, at->bytes, request_->stop_reach))
      return *at;
  return {};
}

/// Another engine goes on: what it repeats is left out, the rest is shown as the stream that began.
relay_stream::verdict
relay_stream::continue_with(chunk_reader& reader, const chunk_facts& facts, std::string& out) {
  if (facts.choices.empty()) {
    translator_->append(out, reader, {}, counts(facts.usage.value_or(openai::usage{})), 0, true);
    return verdict::go_on;
  }
  const auto& choice = facts.choices.front();
  if (choice.ids.empty() && !choice.text.empty())
    return fail(errc::bad_message, "the engine that goes on tells no token ids");
  auto known = kept_ + told_ < ids_.size()
                 ? std::min<std::size_t>(ids_.size() - kept_ - told_, choice.ids.size())
                 : 0;
  if (!take_repeated(choice))
    return fail(
      errc::internal, "another engine computed other tokens than were delivered", verdict::broken);
  std::string_view text = choice.text;
  if (!skip_shown(text))
    return fail(
      errc::internal, "another engine computed another text than was delivered", verdict::broken);
  bool repeated = known == choice.ids.size();
  if (known > 0 && !repeated && (request_->wants_token_ids || request_->logprobs))
    return fail(
      errc::internal, "what another engine sends cannot be cut between two tokens",
      verdict::broken);
  bool ends = !choice.finish_reason.empty();
  auto offset = openai::count_characters(std::string_view{shown_});
  shown_ += text;
  if (!ends && !choice.text.empty() && compared_ == shown_.size() && kept_ + told_ == ids_.size())
    points_.push_back(
      {static_cast<std::uint32_t>(ids_.size()), static_cast<std::uint32_t>(shown_.size())});
  finished_ += ends;
  bool ended_before = ends && std::exchange(end_shown_, true);
  if (!ended_before && (!text.empty() || ends || !repeated))
    translator_->append(
      out, reader, text, counts(facts.usage.value_or(openai::usage{prompt_tokens_, told_, 0})),
      offset, repeated);
  return verdict::go_on;
}

/// Tokens told before must be the same where the client has seen them; where it has not, they are
/// what counts now.
bool relay_stream::take_repeated(const chunk_choice& choice) {
  for (auto id : choice.ids) {
    auto at = kept_ + told_++;
    if (at < ids_.size() && ids_[at] != id) {
      if (request_->wants_token_ids || request_->logprobs)
        return false;
      ids_.resize(at);
    }
    if (at == ids_.size())
      ids_.push_back(id);
  }
  output_tokens_ = std::max(output_tokens_, static_cast<std::uint32_t>(ids_.size()));
  return true;
}

/// Takes off the front of `text` what was shown before; false if it differs.
bool relay_stream::skip_shown(std::string_view& text) {
  auto repeated = std::min(text.size(), shown_.size() - compared_);
  if (std::string_view{shown_}.substr(compared_, repeated) != text.substr(0, repeated))
    return false;
  text.remove_prefix(repeated);
  compared_ += repeated + text.size(); // what is left will have been shown
  return true;
}

/// What an engine's usage means for the whole stream.
openai::usage relay_stream::counts(const openai::usage& told) const {
  if (!translator_)
    return told;
  return {prompt_ids_.size(), kept_ + told.completion_tokens, told.cached_tokens};
}

relay_stream::verdict relay_stream::fail(errc code, std::string why, verdict what) {
  failure_ = {code, std::move(why)};
  return what;
}

} // namespace llumnix::relay
