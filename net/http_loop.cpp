#include "net/http_loop.hpp"

#include "runtime/base/log.hpp"

#include <boost/asio/error.hpp>
#include <boost/asio/post.hpp>

#include <cerrno>
#include <sys/socket.h>
#include <utility>

namespace llumnix::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::chrono::milliseconds tick_every{100};
constexpr std::chrono::milliseconds linger_for{2000};
constexpr std::size_t turned_away_politely
  = 128; // connections above the limit that still get an answer
constexpr std::size_t accepted_at_once = 64;
constexpr std::size_t spare_buffers = 64;
constexpr std::size_t spare_buffer_bytes = 64 * 1024;

std::string to_text(const tcp::endpoint& where) {
  auto host = where.address().to_string();
  if (where.address().is_v6())
    host = "[" + host + "]";
  return host + ":" + std::to_string(where.port());
}

} // namespace

http_loop::http_loop(
  const http_server_options& options, std::atomic<std::size_t>& connections, body_budget& bodies)
  : options_{options},
    connections_{connections},
    bodies_{bodies},
    read_buffer_{std::make_unique<std::array<char, 64 * 1024>>()},
    io_{std::make_unique<asio::io_context>(1)},
    ticked_{clock::now()} {
  acceptor_.emplace(io_->get_executor());
  timer_.emplace(io_->get_executor());
  auto lasts = [this](deadline_kind kind, std::chrono::milliseconds time) {
    deadlines_[static_cast<std::size_t>(kind)].lasts = time;
  };
  lasts(deadline_kind::idle, options.idle_timeout);
  lasts(deadline_kind::head, options.header_timeout);
  lasts(deadline_kind::body, options.body_timeout);
  lasts(deadline_kind::linger, linger_for);
}

http_loop::~http_loop() {
  close_all();
  if (handler_)
    handler_->on_loop_end();
  while (!guests_.empty()) {
    auto& guest = guests_.front();
    guests_.pop_front();
    guest.on_loop_end();
  }
  // Work that was posted and never ran may hold what belongs to the handler, so it goes first; what
  // that or the handler posts from here on is dropped.
  discarding_ = true;
  acceptor_.reset();
  timer_.reset();
  io_.reset();
  handler_.reset();
}

result<tcp::endpoint> http_loop::listen(const tcp::endpoint& where) {
  error_code ec;
  acceptor_->open(where.protocol(), ec);
  if (!ec)
    acceptor_->set_option(tcp::acceptor::reuse_address{true}, ec);
  int on = 1;
  if (
    !ec && ::setsockopt(acceptor_->native_handle(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
    ec = error_code{errno, boost::system::system_category()};
  if (!ec)
    acceptor_->set_option(tcp::no_delay{true}, ec); // what is accepted inherits it
  if (!ec)
    acceptor_->bind(where, ec);
  if (!ec)
    acceptor_->listen(asio::socket_base::max_listen_connections, ec);
  if (!ec)
    acceptor_->non_blocking(true, ec);
  auto bound = ec ? tcp::endpoint{} : acceptor_->local_endpoint(ec);
  if (ec)
    return {errc::unreachable, ec.message()};
  return bound;
}

void http_loop::run() {
  asio::post(*io_, [this] {
    accept();
    tick();
  });
  io_->run();
}

void http_loop::post(std::function<void()> work) {
  if (!discarding_)
    asio::post(*io_, std::move(work));
}

void http_loop::close_all() {
  while (!all_.empty())
    all_.front().close();
}

void http_loop::drain() {
  draining_ = true;
  for (auto it = all_.begin(); it != all_.end();)
    (it++)->on_drain();
}

// ---- accepting

void http_loop::accept() {
  accept_paused_ = false;
  acceptor_->async_accept(
    peer_, [this](error_code ec, loop_socket socket) { on_accept(ec, std::move(socket)); });
}

void http_loop::on_accept(error_code ec, loop_socket socket) {
  if (ec == asio::error::operation_aborted)
    return;
  if (ec == asio::error::connection_aborted)
    return accept();
  if (ec) { // out of descriptors or memory: asking again at once would spin
    log::http.warn("accept-failed", "{}; pausing", ec.message());
    accept_paused_ = true;
    return;
  }
  take(std::move(socket));
  // Those that wait come at once: with one for each turn, a busy loop would let them in slowly.
  for (std::size_t taken = 1; taken < accepted_at_once; ++taken) {
    loop_socket next{io_->get_executor()};
    acceptor_->accept(next, peer_, ec);
    if (ec) // there are no more, or it shows again
      break;
    take(std::move(next));
  }
  accept();
}

void http_loop::take(loop_socket socket) {
  error_code ec;
  socket.non_blocking(true, ec);
  if (ec) // gone already
    return;
  auto others = connections_.fetch_add(1, std::memory_order_relaxed);
  connection_ptr connection{new http_connection{*this, std::move(socket), to_text(peer_)}};
  all_.push_back(*connection);
  intrusive_ptr_add_ref(connection.get()); // the loop's share, given back by `close`
  if (others < options_.max_connections)
    connection->start();
  else if (others < options_.max_connections + turned_away_politely)
    connection->turn_away();
  else
    connection->close();
}

// ---- time

void http_loop::set_deadline(http_connection& connection, deadline_kind kind) {
  auto& queue = deadlines_[static_cast<std::size_t>(kind)];
  connection.timer.unlink();
  connection.deadline
    = ticked_ + queue.lasts + tick_every; // never early: ticked_ is up to a tick old
  queue.waiting.push_back(connection);
}

void http_loop::tick() {
  ticked_ = clock::now();
  for (auto& queue : deadlines_) {
    while (!queue.waiting.empty() && queue.waiting.front().deadline <= ticked_) {
      auto& late = queue.waiting.front();
      late.timer.unlink();
      late.on_deadline();
    }
  }
  if (++ticks_ % 10 == 0)
    for (auto it = all_.begin(); it != all_.end();)
      (it++)->check_up();
  if (accept_paused_)
    accept();
  tick_guests();
  handler_->on_tick();
  timer_->expires_at(ticked_ + tick_every);
  timer_->async_wait([this](error_code ec) {
    if (!ec)
      tick();
  });
}

// A guest may end others, or itself.
void http_loop::tick_guests() {
  guest_list waiting;
  waiting.swap(guests_);
  while (!waiting.empty()) {
    auto& guest = waiting.front();
    waiting.pop_front();
    guests_.push_back(guest);
    guest.on_tick(ticked_);
  }
}

// ---- output buffers

void http_loop::lend(std::string& out) {
  if (!out.empty() || spare_.empty() || out.capacity() >= spare_.back().capacity())
    return;
  out.swap(spare_.back());
  spare_.pop_back();
}

void http_loop::take_back(std::string& out) {
  out.clear();
  if (out.capacity() <= std::string{}.capacity())
    return;
  if (spare_.size() < spare_buffers && out.capacity() <= spare_buffer_bytes)
    spare_.push_back(std::move(out));
  std::string{}.swap(out);
}

} // namespace llumnix::net
