#pragma once

#include "gateway/openai/api_error.hpp"
#include "gateway/relay/body_layout.hpp"
#include "gateway/relay/json_cursor.hpp"
#include "gateway/relay/prompt_size.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace llumnix::relay {

/// The fields of a request that the gateway reads, sorted.
inline constexpr auto known_fields = std::to_array<std::string_view>(
  {"bad_words",
   "best_of",
   "content_parts",
   "custom_logit_processor",
   "ebnf",
   "echo",
   "extra_args",
   "features",
   "frequency_penalty",
   "functions",
   "include_reasoning",
   "include_stop_str_in_output",
   "json_schema",
   "kv_transfer_params",
   "logits_processors",
   "logprob_token_ids",
   "logprobs",
   "max_completion_tokens",
   "max_tokens",
   "messages",
   "min_tokens",
   "model",
   "n",
   "output_mode",
   "presence_penalty",
   "priority",
   "prompt",
   "prompt_embeds",
   "prompt_logprobs",
   "regex",
   "repetition_detection",
   "response_format",
   "return_token_ids",
   "return_tokens_as_token_ids",
   "sampling_params",
   "seed",
   "skip_special_tokens",
   "stop",
   "stop_token_ids",
   "stream",
   "stream_options",
   "structured_outputs",
   "suffix",
   "temperature",
   "thinking_token_budget",
   "token_ids",
   "tools",
   "top_logprobs",
   "trace_decode_token_ids",
   "use_beam_search"});
static_assert(std::is_sorted(known_fields.begin(), known_fields.end()));

/// Where a name stands in `known_fields`; their number if it does not.
constexpr std::size_t known_field(std::string_view name) {
  auto found = std::lower_bound(known_fields.begin(), known_fields.end(), name);
  bool known = found != known_fields.end() && *found == name;
  return known ? static_cast<std::size_t>(found - known_fields.begin()) : known_fields.size();
}

/// One of `known_fields`; a literal that is none of them does not compile.
struct field_name {
  std::size_t index;
  consteval field_name(const char* name) : index{known_field(name)} {
    if (index == known_fields.size())
      throw "not in known_fields";
  }
  std::string_view text() const { return known_fields[index]; }
  friend bool operator==(field_name, field_name) = default;
};

/// The top level of a request's body, or of an object in it: where the values of its known fields
/// lie. Of a field given twice the last counts, and null is as good as none. The first failure is
/// kept, and everything asked after it reads as absent.
class request_fields {
public:
  /// Fails with what is no JSON object. `body` must outlive this. `prompt` is the field whose size
  /// is taken. `within`: how errors call the fields of an object in a body, "sampling_params.".
  request_fields(std::string_view body, field_name prompt, std::string_view within = {});

  /// The text of the field's value; empty if there is none, or if something failed before.
  std::string_view find(field_name name) const;
  bool has(field_name name) const { return !find(name).empty(); }
  /// Whether there is something in the field: not false, and no empty text, object or array.
  bool holds_something(field_name name) const;
  /// Whether there is a field whose name begins with "guided_".
  bool guided() const { return guided_ && !failure_; }
  /// Of the field `prompt`; nothing where it is absent.
  const prompt_size& size() const { return size_; }
  const body_layout& layout() const { return layout_; }

  // Scalars are read as engines read them, which are lax: "true", "yes" and 1 are true, "5" and true
  // are numbers. What is no such value reads as absent, and is `not_understood`.

  /// The first field of which only the engine can say what it makes of it; empty: there is none.
  std::string_view not_understood() const { return not_understood_; }
  bool boolean(field_name name) { return boolean(name.text(), find(name), false); }
  /// `value` as a boolean, of the field `path`, which outlives this.
  bool boolean(std::string_view path, std::string_view value, bool otherwise);
  /// 5.0 is an integer, too; beyond 64 bits it is the nearest they hold.
  std::optional<std::int64_t> integer(field_name name);
  double number(field_name name, double otherwise);
  /// The text of a string or object, as `opening` says; `expected` is for the error.
  std::string_view of_type(field_name name, char opening, std::string_view expected);

  void wrong_type(std::string_view path, std::string_view expected);
  std::optional<openai::api_error>& failure() { return failure_; }

private:
  void take(json_cursor& at);
  void leave_to_engine(std::string_view path);
  std::string_view measure(json_cursor& at);

  std::string_view body_;
  field_name prompt_;
  std::string_view within_;
  prompt_size size_;
  body_layout layout_;
  std::array<std::string_view, known_fields.size()> values_{};
  bool guided_ = false;
  std::string_view not_understood_;
  std::optional<openai::api_error> failure_;
};

} // namespace llumnix::relay
