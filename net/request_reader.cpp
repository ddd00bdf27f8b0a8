#include "net/request_reader.hpp"

#include <boost/beast/http/error.hpp>

#include <algorithm>
#include <limits>
#include <utility>

namespace llumnix::net {

namespace http = boost::beast::http;

namespace {

constexpr std::uint64_t room_at_once = 512 * 1024; // of a body

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

std::string_view describe(const boost::beast::error_code& ec) {
  using http::error;
  if (ec == error::bad_method)
    return "the method is malformed";
  if (ec == error::bad_target)
    return "the request target is malformed";
  if (ec == error::bad_version)
    return "the request line is malformed or names an unknown HTTP version";
  if (ec == error::bad_content_length || ec == error::multiple_content_length)
    return "content-length is malformed, repeated with another value, or beside transfer-encoding";
  if (ec == error::bad_transfer_encoding)
    return "transfer-encoding is malformed or beside content-length";
  return "a header field is malformed";
}

} // namespace

void head_parser::complain(std::string_view what, error_code& ec) {
  complaint_ = what;
  ec = http::error::bad_value;
}

void head_parser::on_request_impl(
  http::verb, text method, text target, int version, error_code& ec) {
  constexpr std::size_t usual_headers = 12;
  into_.headers.reserve(usual_headers);
  into_.method.assign(method.data(), method.size());
  version_ = version;
  if (!std::all_of(
        method.begin(), method.end(), [](char c) { return (c >= 'A' && c <= 'Z') || c == '-'; }))
    return complain("the method is malformed", ec);
  if (!take_target(view(target)))
    return complain("the request target is malformed", ec);
}

// "/path?query", the same behind "http://authority" as proxies send it, or "*" for OPTIONS.
bool head_parser::take_target(std::string_view target) {
  auto visible = [](char c) { return c > 0x20 && c < 0x7f && c != '#'; };
  if (!std::all_of(target.begin(), target.end(), visible))
    return false;
  if (target == "*") {
    into_.path = "*";
    return into_.method == "OPTIONS";
  }
  if (target.front() != '/') {
    auto scheme = target.find("://");
    if (
      scheme == std::string_view::npos
      || !(
        equal_ignoring_case(target.substr(0, scheme), "http")
        || equal_ignoring_case(target.substr(0, scheme), "https")))
      return false;
    target.remove_prefix(scheme + 3);
    auto slash = target.find_first_of("/?");
    if (slash == 0)
      return false;
    target.remove_prefix(std::min(slash, target.size()));
  }
  auto question = target.find('?');
  if (question != std::string_view::npos)
    into_.query.assign(target.substr(question + 1));
  auto path = percent_decode(target.substr(0, question));
  if (!path)
    return false;
  into_.path = path->empty() ? "/" : std::move(*path);
  return true;
}

void head_parser::on_field_impl(http::field name, text name_text, text value, error_code& ec) {
  auto& [key, content]
    = into_.headers.emplace_back(std::string{view(name_text)}, std::string{view(value)});
  for (auto& c : key)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c + 32);
  switch (name) {
    case http::field::host:
      if (++hosts_ > 1)
        complain("there is more than one host header", ec);
      break;
    case http::field::content_length: // also the same one twice: somebody on the way may differ
      if (++lengths_ > 1 || content.find(',') != std::string::npos)
        complain("there is more than one content-length", ec);
      break;
    case http::field::transfer_encoding:
      if (!equal_ignoring_case(content, "chunked") || version_ < 11)
        complain("the only transfer-encoding understood is chunked", ec);
      break;
    case http::field::expect:
      if (equal_ignoring_case(content, "100-continue"))
        expects_continue_ = true;
      else
        expects_else_ = expects_else_ || !content.empty();
      break;
    default: break;
  }
}

void head_parser::on_header_impl(error_code& ec) {
  if (hosts_ == 0 && version_ >= 11)
    complain("there is no host header", ec);
}

request_reader::status request_reader::fail(int status, std::string_view text) {
  failure_status_ = status;
  failure_text_ = text;
  keep_alive_ = false;
  return status::failed;
}

request_reader::status request_reader::feed(std::string_view& data) {
  if (!head_done_) {
    if (auto outcome = feed_head(data); outcome != status::complete)
      return outcome;
  }
  return feed_body(data);
}

// Finds the empty line that ends the head, looking at each byte once. False for a line end without
// CR and for a folded line: Beast waits for the end of a head it once found incomplete before it
// would see the former, and joins the latter.
bool request_reader::scan_lines(std::string_view data, std::size_t& end) {
  for (;;) {
    if (line_start_ < data.size() && (data[line_start_] == ' ' || data[line_start_] == '\t'))
      return false;
    auto lf = data.find('\n', scanned_);
    if (lf == std::string_view::npos) {
      scanned_ = data.size();
      return true;
    }
    if (lf == line_start_ || data[lf - 1] != '\r')
      return false;
    auto empty = lf == line_start_ + 1;
    scanned_ = line_start_ = lf + 1;
    if (empty) {
      end = scanned_;
      return true;
    }
  }
}

// Completes when the head is whole and valid, having consumed it.
request_reader::status request_reader::feed_head(std::string_view& data) {
  if (!parser_) {
    while (data.starts_with("\r\n")) // some clients end a body with one more line end
      data.remove_prefix(2);
    if (data.empty() || data == "\r")
      return status::need_more;
    parser_.emplace(request_);
    parser_->body_limit(max_body_);
    parser_->header_limit(
      std::numeric_limits<std::uint32_t>::max()); // counted here, over all pieces
  }
  std::size_t end = 0;
  if (!scan_lines(data, end))
    return fail(400, "a line of the head is folded or ends without CR");
  auto head = end > 0 ? data.substr(0, end) : data;
  if (head_bytes_ + head.size() > max_header_)
    return fail(431, "the head of the request is too large");
  boost::beast::error_code ec;
  auto consumed = parser_->put({head.data(), head.size()}, ec);
  data.remove_prefix(consumed);
  head_bytes_ += consumed;
  scanned_ -= std::min(scanned_, consumed);
  line_start_ -= std::min(line_start_, consumed);
  if (ec == http::error::need_more && end == 0)
    return status::need_more;
  if (ec == http::error::body_limit)
    return fail(413, "the body of the request is too large");
  if (ec)
    return fail(400, parser_->complaint().empty() ? describe(ec) : parser_->complaint());
  return on_head_done();
}

request_reader::status request_reader::on_head_done() {
  head_done_ = true;
  keep_alive_ = parser_->keep_alive();
  http_1_0_ = parser_->version() < 11;
  if (parser_->chunked())
    chunks_.emplace(max_body_);
  else if (auto length = parser_->content_length())
    body_left_ = *length;
  owes_continue_ = parser_->expects_continue() && !http_1_0_;
  if (parser_->expects_else())
    return fail(417, "the only expectation understood is 100-continue");
  return status::complete;
}

request_reader::status request_reader::feed_body(std::string_view& data) {
  if (!data.empty())
    owes_continue_ = false; // the client did not wait
  if (chunks_) {
    switch (chunks_->feed(data, request_.body)) {
      case chunk_decoder::status::need_more: return status::need_more;
      case chunk_decoder::status::complete: return status::complete;
      case chunk_decoder::status::malformed: return fail(400, "the chunked body is malformed");
      case chunk_decoder::status::too_long:
        return fail(413, "the body of the request is too large");
    }
  }
  auto taken = static_cast<std::size_t>(std::min<std::uint64_t>(body_left_, data.size()));
  if (request_.body.empty() && taken > 0) // what was announced is believed up to a point
    request_.body.reserve(
      static_cast<std::size_t>(std::min<std::uint64_t>(body_left_, room_at_once)));
  request_.body.append(data.substr(0, taken));
  data.remove_prefix(taken);
  body_left_ -= taken;
  return body_left_ == 0 ? status::complete : status::need_more;
}

bool request_reader::owes_continue() {
  return std::exchange(owes_continue_, false);
}

http_request request_reader::take() {
  auto whole = std::exchange(request_, {});
  parser_.reset();
  chunks_.reset();
  body_left_ = 0;
  head_bytes_ = scanned_ = line_start_ = 0;
  head_done_ = false;
  owes_continue_ = false;
  return whole;
}

} // namespace llumnix::net
