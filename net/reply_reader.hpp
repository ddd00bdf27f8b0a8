#pragma once

#include "net/chunk_decoder.hpp"
#include "net/http_message.hpp"

#include <boost/beast/http/basic_parser.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llumnix::net {

/// Beast's incremental parser, writing the head of a reply into an `http_reply`.
class reply_head_parser final : public boost::beast::http::basic_parser<false> {
public:
  explicit reply_head_parser(http_reply& into) : into_{into} {}

private:
  using error_code = boost::beast::error_code;
  using text = boost::beast::string_view;

  void on_request_impl(boost::beast::http::verb, text, text, int, error_code&) override {}
  void on_response_impl(int status, text, int, error_code&) override { into_.status = status; }
  void on_field_impl(boost::beast::http::field, text name, text value, error_code&) override;
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(text, error_code&) override { return 0; }
  void on_chunk_header_impl(std::uint64_t, text, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, text, error_code&) override { return 0; }
  void on_finish_impl(error_code&) override {}

  http_reply& into_;
};

/// Reads one reply from the bytes of a connection: a body of a known length, in chunks, or up to
/// the end. Interim replies (100 Continue) are skipped. Knows no socket and no clock.
class reply_reader {
public:
  enum class status { need_more, complete, malformed, too_long };

  /// `to_head` for the reply to a HEAD request, which has no body whatever its head says.
  reply_reader(std::size_t max_header_bytes, std::size_t max_body_bytes, bool to_head)
    : max_header_{max_header_bytes}, max_body_{max_body_bytes}, to_head_{to_head} {}

  /// Takes the bytes that came; the body they held is appended to `reply().body`, which may be
  /// emptied between two calls.
  status feed(std::string_view data);
  /// The connection has ended: `complete` if that is how the body ends, else `malformed`.
  status end() const;

  http_reply& reply() { return reply_; }

private:
  status feed_head(std::string_view& data);
  status feed_body(std::string_view data);

  std::size_t max_header_;
  std::size_t max_body_;
  bool to_head_;
  std::string pending_; // of the head, not yet understood
  http_reply reply_;
  std::optional<reply_head_parser> parser_;
  std::optional<chunk_decoder> chunks_;
  std::optional<std::uint64_t> body_left_; // of a body with a known length
  std::size_t seen_ = 0;                   // bytes of the head, or of the body
  bool head_done_ = false;
};

} // namespace llumnix::net
