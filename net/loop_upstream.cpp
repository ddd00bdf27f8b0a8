#include "net/loop_upstream.hpp"

#include "net/request_writer.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::net {

using boost::asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::chrono::seconds name_lasts{5};
constexpr std::size_t max_endpoints = 8; // of one name, that are tried
constexpr std::chrono::hours long_time{24 * 365};
constexpr std::size_t copied_up_to
  = 16 * 1024; // of a body: below it one write of one piece is cheaper

/// The request as it will be written.
result<void> write_down(upstream_job& job, upstream_request& request, bool keep_alive) {
  if (auto head = append_head(job.text, request, keep_alive); !head)
    return head;
  const auto& begin = request.body_begin.text;
  if (begin.size() + request.body.size() <= copied_up_to) {
    job.text += begin;
    job.text += request.body;
  } else {
    job.body_begin = std::move(request.body_begin);
    job.body_end = std::move(request.body);
  }
  return {};
}

} // namespace

loop_upstream::loop_upstream(http_loop& loop, const upstream_options& options)
  : loop_{&loop}, options_{options}, pace_{options.longest_pause}, deadlines_{clock::now()} {
  loop.take_in(*this);
}

loop_upstream::~loop_upstream() {
  close_all();
}

std::unique_ptr<upstream_call>
loop_upstream::send(upstream_request request, upstream_watcher& watcher) {
  auto ticket = std::make_unique<upstream_ticket>();
  if (loop_ == nullptr) // it runs no more, and nothing can be told
    return ticket;
  upstream_job job{
    .ticket = ticket.get(),
    .watcher = &watcher,
    .text = {},
    .body_begin = {},
    .body_end = {},
    .silence = request.silence,
    .max_body_bytes = request.max_body_bytes,
    .to_head = request.method == "HEAD",
    .stream = request.stream,
    .held = false};
  auto host = host_of(request.address);
  if (!host) {
    make_connection(std::make_shared<upstream_host>())
      ->refuse(
        std::move(job), {errc::invalid_argument, "the address is not of the form HOST:PORT"});
    return ticket;
  }
  loop_->lend(job.text);
  if (auto written = write_down(job, request, options_.idle_max > 0); !written)
    make_connection(std::move(host))->refuse(std::move(job), std::move(written).error());
  else if (host->kept.empty())
    open(std::move(host), std::move(job));
  else
    reuse(*host->kept.back(), std::move(job));
  return ticket;
}

std::shared_ptr<upstream_host> loop_upstream::host_of(const std::string& address) {
  if (auto found = hosts_.find(address); found != hosts_.end())
    return found->second;
  auto host = upstream_host::parse(address);
  if (host)
    hosts_.emplace(address, host);
  return host;
}

upstream_ptr loop_upstream::make_connection(std::shared_ptr<upstream_host> host) {
  upstream_ptr connection{new upstream_connection{*this, std::move(host)}};
  all_.push_back(*connection);
  ++count_;
  intrusive_ptr_add_ref(connection.get()); // the pool's share, given back by `close`
  return connection;
}

void loop_upstream::open(std::shared_ptr<upstream_host> host, upstream_job job) {
  make_connection(std::move(host))->open(std::move(job));
}

// ---- names

void loop_upstream::look_up(upstream_connection& connection) {
  auto host = connection.host();
  if (host->known(clock::now()))
    return connection.on_addresses({});
  host->waiting.push_back(&connection);
  if (std::exchange(host->resolving, true))
    return;
  if (!resolver_)
    resolver_.emplace(loop_->io().get_executor());
  // The host goes with the pool, and then nobody waits.
  resolver_->async_resolve(
    host->name, host->port, tcp::resolver::numeric_service,
    [asked = std::weak_ptr{host}](const error_code& ec, const tcp::resolver::results_type& found) {
      auto known = asked.lock();
      if (!known)
        return;
      known->resolving = false;
      if (!ec) {
        known->endpoints.clear();
        for (const auto& entry : found)
          if (known->endpoints.size() < max_endpoints)
            known->endpoints.push_back(entry.endpoint());
        known->known_until = clock::now() + name_lasts;
      }
      for (auto* waiting : std::exchange(known->waiting, {}))
        waiting->on_addresses(ec);
    });
}

void loop_upstream::forget_hosts(clock::time_point now) {
  std::erase_if(hosts_, [now](const auto& entry) {
    const auto& host = entry.second; // also held by each connection to it
    auto stale = !host->known(now) || host->known_until == clock::time_point::max();
    return host.use_count() == 1 && !host->resolving && stale;
  });
}

// ---- kept connections

void loop_upstream::keep(upstream_connection& connection) {
  set_deadline(connection, after(options_.idle_timeout));
  connection.host()->kept.push_back(&connection);
  idle_.push_back(connection);
  if (++idle_count_ > options_.idle_max)
    idle_.front().close();
}

void loop_upstream::take_kept(upstream_connection& connection) {
  auto& kept = connection.host()->kept;
  if (kept.back() == &connection)
    kept.pop_back();
  else
    std::erase(kept, &connection);
  connection.among_idle.unlink();
  --idle_count_;
}

void loop_upstream::reuse(upstream_connection& connection, upstream_job job) {
  take_kept(connection);
  connection.reuse(std::move(job));
}

void loop_upstream::remove(upstream_connection& connection, bool kept) {
  if (kept)
    take_kept(connection);
  --count_;
}

// ---- pauses

bool loop_upstream::pause(upstream_connection& connection) {
  if (pace_.pause().count() == 0)
    return false;
  connection.paused_until = clock::now() + pace_.pause();
  bool first = paused_.empty();
  paused_.push_back(connection);
  if (first)
    wait_for_paused();
  return true;
}

void loop_upstream::wait_for_paused() {
  if (!pause_timer_)
    pause_timer_.emplace(loop_->io().get_executor());
  pause_timer_->expires_at(paused_.front().paused_until);
  pause_timer_->async_wait([this](const error_code& ec) {
    if (!ec)
      end_pauses();
  });
}

// A few of those that come next go on as well, so that the timer does not go off for each.
void loop_upstream::end_pauses() {
  auto now = clock::now() + std::chrono::milliseconds{5};
  while (!paused_.empty() && paused_.front().paused_until <= now) {
    auto& connection = paused_.front();
    paused_.pop_front();
    connection.read();
  }
  if (!paused_.empty())
    wait_for_paused();
}

// ---- time

loop_upstream::clock::time_point loop_upstream::after(std::chrono::milliseconds time) {
  return clock::now() + std::min<std::chrono::milliseconds>(time, long_time);
}

void loop_upstream::on_tick(clock::time_point now) {
  pace_.update(now.time_since_epoch(), options_.demand ? options_.demand() : demand_());
  if (++ticks_ % 10 == 0)
    forget_hosts(now);
  deadline_wheel<upstream_connection>::list due;
  deadlines_.sweep(now, due);
  while (!due.empty()) { // a watcher may end any of these, and even the pool
    auto& connection = due.front();
    connection.timer.unlink();
    connection.on_deadline();
  }
}

void loop_upstream::on_loop_end() {
  close_all();
  pause_timer_.reset();
  resolver_.reset();
  hosts_.clear();
  loop_ = nullptr;
}

void loop_upstream::close_all() {
  while (!all_.empty())
    all_.front().close();
}

} // namespace llumnix::net
