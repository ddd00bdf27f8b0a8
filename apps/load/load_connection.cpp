#include "apps/load/load_connection.hpp"

#include <boost/asio/connect.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/basic_parser.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

namespace llumnix::load {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::size_t head_bytes_max = 64 * 1024;
constexpr std::size_t read_bytes = 16 * 1024;

/// Reads one reply and keeps nothing of it but what `reply_events` wants to hear.
class reply_parser final : public http::basic_parser<false> {
public:
  explicit reply_parser(const reply_events& events) : events_{events} {
    header_limit(head_bytes_max);
    body_limit(boost::none);
    eager(true);
  }

private:
  using view = boost::beast::string_view;

  void on_request_impl(http::verb, view, view, int, error_code&) override {}
  void on_response_impl(int status, view, int, error_code&) override { status_ = status; }
  void on_field_impl(http::field name, view text, view value, error_code&) override {
    if (text.size() == 12 && boost::beast::iequals(text, "x-request-id"))
      request_id_.assign(value.data(), std::min<std::size_t>(value.size(), 160));
    else if (name == http::field::content_type)
      event_stream_ = boost::beast::iequals(value.substr(0, 17), "text/event-stream");
  }
  void on_header_impl(error_code&) override {
    events_.on_head(status_, request_id_, event_stream_);
  }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code&) override {}
  std::size_t on_body_impl(view body, error_code&) override { return tell(body); }
  void on_chunk_header_impl(std::uint64_t, view, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, view body, error_code&) override {
    return tell(body);
  }
  void on_finish_impl(error_code&) override {}

  std::size_t tell(view body) {
    events_.on_body({body.data(), body.size()});
    return body.size();
  }

  const reply_events& events_;
  int status_ = 0;
  std::string request_id_;
  bool event_stream_ = false;
};

std::string connect_failure(error_code why) {
  return why == asio::error::connection_refused ? "connection refused" : "cannot connect";
}

} // namespace

struct load_connection::state : std::enable_shared_from_this<state> {
  state(asio::io_context& loop, tcp::resolver::results_type where)
    : socket{loop}, peer{std::move(where)} {}

  void begin() {
    held = 0;
    parser.emplace(events);
    heard = false;
    if (socket.is_open())
      return send();
    asio::async_connect(
      socket, peer,
      [me = shared_from_this(), mine = turn](error_code failed, const tcp::endpoint&) {
        if (mine != me->turn)
          return;
        if (failed)
          return me->end(connect_failure(failed));
        error_code ignored;
        me->socket.set_option(tcp::no_delay{true}, ignored);
        me->send();
      });
  }

  void send() {
    writing = true;
    asio::async_write(
      socket, asio::buffer(request),
      [me = shared_from_this(), mine = turn](error_code, std::size_t) {
        if (mine == me->turn)
          me->writing = false; // a failure shows when the reply is read, and a reply may have come
                               // all the same
      });
    read();
  }

  void read() {
    if (held == input.size())
      return end("reply is not HTTP");
    socket.async_read_some(
      asio::buffer(input.data() + held, std::min(read_bytes, input.size() - held)),
      [me = shared_from_this(), mine = turn](error_code failed, std::size_t size) {
        if (mine == me->turn)
          me->on_read(failed, size);
      });
  }

  void on_read(error_code failed, std::size_t size) {
    if (failed == asio::error::eof && heard && parser->got_some() && parser->need_eof()) {
      error_code bad;
      parser->put_eof(bad);
      return end(bad ? "reply cut short" : "");
    }
    if (failed)
      return lost(heard ? "reply cut short" : "connection closed before the reply");
    heard = true;
    held += size;
    std::size_t used = 0;
    while (used < held && !parser->is_done()) {
      error_code bad;
      auto mine = turn;
      auto took = parser->put(asio::buffer(input.data() + used, held - used), bad);
      if (mine != turn)
        return; // cancelled by what it told
      used += took;
      if (bad == http::error::need_more)
        break;
      if (bad)
        return end("reply is not HTTP");
    }
    std::copy(
      input.begin() + static_cast<std::ptrdiff_t>(used),
      input.begin() + static_cast<std::ptrdiff_t>(held), input.begin());
    held -= used;
    if (!parser->is_done())
      return read();
    keep = parser->keep_alive() && held == 0;
    end("");
  }

  /// The connection is gone. One kept from an earlier request may have been closed before this one
  /// reached the server: that is no failure of the endpoint, and the request goes out again.
  void lost(std::string_view why) {
    if (!kept || heard)
      return end(why);
    kept = false;
    ++turn;
    close();
    writing = false;
    begin();
  }

  void end(std::string_view why) {
    if (!busy)
      return;
    busy = false;
    ++turn;
    if (!why.empty() || !keep || writing)
      close();
    writing = false;
    kept = socket.is_open();
    auto told = std::exchange(events.on_end, nullptr);
    told(why);
  }

  void close() {
    error_code ignored;
    socket.close(ignored);
  }

  tcp::socket socket;
  tcp::resolver::results_type peer;
  std::string request;
  reply_events events;
  std::optional<reply_parser> parser;
  std::array<char, head_bytes_max + read_bytes> input;
  std::size_t held = 0;   ///< bytes of `input` not yet parsed
  std::uint64_t turn = 0; ///< of the exchange at hand; what belongs to an earlier one is ignored
  bool busy = false;
  bool writing = false;
  bool heard = false; ///< bytes of this reply have come
  bool keep = false;  ///< the reply allows another on this connection
  bool kept = false;  ///< the connection has served a request before
};

load_connection::load_connection(asio::io_context& loop, tcp::resolver::results_type peer)
  : state_{std::make_shared<state>(loop, std::move(peer))} {}

load_connection::~load_connection() {
  state_->busy = false;
  ++state_->turn;
  state_->close();
}

void load_connection::exchange(std::string request, reply_events events) {
  LLUMNIX_ASSERT(!state_->busy);
  state_->request = std::move(request);
  state_->events = std::move(events);
  state_->busy = true;
  state_->keep = false;
  asio::post(state_->socket.get_executor(), [me = state_, mine = ++state_->turn] {
    if (mine == me->turn)
      me->begin();
  });
}

void load_connection::cancel(std::string_view why) {
  state_->end(why);
}

std::string endpoint_url::authority() const {
  auto name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == "80" ? name : name + ":" + port;
}

result<endpoint_url> parse_endpoint(std::string_view url) {
  auto bad = [&](std::string_view why) {
    return error{errc::invalid_argument, "'" + std::string{url} + "': " + std::string{why}};
  };
  auto rest = url;
  if (rest.starts_with("https://"))
    return error{
      errc::unsupported,
      "'" + std::string{url}
        + "': load speaks plain HTTP only; put a TLS-terminating proxy in between"};
  if (rest.starts_with("http://"))
    rest.remove_prefix(7);
  else if (rest.find("://") != std::string_view::npos)
    return bad("not an http:// URL");
  endpoint_url endpoint;
  auto slash = rest.find('/');
  if (slash != std::string_view::npos) {
    endpoint.prefix = rest.substr(slash);
    while (endpoint.prefix.ends_with('/'))
      endpoint.prefix.pop_back();
    if (endpoint.prefix.ends_with("/v1")) // an SDK's base URL is fine too
      endpoint.prefix.resize(endpoint.prefix.size() - 3);
    rest = rest.substr(0, slash);
  }
  auto colon = rest.rfind(':');
  if (rest.starts_with('[')) {
    auto close = rest.find(']');
    if (close == std::string_view::npos)
      return bad("']' is missing");
    endpoint.host = rest.substr(1, close - 1);
    colon = rest.find(':', close);
  } else
    endpoint.host = rest.substr(0, colon);
  if (colon != std::string_view::npos) {
    endpoint.port = rest.substr(colon + 1);
    std::uint16_t number = 0;
    auto end = endpoint.port.data() + endpoint.port.size();
    auto [parsed, failed] = std::from_chars(endpoint.port.data(), end, number);
    if (failed != std::errc{} || parsed != end || number == 0)
      return bad("not a port: " + endpoint.port);
  }
  auto odd = [](char c) { return c <= ' ' || c == '?' || c == '#' || c == '@'; };
  if (endpoint.host.empty() || std::any_of(url.begin(), url.end(), odd))
    return bad("not of the form http://HOST:PORT");
  return endpoint;
}

std::string http_request_text(
  std::string_view method, const endpoint_url& endpoint, std::string_view path,
  std::string_view key, std::string_view body) {
  std::string text;
  text.reserve(body.size() + 256);
  text.append(method)
    .append(" ")
    .append(endpoint.prefix)
    .append(path)
    .append(" HTTP/1.1\r\nHost: ");
  text.append(endpoint.authority()).append("\r\nUser-Agent: llumnix-load\r\nAccept: */*\r\n");
  if (!key.empty())
    text.append("Authorization: Bearer ").append(key).append("\r\n");
  if (!body.empty())
    text.append("Content-Type: application/json\r\nContent-Length: ")
      .append(std::to_string(body.size()))
      .append("\r\n");
  text.append("\r\n").append(body);
  return text;
}

} // namespace llumnix::load
