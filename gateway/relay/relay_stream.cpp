#include "gateway/relay/relay_stream.hpp"

#include "gateway/openai/json_text.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::relay {

namespace {

constexpr std::uint32_t tokens_max = 1u << 24; // of a request without a limit: beyond any context
constexpr std::uint32_t idle_events_max = 1u << 16; // in a row, however fast they come
constexpr std::size_t text_max = std::size_t{256} << 20;
constexpr std::size_t waiting_max = 64 * 1024; // of tokens without a text

bool says_something(const chunk_choice& choice) {
  return !choice.text.empty() || !choice.ids.empty() || !choice.finish_reason.empty()
         || choice.other_delta;
}

/// A token that its engine makes something of that it does not show yet, as the one that begins a
/// tool call or a thought. vLLM sends such a chunk for its id alone, where ids were asked for.
bool is_kept_back(const chunk_choice& choice) {
  return choice.bare && !choice.ids.empty() && choice.finish_reason.empty();
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
}

/// The beginning of what an engine says, for people.
std::string clipped(std::string_view text) {
  constexpr std::size_t most = 300;
  auto end = std::min(text.size(), most);
  while (end < text.size() && end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end; // inside a character
  return std::string{text.substr(0, end)} + (end < text.size() ? "..." : "");
}

} // namespace

std::optional<std::uint32_t> limit_of(const relay_request& request) {
  if (request.max_tokens || request.kind != openai::endpoint::completions)
    return request.max_tokens;
  return default_max_tokens;
}

relay_stream::relay_stream(const relay_request& request)
  : request_{&request}, prompt_tokens_{request.prompt_tokens} {}

relay_stream::verdict
relay_stream::on_event(chunk_reader& reader, std::string_view data, std::string& out) {
  auto read = reader.read(data, hides_usage_, request_->kind == openai::endpoint::tokens);
  if (!read)
    return fail(errc::bad_message, "the engine sent what is no chunk: " + read.error().context);
  const auto& facts = **read;
  switch (facts.kind) {
    case chunk_facts::type::error:
      refusal_status_ = facts.error_status;
      return fail(
        errc::internal, "the engine reports: " + clipped(facts.error_message),
        begun_ ? verdict::failed : verdict::refused);
    case chunk_facts::type::done:
      if (ended_.size() < request_->choices)
        return fail(errc::disconnected, "the engine ended the stream before its output");
      show_held_usage(reader, out);
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

bool relay_stream::on_end(chunk_reader& reader, std::string& out) {
  if (!begun_ || ended_.size() < request_->choices)
    return false;
  show_held_usage(reader, out);
  if (request_->include_usage && !usage_shown_)
    return false;
  openai::chunk_writer::write_done(out);
  return true;
}

relay_stream::verdict relay_stream::on_tokens(
  chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out) {
  for (const auto& choice : facts.choices) {
    if (choice.index >= request_->choices)
      return fail(errc::bad_message, "the engine speaks of a choice nobody asked for");
    if (choice.finish_reason == "abort")
      return fail(errc::disconnected, "the engine gave the request up");
  }
  auto late = count_late(facts);
  if (late > 0 && late == facts.choices.size())
    return verdict::go_on; // whatever it is, the output is whole without it
  if (late > 0)
    return fail(errc::bad_message, "the engine goes on behind the end of an output");
  if (exceeds_limit(facts))
    return fail(
      errc::bad_message, "the engine says more than it was asked for",
      showed_some() ? verdict::broken : verdict::failed);
  note_progress(facts);
  if (idle_events_ > idle_events_max)
    return fail(errc::bad_message, "the engine goes on and on and says nothing");
  if (facts.kind == chunk_facts::type::usage)
    return on_usage(reader, facts, data, out);
  return translator_ ? continue_with(reader, facts, out) : begin_with(reader, facts, data, out);
}

/// A usage that comes before the output has ended is the last word only if no other follows.
relay_stream::verdict relay_stream::on_usage(
  chunk_reader& reader, const chunk_facts& facts, std::string_view data, std::string& out) {
  if (hides_usage_ && !request_->include_usage)
    return verdict::go_on;
  if (ended_.size() < request_->choices) {
    held_usage_ = data;
    return verdict::go_on;
  }
  held_usage_.clear();
  if (std::exchange(usage_shown_, begun_) && translator_)
    return verdict::go_on;
  return translator_ ? continue_with(reader, facts, out) : begin_with(reader, facts, data, out);
}

void relay_stream::show_held_usage(chunk_reader& reader, std::string& out) {
  auto data = std::exchange(held_usage_, {});
  if (data.empty())
    return;
  if (auto read = reader.read(data, hides_usage_, request_->kind == openai::endpoint::tokens))
    on_usage(reader, **read, data, out);
}

/// Whether these tokens are more than the request allows. Where ids are not told a text may come in
/// more pieces than it has tokens: there only what is far beyond is noticed.
bool relay_stream::exceeds_limit(const chunk_facts& facts) const {
  auto limit = std::uint64_t{request_->max_tokens.value_or(tokens_max)};
  if (!request_->single_use.empty()) // it may be told its prompt, too (`echo`)
    limit += 4 * std::uint64_t{request_->prompt_tokens} + 64;
  limit *= request_->choices;
  std::uint64_t more = 0;
  for (const auto& choice : facts.choices)
    more += choice.ids.size();
  if (shown_.size() > text_max)
    return true;
  if (more > 0)
    return (translator_ ? kept_ + told_ : ids_.size()) + more > limit;
  return output_tokens_ > 2 * limit + 64;
}

/// Whether the client has something of the engine that speaks now: where that says too much, it may
/// have said some of it twice.
bool relay_stream::showed_some() const {
  return translator_ ? told_ > 0 || text_tokens_ > kept_ : begun_;
}

/// Choices that say something though their output has ended.
std::size_t relay_stream::count_late(const chunk_facts& facts) const {
  auto late = [this](const chunk_choice& choice) {
    return says_something(choice) && has_ended(choice.index);
  };
  return static_cast<std::size_t>(
    std::count_if(facts.choices.begin(), facts.choices.end(), late));
}

bool relay_stream::has_ended(std::uint32_t choice) const {
  return std::binary_search(ended_.begin(), ended_.end(), choice);
}

/// If this is the end of an output. Whether the client had seen one before, that of another engine.
bool relay_stream::note_end(std::uint32_t choice, std::string_view reason) {
  if (reason.empty())
    return false;
  if (!has_ended(choice))
    ended_.insert(std::upper_bound(ended_.begin(), ended_.end(), choice), choice);
  bool before = std::exchange(end_shown_, true) && translator_;
  if (!before)
    finish_reason_ = reason;
  return before;
}

void relay_stream::note_progress(const chunk_facts& facts) {
  bool says = std::any_of(facts.choices.begin(), facts.choices.end(), says_something);
  if (facts.usage) {
    auto so_far = counts(*facts.usage);
    prompt_tokens_ = static_cast<std::uint32_t>(so_far.prompt_tokens);
    auto tokens = static_cast<std::uint32_t>(so_far.completion_tokens);
    says |= tokens > output_tokens_;
    output_tokens_ = std::max(output_tokens_, tokens);
  }
  progress_ += says;
  idle_events_ = says ? 0 : idle_events_ + 1;
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
  bool kept_back = !facts.choices.empty();
  for (const auto& choice : facts.choices) {
    begun_ |= begins(choice);
    kept_back &= is_kept_back(choice);
  }
  if (!begun_ && pending_.size() > waiting_max && !ids_.empty())
    begun_ = other_delta_ = true; // long reasoning that is not shown
  bool unasked = hides_ids_ && !request_->logprobs; // vLLM would not have sent it
  if (!kept_back || !unasked)
    reader.append_as_sent(begun_ ? out += std::exchange(pending_, {}) : pending_, hides_ids_);
  note_tokens(facts);
  return verdict::go_on;
}

/// Whether with this there is something to go on from. A chat's token without a text may belong to
/// what its engine takes out of it, which shows later: until then all can be asked for anew.
bool relay_stream::begins(const chunk_choice& choice) const {
  if (request_->kind != openai::endpoint::chat || request_->wants_token_ids)
    return !choice.role_only;
  return !choice.text.empty() || choice.other_delta || !choice.finish_reason.empty();
}

void relay_stream::note_tokens(const chunk_facts& facts) {
  for (const auto& choice : facts.choices) {
    other_delta_ |= choice.other_delta || is_kept_back(choice);
    note_end(choice.index, choice.finish_reason);
    ids_.insert(ids_.end(), choice.ids.begin(), choice.ids.end());
    count_text(facts, choice);
    shown_ += choice.text;
    if (is_place(choice))
      add_point(choice);
  }
}

/// By ids where all are told; else by the usage, or by what this event says of it.
void relay_stream::count_text(const chunk_facts& facts, const chunk_choice& choice) {
  bool text_alone = choice.ids.empty() && !choice.text.empty()
                    && request_->kind != openai::endpoint::tokens; // there it was held back
  if (text_alone) {
    ids_known_ = false;
    counted_ &= facts.usage.has_value();
  }
  if (!ids_known_) {
    auto before = translator_ ? 0 : ids_.size() - choice.ids.size();
    auto more = text_alone ? 1 : choice.ids.size();
    text_tokens_
      = facts.usage
          ? static_cast<std::uint32_t>(counts(*facts.usage).completion_tokens)
          : static_cast<std::uint32_t>(std::max<std::size_t>(text_tokens_, before) + more);
  }
  output_tokens_
    = std::max(output_tokens_, ids_known_ ? static_cast<std::uint32_t>(ids_.size()) : text_tokens_);
}

/// Whether an engine could go on behind this. What ends an output is no such place: it may be a
/// token without text.
bool relay_stream::is_place(const chunk_choice& choice) const {
  if (!choice.finish_reason.empty())
    return false;
  return request_->without_text ? !choice.ids.empty() && !request_->unseen_stops
                                : !choice.text.empty();
}

/// An engine shows the text of a token once its characters are whole: so where one token came with
/// its text nothing is open, while behind several the last may have begun a character.
void relay_stream::add_point(const chunk_choice& choice) {
  auto tokens = ids_known_ ? static_cast<std::uint32_t>(ids_.size()) : text_tokens_;
  bool whole = request_->without_text || choice.ids.size() <= 1;
  points_.push_back({tokens, static_cast<std::uint32_t>(shown_.size()), whole});
}

/// Another engine goes on: what it repeats is left out, the rest is shown as the stream that began.
relay_stream::verdict
relay_stream::continue_with(chunk_reader& reader, const chunk_facts& facts, std::string& out) {
  if (facts.choices.empty()) {
    translator_->append(
      out, reader, {}, counts(facts.usage.value_or(openai::usage{})), 0, translator::all);
    return verdict::go_on;
  }
  const auto& choice = facts.choices.front();
  return by_ids() ? continue_by_ids(reader, facts, choice.text, out)
                  : continue_by_text(reader, facts, choice.text, out);
}

relay_stream::verdict relay_stream::continue_by_ids(
  chunk_reader& reader, const chunk_facts& facts, std::string_view text, std::string& out) {
  const auto& choice = facts.choices.front();
  if (choice.ids.empty() && !text.empty() && request_->kind != openai::endpoint::tokens)
    return fail(errc::bad_message, "the engine that goes on tells no token ids");
  auto known = kept_ + told_ < ids_.size()
                 ? std::min<std::size_t>(ids_.size() - kept_ - told_, choice.ids.size())
                 : 0;
  if (!take_repeated(choice))
    return fail(
      errc::internal, "another engine computed other tokens than were delivered", verdict::broken);
  if (seam_)
    return continue_behind_seam(reader, facts, known, out);
  skip_prompt(text);
  if (!skip_shown(text))
    return fail(
      errc::internal, "another engine computed another text than was delivered", verdict::broken);
  bool repeated = known == choice.ids.size();
  bool ends = !choice.finish_reason.empty();
  shown_ += text;
  if (is_place(choice) && compared_ == shown_.size() && kept_ + told_ == ids_.size())
    add_point(choice);
  bool ended_before = note_end(choice.index, choice.finish_reason);
  if (!ended_before && (!text.empty() || ends || !repeated))
    translator_->append(
      out, reader, text, counts(facts.usage.value_or(openai::usage{prompt_tokens_, told_, 0})),
      offset_, repeated ? translator::all : known);
  return verdict::go_on;
}

/// It repeats at most tokens without a text, which nobody saw. Where a stop string that began
/// before the seam ends the output the engine does not know it: what is left to say is said here.
relay_stream::verdict relay_stream::continue_behind_seam(
  chunk_reader& reader, const chunk_facts& facts, std::size_t known, std::string& out) {
  const auto& choice = facts.choices.front();
  auto passed = seam_->pass(choice);
  bool engine_ends = !choice.finish_reason.empty();
  bool ends = engine_ends || !passed.stop.empty();
  bool repeated = known == choice.ids.size();
  shown_ += passed.text;
  compared_ = shown_.size();
  if (!ends && !choice.text.empty())
    add_point(choice);
  note_end(choice.index, passed.stop.empty() ? choice.finish_reason : "stop");
  if (!passed.text.empty() || ends || !repeated)
    translator_->append(
      out, reader, passed.text,
      counts(facts.usage.value_or(openai::usage{prompt_tokens_, told_, 0})), offset_,
      repeated ? translator::all : known, passed.stop);
  // Modulo 2^64: behind where text is held back anew the engine's characters are ahead.
  offset_ += openai::count_characters(passed.text) - openai::count_characters(choice.text);
  if (!ends || engine_ends)
    return verdict::go_on;
  finish(out);
  return verdict::complete;
}

relay_stream::verdict relay_stream::continue_by_text(
  chunk_reader& reader, const chunk_facts& facts, std::string_view text, std::string& out) {
  const auto& choice = facts.choices.front();
  if (choice.other_delta)
    return fail(
      errc::unsupported, "the engine that goes on parses tools or reasoning out of the text");
  count_text(facts, choice);
  told_ += static_cast<std::uint32_t>(choice.ids.size());
  if (!skip_shown(text))
    return fail(
      errc::internal, "another engine computed another text than was delivered", verdict::broken);
  bool ends = !choice.finish_reason.empty();
  shown_ += text;
  if (!ends && !choice.text.empty() && compared_ == shown_.size())
    add_point(choice);
  bool ended_before = note_end(choice.index, choice.finish_reason);
  if (!ended_before && (!text.empty() || ends))
    translator_->append(
      out, reader, text, counts(facts.usage.value_or(openai::usage{})), offset_, translator::all);
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
      while (!points_.empty() && points_.back().tokens > at)
        points_.pop_back();
    }
    if (at == ids_.size())
      ids_.push_back(id);
  }
  output_tokens_ = std::max(output_tokens_, static_cast<std::uint32_t>(ids_.size()));
  return true;
}

/// An engine that goes on within a character may tell all text from the prompt on with its end
/// (vLLM's incremental decoding does): the delivered text is in it, then the character, of more
/// bytes than one, and what is new.
void relay_stream::skip_prompt(std::string_view& text) {
  if (text.empty())
    return;
  auto delivered = std::string_view{shown_}.substr(0, std::exchange(open_text_, 0));
  auto at = delivered.empty() ? std::string_view::npos : text.rfind(delivered);
  if (at == std::string_view::npos)
    return;
  auto behind = text.substr(at + delivered.size());
  if (!behind.empty() && (static_cast<unsigned char>(behind.front()) & 0x80) != 0)
    text = behind;
}

/// Takes off the front of `text` what was shown before; false if it differs. Blanks may differ
/// where only the text is known: what another engine makes of the place need not begin with the
/// same.
bool relay_stream::skip_shown(std::string_view& text) {
  auto before = std::string_view{shown_}.substr(compared_);
  auto most = std::min(text.size(), before.size());
  auto same = static_cast<std::size_t>(
    std::mismatch(text.begin(), text.begin() + most, before.begin()).first - text.begin());
  bool differs = same < most;
  if (differs && (by_ids() || !is_blank(before)))
    return false;
  text.remove_prefix(same);
  compared_ = (differs ? shown_.size() : compared_ + same) + text.size(); // as will have been shown
  return true;
}

/// What an engine's usage means for the whole stream.
openai::usage relay_stream::counts(const openai::usage& told) const {
  if (!translator_)
    return told;
  auto prompt = by_ids() ? prompt_ids_.size() : prompt_tokens_;
  return {prompt, kept_ + told.completion_tokens, told.cached_tokens};
}

relay_stream::verdict relay_stream::fail(errc code, std::string why, verdict what) {
  failure_ = {code, std::move(why)};
  return what;
}

} // namespace llumnix::relay
