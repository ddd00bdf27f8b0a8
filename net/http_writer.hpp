#pragma once

#include "net/http_message.hpp"

#include <string>
#include <string_view>

namespace llumnix::net {

/// What the request being answered allows its reply to look like.
struct reply_form {
  bool keep_alive = true; ///< the connection stays open afterwards
  bool http_1_0 = false;  ///< no chunks, and keep-alive must be said
  bool head_only = false; ///< HEAD: the head of the reply, without its body
};

/// Whether a reply of that status has no body by definition.
bool bodiless(int status);

/// Whether a `connection: close` is among the headers.
bool asks_to_close(const header_list& headers);

/// Appends a whole reply to `out`. `connection`, `content-length` and `transfer-encoding` among the
/// headers are replaced by what is true; line ends inside a header become spaces.
void append_reply(std::string& out, const http_reply& reply, const reply_form& form);

/// Appends the head of a reply whose length is not known yet: chunked, or up to the end of the
/// connection for HTTP/1.0 (then `form.keep_alive` must be false).
void append_stream_head(
  std::string& out, int status, const header_list& headers, const reply_form& form);

/// Appends one chunk; nothing for empty text, which would end the body.
void append_chunk(std::string& out, std::string_view text);

/// What ends a chunked body.
inline constexpr std::string_view last_chunk = "0\r\n\r\n";

} // namespace llumnix::net
