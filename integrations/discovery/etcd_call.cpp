#include "integrations/discovery/etcd_call.hpp"

#include "integrations/discovery/etcd_messages.hpp"

#include <utility>

namespace llumnix {

etcd_call::etcd_call(
  net::upstream_pool& pool, std::string address, std::string_view path, std::string body,
  const std::string& token, std::chrono::milliseconds silence, handlers tell)
  : tell_{std::move(tell)} {
  net::upstream_request request;
  request.address = std::move(address);
  request.target = path;
  request.headers = {{"content-type", "application/json"}, {"accept", "application/json"}};
  if (!token.empty())
    request.headers.emplace_back("authorization", token);
  request.body = std::move(body);
  if (!tell_.lines)
    request.max_body_bytes = etcd_bytes_max;
  request.silence = silence;
  call_ = pool.send(std::move(request), *this);
}

void etcd_call::on_body(std::string_view piece) {
  if (ended_ || too_long_)
    return;
  too_long_ = piece.size() > etcd_bytes_max - body_.size();
  if (too_long_)
    std::string{}.swap(body_);
  else
    body_ += piece;
}

void etcd_call::on_pause() {
  if (ended_)
    return;
  if (too_long_)
    return end({errc::too_long, "a line is too long"});
  if (!tell_.lines || status_ != 200)
    return;
  std::vector<std::string> lines;
  std::size_t begin = 0;
  for (auto end = body_.find('\n', searched_); end != body_.npos; end = body_.find('\n', begin)) {
    if (end > begin)
      lines.push_back(body_.substr(begin, end - begin));
    begin = end + 1;
  }
  body_.erase(0, begin);
  searched_ = body_.size();
  if (!lines.empty())
    tell_.lines(std::move(lines));
}

void etcd_call::on_end(const error& failure) {
  on_pause();
  end(failure);
}

void etcd_call::end(error outcome) {
  if (std::exchange(ended_, true))
    return;
  outcome_ = std::move(outcome);
  tell_.ended();
}

error etcd_call::failure() const {
  if (outcome_.code != errc::ok)
    return outcome_;
  return {errc::internal, etcd::read_refusal(status_, body_)};
}

} // namespace llumnix
