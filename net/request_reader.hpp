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

/// Beast's incremental parser, writing a head straight into an `http_request`. Adds what Beast lets
/// pass and a server must not: other transfer codings than chunked, missing or repeated Host, odd
/// targets.
class head_parser final : public boost::beast::http::basic_parser<true> {
public:
  explicit head_parser(http_request& into) : into_{into} {}

  int version() const { return version_; } ///< 10 or 11
  /// What was wrong with a head that Beast itself would have taken; empty if nothing.
  std::string_view complaint() const { return complaint_; }
  bool expects_continue() const { return expects_continue_; }
  bool expects_else() const { return expects_else_; } ///< what nobody here can promise

private:
  using error_code = boost::beast::error_code;
  using text = boost::beast::string_view;

  void on_request_impl(
    boost::beast::http::verb, text method, text target, int version, error_code& ec) override;
  void on_response_impl(int, text, int, error_code&) override {}
  void on_field_impl(
    boost::beast::http::field name, text name_text, text value, error_code& ec) override;
  void on_header_impl(error_code& ec) override;
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(text, error_code&) override { return 0; }
  void on_chunk_header_impl(std::uint64_t, text, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, text, error_code&) override { return 0; }
  void on_finish_impl(error_code&) override {}

  bool take_target(std::string_view target);
  void complain(std::string_view what, error_code& ec);

  http_request& into_;
  std::string_view complaint_;
  int version_ = 11;
  int hosts_ = 0;
  int lengths_ = 0;
  bool expects_continue_ = false;
  bool expects_else_ = false;
};

/// Reads one request after the other from the bytes of one connection. Knows no socket and no
/// clock.
class request_reader {
public:
  enum class status { need_more, complete, failed };

  request_reader(std::size_t max_header_bytes, std::size_t max_body_bytes)
    : max_header_{max_header_bytes}, max_body_{max_body_bytes} {}

  /// Consumes from the front of `data`. What it leaves on `need_more` (part of a line) must come
  /// again, followed by more. After `complete` call `take` before feeding on; after `failed`
  /// nothing.
  status feed(std::string_view& data);

  bool started() const { return parser_.has_value(); } ///< some of a head has been seen
  bool in_body() const { return head_done_; }
  std::size_t body_bytes() const { return request_.body.size(); }
  /// The client waits for "100 Continue" before it sends the body. True once per request.
  bool owes_continue();

  /// Of the request just completed, or failed as far as it was read.
  bool keep_alive() const { return keep_alive_; }
  bool http_1_0() const { return http_1_0_; }
  bool head_only() const { return request_.method == "HEAD"; }

  /// The completed request, leaving the reader ready for the next.
  http_request take();
  /// Lets go of what has come of a body that nobody will read.
  void drop_body() { std::string{}.swap(request_.body); }

  int failure_status() const { return failure_status_; }
  std::string_view failure_text() const { return failure_text_; }

private:
  status feed_head(std::string_view& data);
  status feed_body(std::string_view& data);
  status on_head_done();
  bool scan_lines(std::string_view data, std::size_t& end);
  status fail(int status, std::string_view text);

  std::size_t max_header_;
  std::size_t max_body_;
  http_request request_;
  std::optional<head_parser> parser_;
  std::optional<chunk_decoder> chunks_;
  std::uint64_t body_left_ = 0; // of a body with a known length
  std::size_t head_bytes_ = 0;  // consumed so far
  std::size_t scanned_ = 0;     // how far scan_lines came in what is not yet consumed
  std::size_t line_start_ = 0;  // and where the line it stands in begins
  bool head_done_ = false;
  bool owes_continue_ = false;
  bool keep_alive_ = false;
  bool http_1_0_ = false;
  int failure_status_ = 0;
  std::string_view failure_text_;
};

} // namespace llumnix::net
