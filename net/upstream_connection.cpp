#include "net/upstream_connection.hpp"

#include "net/http_loop.hpp"
#include "net/loop_upstream.hpp"
#include "runtime/base/log.hpp"

#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <utility>

namespace llumnix::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

bool would_block(const error_code& ec) {
  return ec == asio::error::would_block || ec == asio::error::try_again;
}

} // namespace

// ---- the ticket

upstream_ticket::~upstream_ticket() {
  if (connection_ != nullptr)
    connection_->give_up();
}

void upstream_ticket::hold() {
  if (connection_ != nullptr)
    connection_->hold();
}

void upstream_ticket::resume() {
  if (connection_ != nullptr)
    connection_->resume();
}

void upstream_connection::give_up() {
  upstream_ptr keep{this};
  if (phase_ == phase::busy && backlog() > 0) {
    // The rest of the request is not coming, so what the kernel still has of it is of no use: with
    // a reset the server hears of the end before it has read up to it.
    error_code ignored;
    socket_.set_option(loop_socket::linger{true, 0}, ignored);
  }
  close();
}

void upstream_connection::hold() {
  job_.held = true;
  if (phase_ == phase::busy)
    renew();
}

void upstream_connection::resume() {
  job_.held = false;
  if (phase_ != phase::busy)
    return;
  renew();
  read();
}

// ---- taking on and letting go

upstream_connection::upstream_connection(loop_upstream& pool, std::shared_ptr<upstream_host> host)
  : pool_{pool},
    host_{std::move(host)},
    socket_{pool.loop().io().get_executor()},
    reader_{pool.options().max_header_bytes, 0, false} {}

upstream_connection::~upstream_connection() = default;

void upstream_connection::open(upstream_job job) {
  take_on(std::move(job));
  connect_by_ = pool_.after(pool_.options().connect_timeout);
  pool_.set_deadline(*this, connect_by_);
  pool_.look_up(*this);
}

void upstream_connection::reuse(upstream_job job) {
  upstream_ptr keep{this};
  take_on(std::move(job));
  phase_ = phase::busy;
  reused_ = true;
  renew();
  flush();
  read();
}

void upstream_connection::refuse(upstream_job job, error why) {
  take_on(std::move(job));
  end_later(std::move(why));
}

void upstream_connection::take_on(upstream_job job) {
  job_ = std::move(job);
  job_.ticket->connection_ = this;
  answered_ = false;
  read_before_ = false;
  sent_ = 0;
  reader_.reset(job_.max_body_bytes, job_.to_head);
}

void upstream_connection::detach() {
  if (job_.ticket != nullptr)
    job_.ticket->connection_ = nullptr;
  job_.ticket = nullptr;
  job_.watcher = nullptr;
  job_.held = false;
}

void upstream_connection::close() {
  if (phase_ == phase::closed)
    return;
  pool_.remove(*this, phase_ == phase::idle);
  std::erase(host_->waiting, this);
  phase_ = phase::closed;
  detach();
  forget_text();
  timer.unlink();
  among_paused.unlink();
  error_code ignored;
  socket_.close(ignored);
  unlink();
  intrusive_ptr_release(this); // the pool's share
}

// ---- connecting

void upstream_connection::on_addresses(const error_code& ec) {
  if (ec)
    return end_later({not_connected(), host_->address + ": " + ec.message()});
  connect_next({});
}

// Tries the endpoints one after the other; `failed` says what became of the one before.
void upstream_connection::connect_next(const error_code& failed) {
  auto problem = failed;
  while (attempt_ < host_->endpoints.size()) {
    auto left = host_->endpoints.size() - attempt_;
    const auto& where = host_->endpoints[attempt_++];
    socket_.close(problem);
    socket_.open(where.protocol(), problem);
    if (!problem)
      socket_.non_blocking(true, problem);
    if (!problem)
      socket_.set_option(tcp::no_delay{true}, problem);
    if (problem)
      continue;
    phase_ = phase::connecting;
    auto now = clock::now();
    auto share = (connect_by_ - now) / static_cast<std::int64_t>(left);
    pool_.set_deadline(*this, now + share);
    socket_.async_connect(where, [self = upstream_ptr{this}, attempt = attempt_](error_code ec) {
      if (self->phase_ == phase::connecting && self->attempt_ == attempt)
        self->on_connect(ec);
    });
    return;
  }
  host_->doubt();
  end_later({not_connected(), host_->address + ": " + problem.message()});
}

errc upstream_connection::not_connected() const {
  return job_.sent_before ? errc::disconnected : errc::unreachable;
}

void upstream_connection::on_connect(const error_code& ec) {
  if (ec)
    return connect_next(ec);
  if (met_itself())
    return connect_next(asio::error::connection_refused);
  phase_ = phase::busy;
  renew();
  flush();
  read();
}

// Where nobody listens on a port from which connections of our own may come, the kernel can choose
// just that one for our end, and connects us to ourselves.
bool upstream_connection::met_itself() {
  error_code ec;
  auto here = socket_.local_endpoint(ec);
  return !ec && here == socket_.remote_endpoint(ec);
}

void upstream_connection::on_deadline() {
  upstream_ptr keep{this};
  switch (phase_) {
    case phase::resolving: return end(not_connected(), "the name was not resolved in time");
    case phase::connecting: return connect_next(asio::error::timed_out);
    case phase::busy:
      return end(errc::timeout, answered_ ? "the answer fell silent" : "no answer in time");
    case phase::idle: return close();
    case phase::failing:
    case phase::closed: return;
  }
}

// ---- writing

std::size_t upstream_connection::write_some(error_code& ec) {
  if (job_.text.size() == job_.size())
    return socket_.write_some(asio::buffer(job_.text) + sent_, ec);
  std::array<asio::const_buffer, 3> all{
    asio::buffer(job_.text), asio::buffer(job_.body_begin.text), asio::buffer(job_.body_end)};
  auto passed = sent_;
  for (auto& piece : all) {
    auto written = std::min(passed, piece.size());
    piece += written;
    passed -= written;
  }
  return socket_.write_some(all, ec);
}

void upstream_connection::flush() {
  error_code ec;
  sent_ += write_some(ec);
  if (ec && !would_block(ec))
    return on_write_failed(ec);
  if (backlog() == 0)
    return on_all_sent();
  socket_.async_wait(loop_socket::wait_write, [self = upstream_ptr{this}](error_code failed) {
    self->on_writable(failed);
  });
}

void upstream_connection::on_writable(const error_code& ec) {
  if (phase_ != phase::busy)
    return;
  if (ec)
    return on_write_failed(ec);
  renew();
  flush();
}

// The text is kept as long as it may have to be sent again.
void upstream_connection::on_all_sent() {
  if (reused_ && !answered_)
    return;
  sent_ = 0;
  forget_text();
}

void upstream_connection::forget_text() {
  pool_.loop().take_back(job_.text);
  job_.body_begin = {};
  std::string{}.swap(job_.body_end);
}

// The server takes no more, perhaps after an answer that says why: so reading goes on, to that or
// to the end of the connection.
void upstream_connection::on_write_failed(const error_code& ec) {
  if (reused_ && !answered_ && sent_ == 0)
    return send_again();
  if (ec != asio::error::broken_pipe && ec != asio::error::connection_reset)
    return end(errc::disconnected, ec.message());
}

// The server closed a kept connection just when it was used again: that says nothing about the
// request.
void upstream_connection::send_again() {
  auto& pool = pool_;
  auto host = host_;
  auto job = std::exchange(job_, {});
  job.sent_before = sent_ > 0;
  close();
  pool.open(std::move(host), std::move(job));
}

// ---- reading

void upstream_connection::renew() {
  if (job_.held || job_.silence.count() <= 0)
    timer.unlink();
  else
    pool_.set_deadline(*this, pool_.after(job_.silence));
}

void upstream_connection::read() {
  if (reading_ || job_.held || among_paused.is_linked())
    return;
  if (phase_ != phase::busy && phase_ != phase::idle)
    return;
  reading_ = true;
  socket_.async_wait(loop_socket::wait_read, [self = upstream_ptr{this}](error_code ec) {
    self->reading_ = false;
    self->on_readable(ec);
  });
}

// After a piece of the answer. Streams may wait a little for more, but for their first piece.
void upstream_connection::read_on() {
  bool first = !std::exchange(read_before_, true);
  if (phase_ == phase::busy && job_.stream && !first && !job_.held && pool_.pause(*this))
    return;
  read();
}

void upstream_connection::on_readable(error_code ec) {
  if (job_.held || (phase_ != phase::busy && phase_ != phase::idle))
    return;
  auto& buffer = pool_.loop().read_buffer();
  std::size_t size = 0;
  if (!ec)
    size = socket_.read_some(asio::buffer(buffer), ec);
  if (would_block(ec))
    return read();
  if (phase_ == phase::idle) {
    if (size > 0)
      log::http.debug("upstream-unasked", "{} sent bytes nobody asked for", host_->address);
    return close();
  }
  if (ec)
    return on_cut(ec);
  on_data({buffer.data(), size});
}

// What a watcher is told may end this connection, and even the pool.
void upstream_connection::on_data(std::string_view data) {
  if (!std::exchange(answered_, true) && backlog() == 0)
    on_all_sent();
  renew();
  for (auto told = false;; told = true) {
    std::string_view piece;
    switch (reader_.next(data, piece)) {
      case reply_reader::status::head: job_.watcher->on_head(reader_.reply()); break;
      case reply_reader::status::piece: job_.watcher->on_body(piece); break;
      case reply_reader::status::need_more:
        if (told)
          job_.watcher->on_pause();
        return read_on();
      case reply_reader::status::complete: return finish(data);
      case reply_reader::status::malformed: return end(errc::bad_message, "the answer is not HTTP");
      case reply_reader::status::too_long: return end(errc::too_long, "the answer is too long");
    }
    if (phase_ != phase::busy)
      return;
  }
}

void upstream_connection::on_cut(const error_code& ec) {
  if (reused_ && !answered_)
    return send_again();
  if (ec == asio::error::eof && reader_.end() == reply_reader::status::complete)
    return finish({});
  if (answered_)
    return end(errc::disconnected, "the connection ended before the answer did");
  end(errc::disconnected, "the connection ended before the answer came");
}

// ---- ending

void upstream_connection::finish(std::string_view rest) {
  auto& watcher = *job_.watcher;
  auto reusable = reader_.keep_alive() && rest.empty() && backlog() == 0;
  if (!rest.empty())
    log::http.debug("upstream-unasked", "{} sent bytes after its answer", host_->address);
  detach();
  if (reusable) {
    phase_ = phase::idle;
    reader_.trim();
    read();
    pool_.keep(*this);
  } else {
    close();
  }
  watcher.on_end({errc::ok, {}});
}

void upstream_connection::end(errc code, std::string_view text) {
  end({code, host_->address + ": " + std::string{text}});
}

void upstream_connection::end(const error& failure) {
  auto& watcher = *job_.watcher;
  detach();
  close();
  watcher.on_end(failure);
}

// Where this may be called from within `send`, nothing may be told yet.
void upstream_connection::end_later(error failure) {
  phase_ = phase::failing;
  timer.unlink();
  asio::post(
    pool_.loop().io(), [self = upstream_ptr{this}, failure = std::move(failure)]() mutable {
      if (self->phase_ == phase::failing)
        self->end(failure);
    });
}

} // namespace llumnix::net
