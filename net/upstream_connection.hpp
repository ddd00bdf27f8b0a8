#pragma once

#include "net/deadline_wheel.hpp"
#include "net/http_connection.hpp"
#include "net/reply_reader.hpp"
#include "net/upstream_host.hpp"
#include "net/upstream_pool.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/intrusive/list.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/smart_ptr/intrusive_ref_counter.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace llumnix::net {

class loop_upstream;
class upstream_connection;

/// What the sender of a request holds. Knows the connection the request is on, until its end.
class upstream_ticket final : public upstream_call {
public:
  ~upstream_ticket() override;
  void hold() override;
  void resume() override;

private:
  friend class upstream_connection;
  upstream_connection* connection_ = nullptr;
};

/// A request on its way, with all it takes to send it again.
struct upstream_job {
  upstream_ticket* ticket = nullptr;
  upstream_watcher* watcher = nullptr;
  std::string text;       ///< the head, and the body if it is small
  shared_text body_begin; ///< of a large body
  std::string body_end;   ///< the rest of that
  std::chrono::milliseconds silence{0};
  std::size_t max_body_bytes = 0;
  bool to_head = false; ///< a HEAD request, whose answer has no body
  bool stream = false;
  bool held = false;
  bool sent_before = false; ///< on a kept connection that ended: the server may have it

  /// Bytes of the request; 0 once it is not needed any more.
  std::size_t size() const { return text.size() + body_begin.text.size() + body_end.size(); }
};

/// One connection to a server behind us, for one request after the other. Confined to its loop; its
/// pool owns it until it is closed, and its pending operations keep it alive a little longer.
///
///     resolving -> connecting -> busy -> idle -> busy ... -> closed
///
/// A wait for input is pending except while the answer is held: when idle, it shows that the server
/// has closed. Input is read into the buffer of the loop and handed on from there. The request is
/// offered to the socket at once, and waits for it only if refused.
class upstream_connection final
  : public boost::intrusive_ref_counter<upstream_connection, boost::thread_unsafe_counter>,
    public boost::intrusive::list_base_hook<
      boost::intrusive::link_mode<boost::intrusive::auto_unlink>> {
public:
  using clock = std::chrono::steady_clock;

  upstream_connection(loop_upstream& pool, std::shared_ptr<upstream_host> host);
  ~upstream_connection();

  /// Connects, and then sends the request.
  void open(upstream_job job);
  /// Sends the request on this connection, which was kept.
  void reuse(upstream_job job);
  /// Tells a request that cannot be sent at all.
  void refuse(upstream_job job, error why);
  /// The endpoints of the host are known now, or `ec` says why not.
  void on_addresses(const boost::system::error_code& ec);
  /// The time given for what it is doing is over.
  void on_deadline();
  /// Drops the connection; its watcher hears nothing.
  void close();
  /// Waits for more of the answer, or for the end of an idle connection.
  void read();

  // What the holder of the ticket does.
  void give_up();
  void hold();
  void resume();

  const std::shared_ptr<upstream_host>& host() const { return host_; }

  // Where the pool keeps it.
  deadline_hook timer;
  clock::time_point deadline;
  using hook = boost::intrusive::list_member_hook<
    boost::intrusive::link_mode<boost::intrusive::auto_unlink>>;
  hook among_idle;
  hook among_paused;
  clock::time_point paused_until;

private:
  enum class phase { resolving, connecting, busy, idle, failing, closed };

  std::size_t backlog() const { return job_.size() - sent_; }
  std::size_t write_some(boost::system::error_code& ec);
  void forget_text();
  void take_on(upstream_job job);
  void detach();
  void connect_next(const boost::system::error_code& failed);
  void on_connect(const boost::system::error_code& ec);
  errc not_connected() const;
  bool met_itself();
  void renew();
  void read_on();
  void on_readable(boost::system::error_code ec);
  void on_data(std::string_view data);
  void on_cut(const boost::system::error_code& ec);
  void flush();
  void on_writable(const boost::system::error_code& ec);
  void on_all_sent();
  void on_write_failed(const boost::system::error_code& ec);
  void send_again();
  void finish(std::string_view rest);
  void end(errc code, std::string_view text);
  void end(const error& failure);
  void end_later(error failure);

  loop_upstream& pool_;
  std::shared_ptr<upstream_host> host_;
  loop_socket socket_;
  phase phase_ = phase::resolving;
  bool reused_ = false;       // the job is not the first
  bool answered_ = false;     // something of the answer has come
  bool reading_ = false;      // a wait for input is pending
  bool read_before_ = false;  // something of the answer was read before
  std::uint32_t attempt_ = 0; // to connect; also the endpoint that comes next
  std::size_t sent_ = 0;      // bytes of the request the kernel has taken
  clock::time_point connect_by_;
  upstream_job job_;
  reply_reader reader_;
};

using upstream_ptr = boost::intrusive_ptr<upstream_connection>;

} // namespace llumnix::net
