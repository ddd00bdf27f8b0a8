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
  /// 10 or 11.
  int version() const { return version_; }

private:
  using error_code = boost::beast::error_code;
  using text = boost::beast::string_view;

  void on_request_impl(boost::beast::http::verb, text, text, int, error_code&) override {}
  void on_response_impl(int status, text, int version, error_code&) override {
    into_.status = status;
    version_ = version;
  }
  void on_field_impl(boost::beast::http::field, text name, text value, error_code&) override;
  void on_header_impl(error_code&) override { into_.headers.resize(fields_); }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(text, error_code&) override { return 0; }
  void on_chunk_header_impl(std::uint64_t, text, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, text, error_code&) override { return 0; }
  void on_finish_impl(error_code&) override {}

  http_reply& into_; // its strings are used again
  std::size_t fields_ = 0;
  int version_ = 11;
};

/// Reads one reply from the bytes of a connection: a body of a known length, in chunks, or up to
/// the end. Interim replies (100 Continue) are skipped. Knows no socket and no clock.
class reply_reader {
public:
  enum class status { need_more, head, piece, complete, malformed, too_long };

  /// `to_head` for the reply to a HEAD request, which has no body whatever its head says.
  reply_reader(std::size_t max_header_bytes, std::size_t max_body_bytes, bool to_head)
    : max_header_{max_header_bytes}, max_body_{max_body_bytes}, to_head_{to_head} {}

  /// Forgets what was read and begins with the next reply, using the same memory.
  void reset(std::size_t max_body_bytes, bool to_head);
  /// Lets go of the memory of a large head; the reply is gone with it.
  void trim();

  /// Takes from the front of `data` up to the next thing to tell: `head` once, then any number of
  /// `piece`, which is a part of the body and of `data`, then `complete`. To be called until that,
  /// a failure, or `need_more`, when all of `data` is taken. After `complete`, what is left in
  /// `data` is no part of the reply.
  status next(std::string_view& data, std::string_view& piece);

  /// Takes the bytes that came; the body they held is appended to `reply().body`, which may be
  /// emptied between two calls. Neither `head` nor `piece`.
  status feed(std::string_view data);

  /// The connection has ended: `complete` if that is how the body ends, else `malformed`.
  status end() const;

  /// Status and headers, once the head is done; the body only from `feed`.
  http_reply& reply() { return reply_; }
  bool head_done() const { return head_done_; }
  /// Whether the connection can be used again after this reply; known when the head is done.
  bool keep_alive() const { return keep_alive_; }

private:
  status feed_head(std::string_view& data);
  status parse_head(std::string_view& data);
  status on_head_done();
  status next_of_body(std::string_view& data, std::string_view& piece);

  std::size_t max_header_;
  std::size_t max_body_;
  bool to_head_;
  std::string pending_; // of the head, not yet understood
  http_reply reply_;
  std::optional<reply_head_parser> parser_;
  std::optional<chunk_decoder> chunks_;
  std::optional<std::uint64_t> body_left_; // of a body with a known length
  std::size_t seen_ = 0;                   // bytes of the head, or of the body
  std::size_t head_bytes_ = 0;             // of the last head, with interim ones
  bool head_done_ = false;
  bool keep_alive_ = false;
};

} // namespace llumnix::net
