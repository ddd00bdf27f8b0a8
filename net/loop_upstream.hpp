#pragma once

#include "net/http_loop.hpp"
#include "net/read_pace.hpp"
#include "net/upstream_connection.hpp"
#include "net/upstream_host.hpp"
#include "net/upstream_pool.hpp"

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <boost/intrusive/list.hpp>

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

namespace llumnix::net {

/// The pool on one loop: hosts by their address, and the connections to them.
class loop_upstream final : public upstream_pool, public loop_guest {
public:
  using clock = std::chrono::steady_clock;

  loop_upstream(http_loop& loop, const upstream_options& options);
  ~loop_upstream() override;

  std::unique_ptr<upstream_call> send(upstream_request request, upstream_watcher& watcher) override;
  std::size_t connections() const override { return count_; }

  void on_tick(clock::time_point now) override;
  void on_loop_end() override;

  // For the connections.
  http_loop& loop() { return *loop_; }
  const upstream_options& options() const { return options_; }
  /// Opens a new connection for the job.
  void open(std::shared_ptr<upstream_host> host, upstream_job job);
  /// Tells the connection the endpoints of its host: at once if they are known.
  void look_up(upstream_connection& connection);
  /// Keeps an idle connection for the next request; the one that was idle longest may have to go.
  void keep(upstream_connection& connection);
  /// Whether the loop is behind; then the connection is to read on in a little while.
  bool pause(upstream_connection& connection);
  /// It is closing; `kept` if it was idle.
  void remove(upstream_connection& connection, bool kept);
  static clock::time_point after(std::chrono::milliseconds time);
  void set_deadline(upstream_connection& connection, clock::time_point at) {
    deadlines_.set(connection, at);
  }

private:
  using resolver
    = boost::asio::ip::basic_resolver<boost::asio::ip::tcp, boost::asio::io_context::executor_type>;
  std::shared_ptr<upstream_host> host_of(const std::string& address);
  upstream_ptr make_connection(std::shared_ptr<upstream_host> host);
  void reuse(upstream_connection& connection, upstream_job job);
  void take_kept(upstream_connection& connection);
  void forget_hosts(clock::time_point now);
  void wait_for_paused();
  void end_pauses();
  void close_all();

  http_loop* loop_; // null once it has ended
  upstream_options options_;
  std::size_t count_ = 0;
  std::size_t idle_count_ = 0;
  unsigned ticks_ = 0;
  std::unordered_map<std::string, std::shared_ptr<upstream_host>> hosts_;
  std::optional<resolver> resolver_;
  thread_demand demand_;
  read_pace pace_;
  std::optional<boost::asio::basic_waitable_timer<
    clock, boost::asio::wait_traits<clock>, boost::asio::io_context::executor_type>>
    pause_timer_;
  deadline_wheel<upstream_connection> deadlines_;
  boost::intrusive::list<upstream_connection, boost::intrusive::constant_time_size<false>> all_;
  boost::intrusive::list<
    upstream_connection,
    boost::intrusive::member_hook<
      upstream_connection, upstream_connection::hook, &upstream_connection::among_idle>,
    boost::intrusive::constant_time_size<false>>
    idle_; // the one that waits longest in front
  boost::intrusive::list<
    upstream_connection,
    boost::intrusive::member_hook<
      upstream_connection, upstream_connection::hook, &upstream_connection::among_paused>,
    boost::intrusive::constant_time_size<false>>
    paused_; // in the order in which they go on
};

} // namespace llumnix::net
