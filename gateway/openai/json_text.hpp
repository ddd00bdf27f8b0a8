#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llumnix::openai {

/// Appends `text` as the inside of a JSON string, without the quotes. Bytes that are no UTF-8
/// become U+FFFD, so the result is valid whatever a model or a client produced; everything else
/// beyond ASCII stays as it is.
void append_escaped(std::string& out, std::string_view text);

/// Appends `text` as a JSON string with its quotes.
void append_quoted(std::string& out, std::string_view text);

void append_number(std::string& out, std::uint64_t value);
void append_number(std::string& out, std::int64_t value);

/// Appends a log-probability so that it reads back to the same value and always as a float. What
/// JSON cannot say (an infinity, not a number) becomes -9999.0, as OpenAI writes the unlikely.
void append_logprob(std::string& out, float value);

/// Length of the UTF-8 sequence that starts `text`, 1 to 4; 0 if it starts with none.
std::size_t utf8_sequence(std::string_view text);

/// Number of Unicode characters: bytes that do not continue a sequence.
std::size_t count_characters(std::string_view text);

} // namespace llumnix::openai
