#pragma once

#include "net/http_server.hpp"
#include "net/http_writer.hpp"
#include "net/request_reader.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/intrusive/list.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/smart_ptr/intrusive_ref_counter.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace llumnix::net {

class http_connection;
class http_loop;

// Concrete executor types: the type-erased ones cost 12 % of a small request.
using loop_socket
  = boost::asio::basic_stream_socket<boost::asio::ip::tcp, boost::asio::io_context::executor_type>;

/// The exchange a handler holds. Loses its connection when it is answered or the client is gone;
/// every call is then a no-op. Reused for the next request of the connection unless a handler still
/// holds it.
class connection_exchange final : public exchange {
public:
  void watch(exchange_watcher* watcher) override { watcher_ = watcher; }
  void reply(http_reply whole) override;
  void begin_stream(int status, const header_list& headers) override;
  void write(std::string_view chunk) override;
  void flush() override;
  void end_stream() override;
  void abandon() override;
  std::size_t backlog() const override;
  std::chrono::steady_clock::time_point stalled_since() const override;

  /// Null once it is answered or the client is gone.
  http_connection* connection() const { return connection_; }

private:
  friend class http_connection;
  void tell_gone();

  http_connection* connection_ = nullptr;
  exchange_watcher* watcher_ = nullptr;
};

/// One client's connection: reads requests, one after the other, and writes their answers. Confined
/// to its loop, which owns it until it is closed; its pending operations keep it alive a little
/// longer.
///
///     idle -> head -> body -> answering -> sending -> idle ... -> lingering -> closed
///
/// A read is pending nearly always, also while an answer is open: that is how a client that leaves
/// is noticed. Output gathers in one flat string, is offered to the socket at once, and waits for
/// the socket only if refused.
class http_connection final
  : public boost::intrusive_ref_counter<http_connection, boost::thread_unsafe_counter>,
    public boost::intrusive::list_base_hook<
      boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
public:
  using clock = std::chrono::steady_clock;

  http_connection(http_loop& loop, loop_socket socket, std::string peer);
  ~http_connection();

  void start();
  /// Tells the client that there is no room for it, and closes.
  void turn_away();
  /// The time given for what it is doing is over.
  void on_deadline();
  /// Closes it if it waits for a request of which nothing has come.
  void on_drain();
  /// Ends what cannot end by itself, about once a second: an exchange that nobody holds any more,
  /// and one whose client has left behind so much input that its end is not read.
  void check_up();
  /// Drops the connection; watchers hear nothing.
  void close();

  // What the current exchange does.
  void reply(const http_reply& whole);
  void begin_stream(int status, const header_list& headers);
  void write(std::string_view chunk);
  void flush_stream();
  void end_stream();
  std::size_t backlog() const { return out_.size() - sent_; }
  clock::time_point stalled_since() const;

  // For whoever goes on with the connection in another protocol.

  http_loop& loop() { return loop_; }
  /// Gives the socket away, in place of an answer to the current request and with nothing left to
  /// send; what has come behind the request is lost. The server goes on counting the connection:
  /// whoever has it takes it back with `http_loop::remove_connection`.
  loop_socket surrender();

  // Where the loop keeps it while a deadline runs.
  boost::intrusive::list_member_hook<boost::intrusive::link_mode<boost::intrusive::auto_unlink>>
    timer;
  clock::time_point deadline;

private:
  enum class phase { idle, head, body, answering, sending, lingering, closed };

  bool receiving() const { return phase_ <= phase::body; }
  void enter(phase next);
  void read();
  void on_read(boost::system::error_code ec, std::size_t size);
  void on_data(std::string_view data);
  void on_end(bool orderly);
  void on_half_closed();
  void note_last_input();
  void watch_for_reset();
  bool half_closed() const { return half_closed_ && phase_ == phase::answering; }
  void parse(std::string_view& data);
  void on_partial();
  bool pay_for_body();
  void give_back_body();
  void dispatch();
  void refuse(int status, std::string_view text);
  void answered();
  void advance();
  void flush();
  void on_writable();
  void wait_writable();
  void on_all_sent();
  void enforce_backlog();
  void linger();
  void lost();
  void leave();
  reply_form form() const;

  http_loop& loop_;
  loop_socket socket_;
  phase phase_ = phase::head;
  bool reading_ = false; // a read is pending
  bool waiting_ = false; // for the socket to take more
  bool parsing_ = false;
  bool starved_ = true; // what is in in_ is not a whole request
  bool keep_alive_ = true;
  bool half_closed_ = false;  // the client sends no more, and may still read
  bool streaming_ = false;    // between begin_stream and end_stream
  bool event_stream_ = false; // what is streamed is text/event-stream
  bool bodiless_ = false;     // the stream being written is an answer without body
  std::size_t unsent_ = 0;    // exchanges answered whose bytes are not all sent
  std::size_t sent_ = 0;      // bytes of out_ the kernel has taken
  std::size_t paid_ = 0;      // bytes of the body being read, taken from the server's budget
  std::size_t marked_ = 0; // body bytes when the body timer was set; bytes drained when lingering
  clock::time_point stalled_since_;
  std::string out_;
  std::string in_; // not yet understood
  request_reader reader_;
  std::shared_ptr<connection_exchange> exchange_;
  std::string peer_;
  std::array<char, 2048> first_; // small, for it is what an idle connection costs
};

using connection_ptr = boost::intrusive_ptr<http_connection>;

} // namespace llumnix::net
