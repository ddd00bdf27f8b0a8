#pragma once

#include <string>

namespace llumnix::openai {

/// Rewrites what in a JSON text other readers take and simdjson does not (spec/gateway.md 5.1), so
/// that it can be read after all: in strings, bytes that are no UTF-8 and escapes of half a
/// surrogate pair become U+FFFD; integers beyond 64 bits become floats, and numbers beyond a
/// double's range the largest double of their sign. Everything else stays, whatever is wrong with
/// it. False, and `text` as it was, if there is nothing to forgive.
///
/// One pass and a copy, for texts that were refused: the good ones never come here.
bool forgive(std::string& text);

} // namespace llumnix::openai
