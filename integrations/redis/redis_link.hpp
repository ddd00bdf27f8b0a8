#pragma once

#include "integrations/redis/redis_client.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>

#include <array>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

namespace llumnix {

/// What a `redis_client` is made of: one connection after another on one I/O loop, one thread.
/// Included by its source and nobody else.
struct redis_client::link {
  link(
    const redis_config& config, std::string host, std::string port, redis_metrics& metrics,
    std::function<void(bool)> on_link);

  void dial();
  void stop();
  bool has_room() const;
  void enqueue(const std::vector<std::string>& words, reply_handler done);

  boost::asio::io_context io{1};
  bool up = false;
  bool stopping = false;

private:
  using tcp = boost::asio::ip::tcp;

  // One attempt and what became of it. Handlers hold it, and do nothing once it is not the current
  // one.
  struct connection {
    explicit connection(boost::asio::io_context& io) : socket{io} {}
    tcp::socket socket;
    resp_reader reader;
    std::array<char, 64 * 1024> incoming;
    std::string outgoing; // waits for the write under way
    std::string writing;
    bool write_posted = false;
  };
  using connection_ptr = std::shared_ptr<connection>;

  // The loop as a thread that resolves a name may still know it.
  struct loop_handle {
    std::mutex mutex;
    link* target = nullptr;
    bool resolving = false;
  };

  struct waiting_command {
    reply_handler done;
    time_point sent;
  };

  void resolve(const connection_ptr& current);
  void connect(const connection_ptr& current, std::vector<tcp::endpoint> endpoints);
  void greet();
  void on_pong(result<redis_reply> reply);
  void write(const connection_ptr& current);
  void read(const connection_ptr& current);
  void on_bytes(const connection_ptr& current, std::size_t count);
  void watch(const connection_ptr& current, time_point until);
  void lose(error why, bool refused_us = false);
  void report(const error& why, bool refused_us);

  redis_config config_;
  std::string host_;
  std::string port_;
  redis_metrics& metrics_;
  std::function<void(bool)> on_link_;
  connection_ptr current_;
  std::deque<waiting_command> waiting_;
  boost::asio::steady_timer watchdog_{io};
  boost::asio::steady_timer redial_{io};
  std::chrono::milliseconds pause_;
  std::minstd_rand jitter_{std::random_device{}()};
  time_point up_since_;
  bool was_up_ = false;           // ever
  bool loss_reported_ = false;    // of the present outage
  bool refusal_reported_ = false; // of the present outage
  std::shared_ptr<loop_handle> handle_ = std::make_shared<loop_handle>();
};

} // namespace llumnix
