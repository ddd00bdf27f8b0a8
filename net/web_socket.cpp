#include "net/web_socket.hpp"

#include "net/http_loop.hpp"
#include "net/upstream_host.hpp"
#include "runtime/base/assert.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/websocket.hpp>

#include <chrono>
#include <deque>
#include <optional>
#include <utility>

namespace llumnix::net {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = boost::beast::websocket;
using boost::system::error_code;

constexpr std::size_t messages_waiting = 16;
constexpr std::chrono::seconds for_a_handshake{10};
constexpr std::chrono::seconds for_a_goodbye{1};

using upgrade_request = beast::http::request<beast::http::empty_body>;

/// The same request as Beast has it.
upgrade_request to_beast(const http_request& request) {
  upgrade_request same{beast::http::verb::get, "/", 11};
  for (auto name : {"host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"})
    if (auto value = request.header(name); !value.empty())
      same.insert(name, beast::string_view{value.data(), value.size()});
  return same;
}

bool asks_for_web_socket(const http_request& request, const upgrade_request& same) {
  constexpr std::size_t key_size = 24; // 16 bytes as base64
  return request.method == "GET" && websocket::is_upgrade(same)
         && request.header("sec-websocket-version") == "13"
         && request.header("sec-websocket-key").size() == key_size;
}

/// Kept by its pending operations too, so that they always end on something.
class loop_web_socket final : public loop_guest,
                              public std::enable_shared_from_this<loop_web_socket> {
public:
  /// `counted`: the server counts it among its connections.
  loop_web_socket(
    http_loop& loop, loop_socket socket, web_socket_watcher& watcher, std::size_t message_bytes_max,
    bool counted)
    : loop_{loop}, stream_{std::move(socket)}, watcher_{&watcher}, counted_{counted} {
    websocket::stream_base::timeout patience{
      for_a_handshake, websocket::stream_base::none(), false};
    stream_.set_option(patience);
    stream_.read_message_max(message_bytes_max);
    stream_.control_callback([this](websocket::frame_type kind, beast::string_view) {
      if (kind == websocket::frame_type::pong && watcher_)
        watcher_->on_pong();
      else if (kind == websocket::frame_type::ping && watcher_)
        watcher_->on_ping();
    });
    loop.take_in(*this);
  }

  void start(const upgrade_request& request) {
    stream_.async_accept(request, [self = shared_from_this()](error_code ec) {
      if (self->goes_on(ec)) {
        self->accepted_ = true;
        self->read();
        self->write();
      }
    });
  }

  void dial(const web_socket_target& target) {
    target_ = target;
    give_up_at_ = std::chrono::steady_clock::now() + target.patience;
    host_ = upstream_host::parse(target.address);
    if (!host_)
      return asio::post(loop_.io(), [self = shared_from_this()] { self->end(); });
    resolver_.emplace(loop_.io());
    resolver_->async_resolve(
      host_->name, host_->port, [self = shared_from_this()](error_code ec, const auto& found) {
        if (self->goes_on(ec))
          self->connect(found);
      });
  }

  void send(std::string message) {
    if (ended_)
      return;
    if (unsent_.size() >= messages_waiting)
      return end();
    unsent_.push_back(std::move(message));
    if (unsent_.size() == 1 && accepted_)
      write();
  }

  void ping() {
    if (ended_ || !accepted_ || std::exchange(pinging_, true))
      return;
    stream_.async_ping({}, [self = shared_from_this()](error_code ec) {
      self->pinging_ = false;
      self->goes_on(ec);
    });
  }

  /// Whoever watches it has let go of it.
  void drop() {
    watcher_ = nullptr;
    end();
  }

  /// One that says goodbye, or breaks the rules, has a moment to hang up.
  void on_tick(std::chrono::steady_clock::time_point now) override {
    if (give_up_at_ && now >= *give_up_at_)
      return end();
    if (!accepted_ || stream_.is_open())
      return;
    if (!closing_since_)
      closing_since_ = now;
    else if (now - *closing_since_ >= for_a_goodbye)
      end();
  }
  void on_loop_end() override { drop(); }

private:
  using resolver = asio::ip::basic_resolver<asio::ip::tcp, asio::io_context::executor_type>;

  void connect(const resolver::results_type& found) {
    asio::async_connect(
      stream_.next_layer(), found, [self = shared_from_this()](error_code ec, const auto&) {
        if (self->goes_on(ec))
          self->greet();
      });
  }

  void greet() {
    error_code ignored;
    stream_.next_layer().set_option(asio::ip::tcp::no_delay{true}, ignored);
    stream_.set_option(websocket::stream_base::decorator([this](websocket::request_type& request) {
      for (const auto& [name, value] : target_.headers)
        request.set(name, value);
    }));
    stream_.async_handshake(
      target_.address, target_.path, [self = shared_from_this()](error_code ec) {
        if (self->goes_on(ec))
          self->opened();
      });
  }

  void opened() {
    error_code unknown;
    auto here = stream_.next_layer().local_endpoint(unknown);
    if (!goes_on(unknown))
      return;
    give_up_at_.reset();
    accepted_ = true;
    read();
    write();
    if (watcher_)
      watcher_->on_open(here.address().to_string(), here.port());
  }

  bool goes_on(error_code ec) {
    if (ec)
      end();
    return !ended_;
  }

  void read() {
    stream_.async_read(buffer_, [self = shared_from_this()](error_code ec, std::size_t) {
      if (!self->goes_on(ec))
        return;
      auto data = self->buffer_.cdata();
      if (self->watcher_)
        self->watcher_->on_message({static_cast<const char*>(data.data()), data.size()});
      self->buffer_.consume(data.size());
      if (!self->ended_)
        self->read();
    });
  }

  void write() {
    if (unsent_.empty())
      return;
    stream_.text(true);
    stream_.async_write(
      asio::buffer(unsent_.front()), [self = shared_from_this()](error_code ec, std::size_t) {
        if (!self->goes_on(ec))
          return;
        self->unsent_.pop_front();
        self->write();
      });
  }

  void end() {
    if (std::exchange(ended_, true))
      return;
    auto keep = shared_from_this();
    unlink();
    if (counted_)
      loop_.remove_connection();
    if (resolver_)
      resolver_->cancel();
    error_code ignored;
    stream_.next_layer().close(ignored);
    if (auto* watcher = std::exchange(watcher_, nullptr))
      watcher->on_closed();
  }

  http_loop& loop_; ///< only until it ends
  websocket::stream<loop_socket> stream_;
  web_socket_watcher* watcher_;
  beast::flat_buffer buffer_;
  std::deque<std::string> unsent_; ///< the first is being written
  std::optional<std::chrono::steady_clock::time_point> closing_since_;
  bool counted_;

  // Of one that we open.
  web_socket_target target_;
  std::shared_ptr<upstream_host> host_;
  std::optional<resolver> resolver_;
  std::optional<std::chrono::steady_clock::time_point> give_up_at_;

  bool accepted_ = false;
  bool pinging_ = false;
  bool ended_ = false;
};

/// What the watcher holds.
class held_web_socket final : public web_socket {
public:
  explicit held_web_socket(std::shared_ptr<loop_web_socket> socket) : socket_{std::move(socket)} {}
  ~held_web_socket() override { socket_->drop(); }
  void send(std::string message) override { socket_->send(std::move(message)); }
  void ping() override { socket_->ping(); }

private:
  std::shared_ptr<loop_web_socket> socket_;
};

} // namespace

std::unique_ptr<web_socket> accept_web_socket(
  exchange& client, const http_request& request, web_socket_watcher& watcher,
  std::size_t message_bytes_max) {
  auto same = to_beast(request);
  auto* exchange = dynamic_cast<connection_exchange*>(&client);
  if (!exchange || !asks_for_web_socket(request, same))
    return nullptr;
  connection_ptr connection{exchange->connection()};
  if (!connection || connection->backlog() > 0)
    return nullptr;
  auto& loop = connection->loop();
  auto socket = std::make_shared<loop_web_socket>(
    loop, connection->surrender(), watcher, message_bytes_max, true);
  socket->start(same);
  return std::make_unique<held_web_socket>(std::move(socket));
}

std::unique_ptr<web_socket>
open_web_socket(executor& loop, const web_socket_target& target, web_socket_watcher& watcher) {
  auto* where = dynamic_cast<http_loop*>(&loop);
  LLUMNIX_ASSERT(where != nullptr);
  auto socket = std::make_shared<loop_web_socket>(
    *where, loop_socket{where->io()}, watcher, target.message_bytes_max, false);
  socket->dial(target);
  return std::make_unique<held_web_socket>(std::move(socket));
}

} // namespace llumnix::net
