#pragma once

#include "gateway/openai/generation_request.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix::openai {

/// Token counts of a request, over all its prompts and choices.
struct usage {
  std::uint64_t prompt_tokens = 0;
  std::uint64_t completion_tokens = 0;
  std::uint64_t cached_tokens = 0; ///< of the prompts, found in a prefix cache
};

/// Appends {"prompt_tokens":…,"completion_tokens":…,"total_tokens":…,…}.
void append_usage(std::string& out, const usage& counts);

/// "stop", "length" or "abort"; "null" is written for `none`.
std::string_view to_string(finish_reason reason);

/// Whose reply it is: what every chunk and every whole reply of a request repeats.
struct reply_head {
  endpoint kind = endpoint::chat;
  std::string request_id; ///< without "chatcmpl-" or "cmpl-"
  std::string model;
  std::int64_t created = 0; ///< Unix seconds
};

/// The `id` of the reply: "chatcmpl-<id>" or "cmpl-<id>".
std::string reply_id(const reply_head& head);

/// One event of a choice. Views are read during the call.
struct chunk {
  std::uint32_t index = 0;
  std::string_view text{};
  bool first = false;          ///< a chat's first chunk of this index carries the role
  std::string_view logprobs{}; ///< rendered, or empty: null
  finish_reason finish = finish_reason::none;
  std::string_view stop_match{}; ///< the stop string that ended it, or empty
};

/// Writes server-sent events by template: what is constant in a request's chunks is rendered once.
/// Appends to the caller's buffer and allocates nothing of its own.
class chunk_writer {
public:
  enum class usage_field : std::uint8_t { absent, null, counted };
  chunk_writer(const reply_head& head, usage_field field);

  /// Appends "data: {…}\n\n". `counts` are written only where usage is `counted`.
  void write(std::string& out, const chunk& event, const usage& counts) const;
  /// The chunk after the last: no choices, the whole usage.
  void write_usage(std::string& out, const usage& counts) const;
  static void write_done(std::string& out);
  /// An error after the stream began; `rendered` is the error object of `render_error`.
  static void write_error(std::string& out, std::string_view rendered);

private:
  void write_end(std::string& out, const usage& counts) const;

  endpoint kind_;
  usage_field field_;
  std::string prefix_; ///< up to and with "choices":[
};

} // namespace llumnix::openai
