#include "gateway/openai/json_text.hpp"
#include "gateway/relay/relay_stream.hpp"

#include <algorithm>
#include <limits>
#include <span>
#include <utility>

/// Where an engine goes on with a stream that another one began.
namespace llumnix::relay {

namespace {

constexpr auto no_limit = std::numeric_limits<std::uint32_t>::max();
// Bytes of a delivered text by which it is known again; fewer may well come again by chance.
constexpr std::size_t telling = 4;

bool is_blank(char byte) {
  return std::string_view{" \t\r\n"}.find(byte) != std::string_view::npos;
}

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

bool relay_stream::finish(std::string& out) {
  bool usage = request_->include_usage && !usage_shown_;
  bool countable = by_ids() && request_->kind != openai::endpoint::tokens;
  if (!begun_ || ended_.size() < request_->choices || (usage && !countable))
    return false;
  if (usage)
    append_usage(out);
  openai::chunk_writer::write_done(out);
  return true;
}

/// What all tokens told come to.
void relay_stream::append_usage(std::string& out) {
  if (!translator_)
    translator_.emplace(*request_, first_);
  translator_->append_usage(out, {prompt_ids_.size(), ids_.size(), 0});
}

result<resumption> relay_stream::resume() {
  engine_id_.clear();
  held_usage_.clear();
  if (!begun_) {
    *this = relay_stream{*request_};
    return resumption{};
  }
  if (auto obstacle = why_no_other(); !obstacle.empty())
    return error{errc::unsupported, std::move(obstacle)};
  if (!translator_)
    translator_.emplace(*request_, first_);
  told_ = 0;
  idle_events_ = 0;
  ended_.clear();
  hidden_.reset();
  auto seam = std::exchange(seam_, std::nullopt);
  if (auto place = place_behind_all(); place.tokens > 0) {
    hidden_ = hidden_before(place, seam);
    if (place.whole && hidden_->characters == 0) // there is nothing to be found out
      return *resume_behind(hidden_->known.substr(hidden_->known.size() - hidden_->unseen));
  }
  auto from = place_within_character();
  if (from.tokens == 0)
    from = place_to_go_on();
  kept_ = text_tokens_ = from.tokens;
  compared_ = *advance(shown_, from.bytes, from.bytes == 0 ? 0 : request_->held_back);
  open_text_ = from.whole ? 0 : compared_;
  offset_ = openai::count_characters(std::string_view{shown_}.substr(0, compared_));
  if (!by_ids()) {
    ids_known_ = false; // also where only those of the prompt are missing
    return resumption{resumption::from::text, {}, shown_.substr(0, compared_), kept_};
  }
  return resumption{resumption::from::ids, told_so_far(), {}, kept_};
}

std::optional<resumption> relay_stream::resume_behind(std::optional<std::string> found) {
  auto hidden = std::exchange(hidden_, std::nullopt);
  if (!hidden || !found)
    return std::nullopt;
  return go_on_behind(hidden->behind, *found);
}

/// Behind all the tokens that the client has seen, or if it sees none behind the last one with a
/// text. No tokens where stop strings or what is shown do not ask for that, or it cannot be.
relay_stream::point relay_stream::place_behind_all() const {
  if (
    request_->stop_reach == 0 || !request_->may_show_stops || (request_->greedy && !shows_tokens())
    || !by_ids() || end_shown_)
    return {};
  auto at = points_.empty() ? point{} : points_.back();
  auto told = static_cast<std::uint32_t>(ids_.size());
  if (shows_tokens() && at.tokens < told)
    at = {told, static_cast<std::uint32_t>(shown_.size()), false};
  bool possible = at.bytes == shown_.size() && at.tokens >= request_->min_tokens
                  && at.tokens < limit_of(*request_).value_or(no_limit);
  return possible ? at : point{};
}

/// What is known of the text of the tokens before a place, and how to learn the rest. `seam`: where
/// the engine that was lost had gone on from, if it was to hold nothing back.
hidden_text
relay_stream::hidden_before(const point& place, const std::optional<stop_seam>& seam) const {
  constexpr std::size_t unique = 32;     // characters, which are not elsewhere by chance
  constexpr std::size_t token_bytes = 4; // tokens of a character: at most
  constexpr std::size_t context = 16;    // tokens: how the first one reads depends on those before
  constexpr std::size_t tokens_max = 4096;
  hidden_text hidden;
  hidden.behind = place.tokens;
  hidden.known = shown_.substr(characters_back(shown_, unique));
  if (seam) {
    hidden.unseen = seam->hidden().size();
    hidden.known += seam->hidden();
  } else {
    hidden.characters = request_->held_back;
  }
  auto text = token_bytes * (openai::count_characters(hidden.known) + hidden.characters);
  auto of_output = std::min<std::size_t>(place.tokens, std::min(text, tokens_max) + context);
  auto of_prompt = of_output < place.tokens ? 0 : std::min(context, prompt_ids_.size());
  auto prompt = std::span{prompt_ids_}.last(of_prompt);
  auto output = std::span{ids_}.first(place.tokens).last(of_output);
  hidden.tokens.assign(prompt.begin(), prompt.end());
  hidden.tokens.insert(hidden.tokens.end(), output.begin(), output.end());
  if (hidden.known.empty())
    hidden.of_prompt = of_prompt;
  return hidden;
}

/// `unseen`: the text of these tokens that was not shown.
resumption relay_stream::go_on_behind(std::uint32_t tokens, std::string_view unseen) {
  kept_ = text_tokens_ = tokens;
  open_text_ = 0;
  compared_ = shown_.size();
  offset_ = openai::count_characters(shown_);
  auto before = shown_.substr(characters_back(shown_, request_->stop_reach));
  before += unseen;
  seam_.emplace(*request_, std::move(before), unseen.size());
  return {resumption::from::ids, told_so_far(), {}, kept_, true};
}

/// The prompt, and what is kept of the output.
std::vector<token_id> relay_stream::told_so_far() const {
  auto ids = prompt_ids_;
  ids.insert(ids.end(), ids_.begin(), ids_.begin() + kept_);
  return ids;
}

result<resumption> relay_stream::resume_by_text() {
  if (auto obstacle = no_text_because(); !obstacle.empty())
    return error{errc::unsupported, std::string{obstacle}};
  ids_known_ = false;
  return resume();
}

/// Why no engine can go on with what was delivered; empty where one can.
std::string relay_stream::why_no_other() const {
  if (!request_->single_use.empty())
    return "no engine can go on with a request that has '" + std::string{request_->single_use}
           + "' once tokens were delivered";
  if (other_delta_)
    return "no engine can go on with a text that its engine parsed tools or reasoning out of";
  if (auto obstacle = no_text_because(); !by_ids() && !obstacle.empty())
    return "the engine told no token ids, so no other can go on: " + std::string{obstacle};
  return {};
}

std::string relay_stream::why_stays() const {
  if (!begun_)
    return {};
  if (auto obstacle = why_no_other(); !obstacle.empty())
    return obstacle;
  if (!by_ids())
    return "its engine tells no token ids, and another may read the text as other tokens";
  if (request_->stop_reach > 0)
    return "a stop string may have begun in what was delivered, so that some of it might be "
           "computed twice, and perhaps otherwise";
  return {};
}

bool relay_stream::may_leave() const {
  if (!begun_)
    return true;
  if (end_shown_ || points_.empty())
    return false;
  const auto& last = points_.back();
  return last.whole && last.tokens == ids_.size() && last.bytes == shown_.size()
         && place_to_go_on().tokens == last.tokens;
}

/// A stop string could begin before the place, tokens could not be told apart, and reasoning in a
/// text is what templates leave out.
bool relay_stream::suits_text(const relay_request& request) {
  return request.single_use.empty() && request.choices == 1 && !request.wants_token_ids
         && !request.logprobs && request.stop_reach == 0;
}

/// Why no engine can go on from the text; empty where one can.
std::string_view relay_stream::no_text_because() const {
  bool counts = limit_of(*request_) || request_->min_tokens > 0 || request_->include_usage;
  if (request_->wants_token_ids)
    return "the client asked for them";
  if (request_->logprobs)
    return "log-probabilities belong to tokens";
  if (!suits_text(*request_))
    return "a stop string may have begun in the text";
  if (counts && !counted_)
    return "it did not tell how many tokens its text has";
  if (shown_.find("<think>") != std::string::npos || shown_.find("</think>") != std::string::npos)
    return "its text holds reasoning";
  return {};
}

/// Behind all tokens, of which the client has seen those without a text yet, too: what is sampled
/// must not be computed again there. No tokens where that is not asked for, or cannot be.
relay_stream::point relay_stream::place_within_character() const {
  auto told = static_cast<std::uint32_t>(ids_.size());
  bool asked = by_ids() && !request_->greedy && shows_tokens() && request_->stop_reach == 0
               && !end_shown_ && !points_.empty() && points_.back().tokens < told;
  bool possible = asked && points_.back().bytes == shown_.size() && shown_.size() >= telling
                  && told < limit_of(*request_).value_or(no_limit);
  return possible ? point{told, static_cast<std::uint32_t>(shown_.size()), false} : point{};
}

/// The last point behind which a stop string that began before it would have been found already,
/// and which leaves at least one token to ask for. At a point with `held_back` characters the
/// tokens say so many more than was shown. A text ends there with no blank: templates cut them off,
/// and the token after one is another than the token that begins with it.
relay_stream::point relay_stream::place_to_go_on() const {
  auto limit = limit_of(*request_).value_or(no_limit);
  for (auto at = points_.rbegin(); at != points_.rend(); ++at)
    if (
      at->tokens < limit && (at->bytes > 0 || request_->without_text)
      && advance(shown_, at->bytes, request_->stop_reach)
      && (by_ids() || !is_blank(shown_[at->bytes - 1]))
      && (at->whole || (!request_->greedy && at->bytes >= telling))) // sampled: it comes no more
      return *at;
  return {};
}

} // namespace llumnix::relay
