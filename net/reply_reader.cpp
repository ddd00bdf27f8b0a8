#include "net/reply_reader.hpp"

#include <boost/beast/http/error.hpp>

#include <algorithm>
#include <limits>

namespace llumnix::net {

namespace http = boost::beast::http;

void reply_head_parser::on_field_impl(http::field, text name, text value, error_code&) {
  auto& key = into_.headers
                .emplace_back(
                  std::string{name.data(), name.size()}, std::string{value.data(), value.size()})
                .first;
  for (auto& c : key)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c + 32);
}

reply_reader::status reply_reader::feed(std::string_view data) {
  if (!head_done_) {
    pending_ += data;
    std::string_view rest{pending_};
    auto outcome = feed_head(rest);
    if (outcome != status::complete) {
      pending_.erase(0, pending_.size() - rest.size());
      return outcome;
    }
    auto body = std::string{rest};
    pending_.clear();
    return feed_body(body);
  }
  return feed_body(data);
}

// Completes when the final head is whole, having consumed it.
reply_reader::status reply_reader::feed_head(std::string_view& data) {
  while (!head_done_) {
    if (!parser_) {
      if (data.empty())
        return status::need_more;
      reply_ = {};
      parser_.emplace(reply_);
      parser_->body_limit(boost::none);
      parser_->header_limit(
        std::numeric_limits<std::uint32_t>::max()); // counted here, over all pieces
    }
    boost::beast::error_code ec;
    auto consumed = parser_->put({data.data(), data.size()}, ec);
    data.remove_prefix(consumed);
    seen_ += consumed;
    if (seen_ > max_header_)
      return status::too_long;
    if (ec == http::error::need_more)
      return seen_ + data.size() > max_header_ ? status::too_long : status::need_more;
    if (ec)
      return status::malformed;
    head_done_ = reply_.status >= 200;
    if (!head_done_)
      parser_.reset();
  }
  seen_ = 0;
  if (to_head_ || reply_.status == 204 || reply_.status == 304)
    body_left_ = 0;
  else if (parser_->chunked())
    chunks_.emplace(max_body_);
  else if (auto length = parser_->content_length())
    body_left_ = *length;
  return body_left_.value_or(0) > max_body_ ? status::too_long : status::complete;
}

reply_reader::status reply_reader::feed_body(std::string_view data) {
  if (chunks_) {
    switch (chunks_->feed(data, reply_.body)) {
      case chunk_decoder::status::need_more: return status::need_more;
      case chunk_decoder::status::complete: return status::complete;
      case chunk_decoder::status::malformed: return status::malformed;
      case chunk_decoder::status::too_long: return status::too_long;
    }
  }
  if (body_left_)
    data
      = data.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(*body_left_, data.size())));
  seen_ += data.size();
  if (seen_ > max_body_)
    return status::too_long;
  reply_.body += data;
  if (!body_left_)
    return status::need_more;
  *body_left_ -= data.size();
  return *body_left_ == 0 ? status::complete : status::need_more;
}

reply_reader::status reply_reader::end() const {
  return head_done_ && !chunks_ && !body_left_ ? status::complete : status::malformed;
}

} // namespace llumnix::net
