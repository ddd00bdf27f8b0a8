#include "net/http_connection.hpp"
#include "net/http_loop.hpp"
#include "runtime/base/assert.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::net {

// ---- what the handler holds

// The connection may close inside any of these calls, so each keeps it until it returns. An answer
// given after the client has gone ends the matter: nothing is called back from then on.

void connection_exchange::reply(http_reply whole) {
  if (connection_ptr connection{connection_})
    return connection->reply(whole);
  watcher_ = nullptr;
}

void connection_exchange::begin_stream(int status, const header_list& headers) {
  if (connection_ptr connection{connection_})
    connection->begin_stream(status, headers);
}

void connection_exchange::write(std::string_view chunk) {
  if (connection_ptr connection{connection_})
    connection->write(chunk);
}

void connection_exchange::flush() {
  if (connection_ptr connection{connection_})
    connection->flush_stream();
}

void connection_exchange::end_stream() {
  if (connection_ptr connection{connection_})
    return connection->end_stream();
  watcher_ = nullptr;
}

void connection_exchange::abandon() {
  watcher_ = nullptr;
  if (connection_ptr connection{connection_})
    connection->close();
}

std::size_t connection_exchange::backlog() const {
  return connection_ == nullptr ? 0 : connection_->backlog();
}

std::chrono::steady_clock::time_point connection_exchange::stalled_since() const {
  return connection_ == nullptr ? std::chrono::steady_clock::now() : connection_->stalled_since();
}

void connection_exchange::tell_gone() {
  if (auto* watcher = std::exchange(watcher_, nullptr))
    watcher->on_gone();
}

// ---- what that does to the connection

reply_form http_connection::form() const {
  return {.keep_alive = keep_alive_, .http_1_0 = reader_.http_1_0(), .head_only = bodiless_};
}

void http_connection::reply(const http_reply& whole) {
  LLUMNIX_ASSERT(!streaming_);
  if (loop_.draining() || asks_to_close(whole.headers))
    keep_alive_ = false;
  loop_.lend(out_);
  append_reply(out_, whole, form());
  answered();
}

void http_connection::begin_stream(int status, const header_list& headers) {
  LLUMNIX_ASSERT(!std::exchange(streaming_, true));
  if (loop_.draining() || reader_.http_1_0() || asks_to_close(headers))
    keep_alive_ = false;
  event_stream_ = std::any_of(headers.begin(), headers.end(), [](const auto& header) {
    return header.first == "content-type" && header.second.starts_with("text/event-stream");
  });
  loop_.lend(out_);
  append_stream_head(out_, status, headers, form());
  bodiless_ = bodiless_ || bodiless(status);
}

void http_connection::write(std::string_view chunk) {
  LLUMNIX_ASSERT(streaming_);
  if (bodiless_)
    return;
  loop_.lend(out_);
  if (reader_.http_1_0())
    out_ += chunk;
  else
    append_chunk(out_, chunk);
  if (backlog() > loop_.options().max_backlog_bytes)
    flush_stream(); // drops the client if that does not help
}

void http_connection::flush_stream() {
  flush();
  enforce_backlog();
}

void http_connection::enforce_backlog() {
  if (phase_ == phase::answering && backlog() > loop_.options().max_backlog_bytes) {
    log::http.warn("client-too-slow", "{} has {} bytes waiting", peer_, backlog());
    lost();
  }
}

void http_connection::end_stream() {
  LLUMNIX_ASSERT(std::exchange(streaming_, false));
  if (!bodiless_ && !reader_.http_1_0()) {
    loop_.lend(out_);
    out_ += last_chunk;
  }
  answered();
}

// The exchange ends here for its handler. While parsing, further requests may be answered in the
// same write.
void http_connection::answered() {
  exchange_->connection_ = nullptr;
  exchange_->watcher_ = nullptr;
  ++unsent_;
  if (parsing_ && keep_alive_ && !waiting_)
    return enter(phase::idle);
  enter(phase::sending);
  if (!parsing_)
    advance();
}

http_connection::clock::time_point http_connection::stalled_since() const {
  return waiting_ ? stalled_since_ : clock::now();
}

} // namespace llumnix::net
