#include "gateway/relay/event_parser.hpp"

#include <limits>

namespace llumnix::relay {
namespace {

constexpr std::uint64_t max_count = std::uint64_t{1} << 53; // of tokens

/// Follows the members of one object, and notes which bytes to leave out so that it loses some of
/// them, each with a comma.
class member_cuts {
public:
  member_cuts(std::vector<chunk_reader::part>& cuts, const json_cursor& at)
    : cuts_{cuts}, at_{at} {}

  /// A member was found.
  void begin() {
    begin_ = at_.member_offset();
    if (open_)
      cuts_.back().end = begin_;
    open_ = false;
  }
  /// Its value was read.
  void end(bool left_out) {
    if (left_out) {
      cuts_.push_back({kept_ ? last_end_ : begin_, at_.offset()});
      open_ = !kept_;
    } else {
      kept_ = true;
    }
    last_end_ = at_.offset();
  }

private:
  std::vector<chunk_reader::part>& cuts_;
  const json_cursor& at_;
  std::size_t begin_ = 0; ///< of the member found last
  std::size_t last_end_ = 0;
  bool kept_ = false; ///< a member before
  bool open_ = false; ///< the last cut takes the comma behind it too, if there is one
};

void clear(chunk_choice& choice) {
  choice.index = 0;
  choice.role_only = false;
  choice.text.clear();
  choice.ids.clear();
  choice.finish_reason.clear();
  choice.other_delta = false;
  choice.bare = false;
}

bool says_nothing(std::string_view value) {
  return value == "null" || value == R"("")" || value == "[]" || value == "{}";
}

} // namespace

void event_parser::read() {
  at_.enter_object();
  member_cuts members{parts_.usages, at_};
  while (at_.next_member()) {
    members.begin();
    bool usage = at_.key() == "usage";
    read_member(at_.key());
    members.end(usage);
  }
  facts_.choices.resize(choices_);
  if (at_.finished())
    conclude();
}

void event_parser::read_member(std::string_view key) {
  if (key == "prompt_token_ids")
    read_prompt_ids();
  else if (key == "choices")
    read_choices();
  else if (key == (tokens_ ? "request_id" : "id"))
    read_text(facts_.id);
  else if (key == "usage")
    read_usage();
  else if (key == "error")
    read_error();
  else if (key == "object")
    error_ |= at_.skip() == R"("error")";
  else if (key == "message")
    message_ = at_.skip();
  else if (key == "code")
    code_ = at_.skip();
  else
    at_.skip();
}

void event_parser::read_choices() {
  choices_ = 0;
  has_choices_ = !skip_null();
  if (!has_choices_)
    return;
  at_.enter_array();
  while (at_.next_element()) {
    if (choices_ == facts_.choices.size())
      facts_.choices.emplace_back();
    read_choice(facts_.choices[choices_++]);
  }
}

void event_parser::read_choice(chunk_choice& choice) {
  clear(choice);
  choice_form form;
  at_.enter_object();
  while (at_.next_member())
    read_choice_member(at_.key(), choice, form);
  bool formed = tokens_ ? form.texts <= 1 && !form.delta : form.texts == 1;
  if (!form.index || !formed)
    at_.fail("no choice of a chunk");
  choice.role_only = form.role && choice.text.empty() && choice.ids.empty()
                     && choice.finish_reason.empty() && !choice.other_delta;
}

void event_parser::read_choice_member(
  std::string_view key, chunk_choice& choice, choice_form& form) {
  if (key == "index") {
    choice.index
      = static_cast<std::uint32_t>(at_.read_unsigned(std::numeric_limits<std::uint32_t>::max()));
    form.index = true;
  } else if (key == "delta") {
    ++form.texts;
    form.delta = true;
    read_delta(choice, form);
  } else if (key == "text") {
    ++form.texts;
    read_text(choice.text);
  } else if (key == "finish_reason") {
    read_text(choice.finish_reason);
  } else if (key == "token_ids") {
    read_ids(choice.ids);
  } else if (key == "prompt_token_ids") {
    read_prompt_ids();
  } else {
    at_.skip();
  }
}

void event_parser::read_delta(chunk_choice& choice, choice_form& form) {
  choice.bare = true;
  if (skip_null())
    return;
  at_.enter_object();
  while (at_.next_member()) {
    auto opening = at_.peek();
    choice.bare &= opening == 'n';
    if (at_.key() == "content" && (opening == '"' || opening == 'n')) {
      read_text(choice.text);
      continue;
    }
    auto value = at_.skip();
    if (says_nothing(value))
      continue;
    if (at_.key() == "role")
      form.role = true;
    else
      choice.other_delta = true;
  }
}

void event_parser::read_usage() {
  facts_.usage.reset();
  if (skip_null())
    return;
  auto& usage = facts_.usage.emplace();
  at_.enter_object();
  while (at_.next_member())
    if (at_.key() == "prompt_tokens")
      read_count(usage.prompt_tokens);
    else if (at_.key() == "completion_tokens")
      read_count(usage.completion_tokens);
    else if (at_.key() == "prompt_tokens_details")
      read_prompt_details();
    else
      at_.skip();
}

void event_parser::read_prompt_details() {
  if (skip_null())
    return;
  at_.enter_object();
  while (at_.next_member())
    if (at_.key() == "cached_tokens")
      read_count(facts_.usage->cached_tokens);
    else
      at_.skip();
}

/// An object with a message, or the message by itself.
void event_parser::read_error() {
  if (skip_null())
    return;
  error_ = true;
  if (at_.peek() != '{') {
    message_ = at_.skip();
    return;
  }
  at_.enter_object();
  while (at_.next_member())
    if (at_.key() == "message")
      message_ = at_.skip();
    else if (at_.key() == "code")
      code_ = at_.skip();
    else
      at_.skip();
}

void event_parser::conclude() {
  if (error_)
    conclude_error();
  else if (!has_choices_)
    at_.fail("no chunk of a stream");
  else if (facts_.choices.empty() && facts_.usage)
    facts_.kind = chunk_facts::type::usage;
}

void event_parser::conclude_error() {
  facts_.kind = chunk_facts::type::error;
  if (message_.starts_with('"'))
    append_unescaped(facts_.error_message, inside_quotes(message_));
  if (auto status = to_count(code_); status && *status >= 400 && *status < 600)
    facts_.error_status = static_cast<int>(*status);
}

bool event_parser::skip_null() {
  bool null = at_.peek() == 'n';
  if (null)
    at_.skip();
  return null;
}

/// A string, or null.
void event_parser::read_text(std::string& text) {
  text.clear();
  if (skip_null())
    return;
  if (at_.peek() != '"')
    return at_.fail("no string where one belongs");
  if (auto value = at_.skip(); !at_.failed())
    append_unescaped(text, inside_quotes(value));
}

void event_parser::read_ids(std::vector<token_id>& ids) {
  ids.clear();
  if (skip_null())
    return;
  auto begin = at_.offset();
  at_.enter_array();
  while (at_.next_element())
    ids.push_back(static_cast<token_id>(at_.read_unsigned(std::numeric_limits<token_id>::max())));
  parts_.ids.push_back({begin, at_.offset()});
}

void event_parser::read_prompt_ids() {
  if (!skip_null())
    read_ids(facts_.prompt_ids.emplace());
}

void event_parser::read_count(std::uint64_t& count) {
  if (!skip_null())
    count = at_.read_unsigned(max_count);
}

} // namespace llumnix::relay
