#include "net/reply_reader.hpp"

#include <boost/beast/http/error.hpp>

#include <algorithm>
#include <limits>
#include <utility>

namespace llumnix::net {

namespace http = boost::beast::http;

namespace {

constexpr std::size_t kept_head_bytes = 4 * 1024; // whose memory is kept for the next reply

// Whether a head may begin like that. Beast looks only at whole lines, and who is no HTTP server
// may never end one.
bool like_http(std::string_view head) {
  constexpr std::string_view start = "HTTP/1.";
  auto common = std::min(start.size(), head.size());
  return head.substr(0, common) == start.substr(0, common);
}

} // namespace

void reply_head_parser::on_field_impl(http::field, text name, text value, error_code&) {
  if (fields_ == into_.headers.size())
    into_.headers.emplace_back();
  auto& [key, content] = into_.headers[fields_++];
  key.assign(name.data(), name.size());
  for (auto& c : key)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c + 32);
  content.assign(value.data(), value.size());
}

void reply_reader::reset(std::size_t max_body_bytes, bool to_head) {
  max_body_ = max_body_bytes;
  to_head_ = to_head;
  pending_.clear();
  reply_.body.clear();
  parser_.reset();
  chunks_.reset();
  body_left_.reset();
  seen_ = 0;
  head_done_ = keep_alive_ = false;
}

void reply_reader::trim() {
  if (head_bytes_ > kept_head_bytes) {
    reply_ = {};
    std::string{}.swap(pending_);
  }
}

reply_reader::status reply_reader::next(std::string_view& data, std::string_view& piece) {
  return head_done_ ? next_of_body(data, piece) : feed_head(data);
}

reply_reader::status reply_reader::feed(std::string_view data) {
  for (;;) {
    std::string_view piece;
    auto outcome = next(data, piece);
    if (outcome == status::piece)
      reply_.body += piece;
    else if (outcome != status::head)
      return outcome;
  }
}

// What is not understood of an incomplete head is kept, so that a head in one piece is not copied.
reply_reader::status reply_reader::feed_head(std::string_view& data) {
  if (pending_.empty()) {
    auto outcome = parse_head(data);
    if (outcome == status::need_more) {
      pending_ = data;
      data = {};
    }
    return outcome;
  }
  pending_ += data;
  std::string_view rest{pending_};
  auto outcome = parse_head(rest);
  if (outcome == status::need_more) {
    data = {};
    pending_.erase(0, pending_.size() - rest.size());
    return outcome;
  }
  data.remove_prefix(data.size() - std::min(data.size(), rest.size()));
  pending_.clear();
  return outcome;
}

reply_reader::status reply_reader::parse_head(std::string_view& data) {
  while (!head_done_) {
    if (!parser_) {
      if (data.empty())
        return status::need_more;
      reply_.status = 0; // until the status line is understood
      parser_.emplace(reply_);
      parser_->body_limit(boost::none);
      parser_->header_limit(
        std::numeric_limits<std::uint32_t>::max()); // counted here, over all pieces
      parser_->skip(to_head_);
    }
    if (reply_.status == 0 && !like_http(data))
      return status::malformed;
    boost::beast::error_code ec;
    auto consumed = parser_->put({data.data(), data.size()}, ec);
    data.remove_prefix(consumed);
    seen_ += consumed;
    if (seen_ > max_header_)
      return status::too_long;
    if (ec == http::error::need_more)
      return seen_ + data.size() > max_header_ ? status::too_long : status::need_more;
    // Nobody asked for another protocol (101), and what is no status has no known framing.
    if (ec || reply_.status < 100 || reply_.status == 101)
      return status::malformed;
    head_done_ = reply_.status >= 200;
    if (!head_done_)
      parser_.reset();
  }
  return on_head_done();
}

reply_reader::status reply_reader::on_head_done() {
  for (const auto& [name, value] : reply_.headers)
    if (name == "transfer-encoding" && !equal_ignoring_case(value, "chunked"))
      return status::malformed; // we asked for no other coding, and can undo none
  keep_alive_ = parser_->keep_alive() && (parser_->version() >= 11 || !parser_->chunked());
  if (to_head_ || reply_.status == 204 || reply_.status == 304)
    body_left_ = 0;
  else if (parser_->chunked())
    chunks_.emplace(max_body_);
  else if (auto length = parser_->content_length())
    body_left_ = *length;
  parser_.reset();
  head_bytes_ = std::exchange(seen_, 0);
  return body_left_.value_or(0) > max_body_ ? status::too_long : status::head;
}

reply_reader::status reply_reader::next_of_body(std::string_view& data, std::string_view& piece) {
  if (chunks_) {
    switch (chunks_->next(data, piece)) {
      case chunk_decoder::status::need_more:
        return piece.empty() ? status::need_more : status::piece;
      case chunk_decoder::status::complete: return status::complete;
      case chunk_decoder::status::malformed: return status::malformed;
      case chunk_decoder::status::too_long: return status::too_long;
    }
  }
  if (body_left_ && *body_left_ == 0)
    return status::complete;
  if (data.empty())
    return status::need_more;
  piece = data.substr(
    0, static_cast<std::size_t>(
         std::min<std::uint64_t>(body_left_.value_or(data.size()), data.size())));
  if (piece.size() > max_body_ - seen_)
    return status::too_long;
  data.remove_prefix(piece.size());
  seen_ += piece.size();
  if (body_left_)
    *body_left_ -= piece.size();
  return status::piece;
}

reply_reader::status reply_reader::end() const {
  return head_done_ && !chunks_ && !body_left_ ? status::complete : status::malformed;
}

} // namespace llumnix::net
