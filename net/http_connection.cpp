#include "net/http_connection.hpp"

#include "net/http_loop.hpp"
#include "runtime/base/assert.hpp"
#include "runtime/base/log.hpp"

#include <boost/asio/buffer.hpp>

#include <algorithm>
#include <cstring>
#include <exception>
#include <poll.h>
#include <utility>

namespace llumnix::net {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr std::size_t gather_up_to = 64 * 1024;  // of replies to pipelined requests, in one write
constexpr std::size_t body_progress = 64 * 1024; // what a body must grow by in one body_timeout
constexpr std::size_t linger_bytes = 16 * 1024 * 1024; // read and dropped, at most, before closing
constexpr std::size_t pipelined_bytes = 16 * 1024;     // kept of further requests, at least
constexpr std::size_t counted_bytes = 64 * 1024; // bodies above it count as long as they are held

} // namespace

http_connection::http_connection(http_loop& loop, loop_socket socket, std::string peer)
  : loop_{loop},
    socket_{std::move(socket)},
    reader_{loop.options().max_header_bytes, loop.options().max_body_bytes},
    peer_{std::move(peer)} {}

http_connection::~http_connection() = default;

void http_connection::start() {
  enter(phase::head); // counts from here: a client that connects is expected to ask
  read();
}

void http_connection::turn_away() {
  refuse(503, "too many connections");
  advance();
}

void http_connection::enter(phase next) {
  phase_ = next;
  switch (next) {
    case phase::idle:
    case phase::sending: return loop_.set_deadline(*this, deadline_kind::idle);
    case phase::head: return loop_.set_deadline(*this, deadline_kind::head);
    case phase::body: return loop_.set_deadline(*this, deadline_kind::body);
    case phase::lingering: return loop_.set_deadline(*this, deadline_kind::linger);
    case phase::answering:
    case phase::closed: return timer.unlink();
  }
}

// ---- reading

void http_connection::read() {
  auto room = loop_.options().max_header_bytes + pipelined_bytes;
  if (reading_ || phase_ == phase::closed || in_.size() >= room || half_closed())
    return;
  reading_ = true;
  socket_.async_read_some(
    asio::buffer(first_), [self = connection_ptr{this}](error_code ec, std::size_t size) {
      self->reading_ = false;
      self->on_read(ec, size);
    });
}

void http_connection::on_read(error_code ec, std::size_t size) {
  if (phase_ == phase::closed)
    return;
  if (ec)
    return on_end(ec == asio::error::eof);
  std::string_view data{first_.data(), size};
  if (size == first_.size() && phase_ != phase::answering && phase_ != phase::sending) {
    // Probably there is more: take it in one go. An error shows again at the next read.
    auto& large = loop_.read_buffer();
    std::memcpy(large.data(), data.data(), size);
    error_code ignored;
    size += socket_.read_some(asio::buffer(large) + size, ignored);
    data = {large.data(), size};
  }
  on_data(data);
  read();
}

void http_connection::on_data(std::string_view data) {
  if (phase_ == phase::lingering) {
    marked_ += data.size();
    if (marked_ > linger_bytes)
      close();
    return;
  }
  starved_ = false;
  if (in_.empty() && receiving()) {
    parse(data);
    if (phase_ == phase::closed || phase_ == phase::lingering)
      return;
  }
  in_.append(data);
  advance();
}

void http_connection::on_end(bool orderly) {
  if (phase_ == phase::answering)
    return orderly ? on_half_closed() : lost();
  if (phase_ != phase::sending || !orderly)
    return close();
  note_last_input(); // it sends no more, but may well read what it has asked for
  watch_for_reset();
}

// What has come already is still answered: when that is done the end is read once more.
void http_connection::note_last_input() {
  half_closed_ = true;
  keep_alive_ = keep_alive_ && !in_.empty();
}

// The client sends no more: it has left, or it has only said so and still reads. Who has left
// answers whatever is sent with a reset, so something is sent that means nothing: an interim reply
// before the head (the one that every client takes), a comment in a stream of events. Where nothing
// of the kind can be said, a client that sends no more counts as gone: within another stream, and
// before the head with HTTP/1.0, which knows no interim replies (nginx speaks it to what is behind
// it, and closes when its own client leaves).
void http_connection::on_half_closed() {
  if (streaming_ ? !event_stream_ : reader_.http_1_0())
    return lost();
  note_last_input();
  connection_ptr keep{this};
  loop_.lend(out_);
  if (streaming_)
    write(":\n\n");
  else
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
  flush();
  if (phase_ != phase::closed)
    watch_for_reset();
}

void http_connection::watch_for_reset() {
  socket_.async_wait(loop_socket::wait_error, [self = connection_ptr{this}](error_code ec) {
    if (!ec && self->half_closed())
      self->lost();
  });
}

void http_connection::parse(std::string_view& data) {
  parsing_ = true;
  while (receiving() && !starved_ && !data.empty() && out_.size() < gather_up_to) {
    switch (reader_.feed(data)) {
      case request_reader::status::need_more: on_partial(); break;
      case request_reader::status::failed:
        refuse(reader_.failure_status(), reader_.failure_text());
        break;
      case request_reader::status::complete:
        if (paid_ == 0 || pay_for_body())
          dispatch();
        break;
    }
  }
  parsing_ = false;
}

void http_connection::on_partial() {
  starved_ = true;
  if (!reader_.in_body()) {
    if (phase_ == phase::idle)
      enter(phase::head);
    return;
  }
  if (!pay_for_body())
    return;
  if (phase_ != phase::body || reader_.body_bytes() - marked_ >= body_progress) {
    marked_ = reader_.body_bytes();
    enter(phase::body);
  }
  if (reader_.owes_continue()) {
    loop_.lend(out_);
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
  }
}

// A body that does not come in one piece counts, from its first one on. False: there is no room for
// what it has grown by, and the client has been told.
bool http_connection::pay_for_body() {
  auto more = reader_.body_bytes() - paid_;
  if (loop_.bodies().take(more)) {
    paid_ += more;
    return true;
  }
  log::http.warn("bodies-full", "no room for a body of {} from {}", reader_.body_bytes(), peer_);
  refuse(503, "the server holds too many request bodies at the moment");
  return false;
}

void http_connection::give_back_body() {
  if (paid_ > 0)
    loop_.bodies().give_back(std::exchange(paid_, 0));
}

void http_connection::dispatch() {
  enter(phase::answering);
  loop_.add_exchange();
  keep_alive_ = reader_.keep_alive() && !loop_.draining();
  bodiless_ = reader_.head_only();
  auto request = reader_.take();
  request.peer = peer_;
  if (paid_ > counted_bytes)
    request.held = loop_.bodies().hold(std::exchange(paid_, 0));
  give_back_body();
  if (!exchange_ || exchange_.use_count() > 1)
    exchange_ = std::make_shared<connection_exchange>();
  exchange_->connection_ = this;
  exchange_->watcher_ = nullptr;
  connection_ptr keep{this};
  try {
    loop_.handler().on_request(exchange_, std::move(request));
  } catch (const std::exception& problem) {
    log::http.error("handler-threw", "request of {}: {}", peer_, problem.what());
    if (phase_ == phase::answering)
      close();
  }
}

void http_connection::refuse(int status, std::string_view text) {
  auto whole = loop_.handler().error_reply(status, text);
  keep_alive_ = false;
  reader_.drop_body();
  give_back_body();
  loop_.lend(out_);
  append_reply(
    out_, whole, {.keep_alive = false, .http_1_0 = false, .head_only = reader_.head_only()});
  enter(phase::sending);
}

// Goes on as far as output and input allow: called whenever either has changed.
void http_connection::advance() {
  connection_ptr keep{this};
  flush();
  while (receiving() && !starved_ && !in_.empty() && !waiting_ && !parsing_) {
    std::string_view rest{in_};
    parse(rest);
    in_.erase(0, in_.size() - std::min(in_.size(), rest.size()));
    flush();
  }
  if (in_.empty() && in_.capacity() > first_.size())
    std::string{}.swap(in_);
  read();
}

// ---- writing

void http_connection::flush() {
  if (waiting_ || phase_ == phase::closed)
    return;
  if (backlog() > 0) {
    error_code ec;
    sent_ += socket_.write_some(asio::buffer(out_.data() + sent_, backlog()), ec);
    if (ec && ec != asio::error::would_block && ec != asio::error::try_again)
      return lost();
  }
  if (backlog() == 0)
    return on_all_sent();
  stalled_since_ = clock::now();
  if (phase_ == phase::idle) // answered, but the next request has to wait until that is read
    enter(phase::sending);
  wait_writable();
}

void http_connection::wait_writable() {
  waiting_ = true;
  socket_.async_wait(loop_socket::wait_write, [self = connection_ptr{this}](error_code ec) {
    if (self->phase_ == phase::closed)
      return;
    if (ec)
      return self->lost();
    self->on_writable();
  });
}

void http_connection::on_writable() {
  error_code ec;
  auto taken = socket_.write_some(asio::buffer(out_.data() + sent_, backlog()), ec);
  if (ec && ec != asio::error::would_block && ec != asio::error::try_again)
    return lost();
  sent_ += taken;
  if (backlog() > 0) {
    if (taken > 0) {
      stalled_since_ = clock::now();
      if (phase_ == phase::sending)
        enter(phase::sending); // the time for it starts anew
    }
    if (sent_ > gather_up_to && sent_ > out_.size() / 2)
      out_.erase(0, std::exchange(sent_, 0));
    return wait_writable();
  }
  waiting_ = false;
  on_all_sent();
  if (phase_ == phase::answering && exchange_->watcher_ != nullptr)
    exchange_->watcher_->on_drained();
  advance();
}

void http_connection::on_all_sent() {
  sent_ = 0;
  loop_.take_back(out_);
  loop_.remove_exchanges(std::exchange(unsent_, 0));
  if (phase_ != phase::sending)
    return;
  if (!keep_alive_ || loop_.draining())
    return linger();
  enter(phase::idle);
}

// ---- ending

// Closing while input is unread resets the connection, and the client may lose the reply: so the
// client is told that no more will come, and what it still sends is read and dropped, up to a
// limit.
void http_connection::linger() {
  error_code ec;
  socket_.shutdown(loop_socket::shutdown_send, ec);
  if (ec)
    return close();
  std::string{}.swap(in_);
  marked_ = 0;
  enter(phase::lingering);
  read();
}

void http_connection::on_deadline() {
  connection_ptr keep{this};
  auto begun = reader_.started() || !in_.empty();
  if ((phase_ == phase::head && begun) || phase_ == phase::body) {
    refuse(408, "the request did not arrive in time");
    return advance();
  }
  close();
}

void http_connection::on_drain() {
  connection_ptr keep{this};
  if (phase_ == phase::idle || (phase_ == phase::head && !reader_.started() && in_.empty()))
    linger();
}

void http_connection::check_up() {
  if (phase_ != phase::answering)
    return;
  if (exchange_.use_count() == 1) {
    log::http.error("never-answered", "a request of {} was let go of without an answer", peer_);
    return close();
  }
  if (reading_ || half_closed_)
    return;
  pollfd state{socket_.native_handle(), POLLRDHUP, 0};
  if (::poll(&state, 1, 0) > 0)
    lost();
}

// The client is gone. May be noticed inside a call of the handler, which must not be called back
// meanwhile.
void http_connection::lost() {
  connection_ptr keep{this};
  if (phase_ == phase::answering)
    loop_.post([left = std::weak_ptr{exchange_}] {
      if (auto exchange = left.lock())
        exchange->tell_gone();
    });
  close();
}

loop_socket http_connection::surrender() {
  LLUMNIX_ASSERT(phase_ == phase::answering && !streaming_ && backlog() == 0);
  error_code ignored;
  socket_.cancel(ignored);
  auto socket = std::move(socket_);
  leave();
  return socket;
}

void http_connection::close() {
  if (phase_ == phase::closed)
    return;
  loop_.remove_connection();
  error_code ignored;
  socket_.close(ignored);
  leave();
}

/// The loop has it no more.
void http_connection::leave() {
  auto open = unsent_ + (phase_ == phase::answering ? 1 : 0);
  enter(phase::closed);
  if (exchange_)
    exchange_->connection_ = nullptr;
  exchange_.reset();
  give_back_body();
  loop_.remove_exchanges(open);
  unlink();
  intrusive_ptr_release(this); // the loop's share
}

} // namespace llumnix::net
