#pragma once

#include "net/body_budget.hpp"
#include "net/http_connection.hpp"
#include "net/http_server.hpp"

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/intrusive/list.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace llumnix::net {

/// What a connection may wait for, each for a time of its own.
enum class deadline_kind { idle, head, body, linger };

/// What lives on a loop beside its server; may go before or after it.
class loop_guest : public boost::intrusive::list_base_hook<
                     boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
public:
  /// About ten times a second.
  virtual void on_tick(std::chrono::steady_clock::time_point now) = 0;
  /// The loop goes: let go of everything that is bound to it.
  virtual void on_loop_end() = 0;

protected:
  ~loop_guest() = default;
};

/// One I/O thread's world: an acceptor of its own, its connections, its handler and one timer.
///
/// Deadlines of one kind all last equally long, so each kind is a queue in order of expiry: setting
/// one is moving to the back, and the tick looks at the front only.
class http_loop final : public executor {
public:
  using clock = std::chrono::steady_clock;

  /// `connections` and `bodies` count those of all loops of the server.
  http_loop(
    const http_server_options& options, std::atomic<std::size_t>& connections, body_budget& bodies);
  ~http_loop() override;

  /// Binds and listens, sharing the port with the other loops. Fails with the system's words.
  result<boost::asio::ip::tcp::endpoint> listen(const boost::asio::ip::tcp::endpoint& where);
  void set_handler(std::unique_ptr<http_handler> handler) { handler_ = std::move(handler); }
  /// Accepts and serves until `end`, on the calling thread.
  void run();
  /// Makes `run` return. From any thread.
  void end() { io_->stop(); }
  /// Drops the connections; after `run` has returned.
  void close_all();
  /// Closes what is idle; from now on every connection ends with its next answer.
  void drain();
  /// The guest leaves by being destroyed.
  void take_in(loop_guest& guest) { guests_.push_back(guest); }

  void post(std::function<void()> work) override;
  clock::time_point now() const override { return clock::now(); }

  // For the connections.
  const http_server_options& options() const { return options_; }
  http_handler& handler() { return *handler_; }
  body_budget& bodies() { return bodies_; }
  bool draining() const { return draining_; }
  void set_deadline(http_connection& connection, deadline_kind kind);
  void add_exchange() { count_exchanges(1); }
  void remove_exchanges(std::size_t count) { count_exchanges(-static_cast<std::ptrdiff_t>(count)); }
  void remove_connection() { connections_.fetch_sub(1, std::memory_order_relaxed); }
  boost::asio::io_context& io() { return *io_; }
  /// For whoever reads at once what has arrived; what it holds does not outlive the handler of that
  /// event.
  std::array<char, 64 * 1024>& read_buffer() { return *read_buffer_; }
  /// Output buffers wander between connections, so that idle ones hold none.
  void lend(std::string& out);
  void take_back(std::string& out);

  /// From any thread.
  std::size_t open_exchanges() const { return exchanges_.load(std::memory_order_relaxed); }

private:
  using connection_list
    = boost::intrusive::list<http_connection, boost::intrusive::constant_time_size<false>>;
  using guest_list
    = boost::intrusive::list<loop_guest, boost::intrusive::constant_time_size<false>>;
  struct deadline_queue {
    std::chrono::milliseconds lasts{0};
    boost::intrusive::list<
      http_connection,
      boost::intrusive::member_hook<
        http_connection,
        boost::intrusive::list_member_hook<
          boost::intrusive::link_mode<boost::intrusive::auto_unlink>>,
        &http_connection::timer>,
      boost::intrusive::constant_time_size<false>>
      waiting;
  };

  void accept();
  void on_accept(boost::system::error_code ec, loop_socket socket);
  void take(loop_socket socket);
  void tick();
  void tick_guests();
  void count_exchanges(std::ptrdiff_t change) {
    // Written by the loop alone; others only read.
    exchanges_.store(
      exchanges_.load(std::memory_order_relaxed) + static_cast<std::size_t>(change),
      std::memory_order_relaxed);
  }

  http_server_options options_;
  std::atomic<std::size_t>& connections_;
  body_budget& bodies_;
  std::atomic<std::size_t> exchanges_{0};
  std::atomic<bool> discarding_{false}; // the executor outlives the io_context by a little
  std::unique_ptr<http_handler> handler_;
  std::unique_ptr<std::array<char, 64 * 1024>> read_buffer_;
  std::vector<std::string> spare_;
  std::unique_ptr<boost::asio::io_context> io_;
  std::optional<boost::asio::basic_socket_acceptor<
    boost::asio::ip::tcp, boost::asio::io_context::executor_type>>
    acceptor_;
  boost::asio::ip::tcp::endpoint peer_; ///< of the connection accepted last
  std::optional<boost::asio::basic_waitable_timer<
    clock, boost::asio::wait_traits<clock>, boost::asio::io_context::executor_type>>
    timer_;
  connection_list all_;
  guest_list guests_;
  std::array<deadline_queue, 4> deadlines_;
  clock::time_point ticked_;
  unsigned ticks_ = 0;
  bool draining_ = false;
  bool accept_paused_ = false;
};

} // namespace llumnix::net
