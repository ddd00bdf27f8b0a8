#include "http_testing.hpp"
#include "net/web_socket.hpp"

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

namespace {

/// A frame as clients send it; a mask of zeros is one, too.
std::string frame(char opcode, const std::string& payload) {
  std::string bytes{static_cast<char>(0x80 | opcode)};
  if (payload.size() < 126) {
    bytes += static_cast<char>(0x80 | payload.size());
  } else {
    bytes += static_cast<char>(0x80 | 126);
    bytes += static_cast<char>(payload.size() >> 8);
    bytes += static_cast<char>(payload.size() & 255);
  }
  return bytes + std::string(4, '\0') + payload;
}

constexpr char text = 1, closing = 8, ping = 9, pong = 10;

const std::string upgrade = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: "
                            "Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
                            "dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Sends back what it hears, or lets go of its socket at "bye".
struct echo_server {
  struct speaker : web_socket_watcher {
    explicit speaker(echo_server& to) : owner{to} {}
    void on_message(std::string_view message) override {
      owner.last = std::string{message};
      ++owner.heard;
      if (message == "bye")
        socket.reset();
      else
        socket->send(std::string{message});
    }
    void on_pong() override { ++owner.pongs; }
    void on_closed() override {
      socket.reset();
      ++owner.closed;
    }
    echo_server& owner;
    std::unique_ptr<web_socket> socket;
  };
  struct handler : http_handler {
    explicit handler(echo_server& to) : owner{to} {}
    void on_request(std::shared_ptr<exchange> client, http_request&& request) override {
      auto one = std::make_unique<speaker>(owner);
      one->socket = accept_web_socket(*client, request, *one, 200);
      if (!one->socket)
        return client->reply({400, {}, "no"});
      speakers.push_back(std::move(one));
    }
    void on_tick() override {
      for (auto& one : speakers)
        if (owner.pinging && one->socket)
          one->socket->ping();
    }
    void on_loop_end() override { speakers.clear(); }
    http_reply error_reply(int status, std::string_view message) override {
      return {status, {}, std::string{message}};
    }
    echo_server& owner;
    std::vector<std::unique_ptr<speaker>> speakers;
  };

  explicit echo_server(http_server_options options = {}) {
    auto made = http_server::make(options);
    REQUIRE(made.has_value());
    server = std::move(*made);
    server->start([this](std::uint32_t) { return std::make_unique<handler>(*this); });
  }

  std::atomic<int> heard{0}, pongs{0}, closed{0};
  std::atomic<bool> pinging{false};
  std::string last;
  std::unique_ptr<http_server> server;
};

} // namespace

TEST_CASE("a request for a WebSocket becomes one") {
  echo_server host;
  raw_client client{*host.server};
  client.send(upgrade);
  auto head = client.until("\r\n\r\n");
  CHECK(head.starts_with("HTTP/1.1 101 "));
  CHECK(
    head.find("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") != head.npos); // RFC 6455
  for (const std::string words : {"hello", "", "\xf0\x9f\x98\x80"}) {
    client.send(frame(text, words));
    auto back = std::string{"\x81"} + static_cast<char>(words.size()) + words;
    CHECK(client.until(back) == back);
  }
  client.send(frame(ping, "x"));
  CHECK(client.until("\x8a\x01x") == "\x8a\x01x");
  client.send(frame(closing, ""));
  client.rest();
  CHECK(client.closed());
  CHECK(eventually([&] { return host.closed == 1; })); // though it has not hung up
}

TEST_CASE("a WebSocket that is let go of is closed") {
  echo_server host;
  raw_client client{*host.server};
  client.send(upgrade);
  client.until("\r\n\r\n");
  client.send(frame(text, "bye"));
  client.rest();
  CHECK(client.closed());
  CHECK(host.closed == 0);
}

TEST_CASE("pings are sent one at a time, and pongs are told") {
  echo_server host;
  raw_client client{*host.server};
  client.send(upgrade);
  client.until("\r\n\r\n");
  host.pinging = true;
  const std::string empty{"\x89\x00", 2};
  CHECK(client.until(empty) == empty);
  client.send(frame(pong, ""));
  CHECK(eventually([&] { return host.pongs == 1; }));
}

TEST_CASE("what is no request for a WebSocket is left to the handler") {
  echo_server host;
  auto without = [](std::string header) {
    auto request = upgrade;
    auto at = request.find(header);
    return request.erase(at, request.find("\r\n", at) + 2 - at);
  };
  auto post = upgrade;
  post.replace(0, 3, "POST");
  auto version = upgrade;
  version.replace(version.find("13\r\n"), 2, "12");
  auto key = upgrade;
  key.replace(key.find("dGhl"), 4, "d");
  for (const auto& request :
       {without("Upgrade:"), without("Connection:"), without("Sec-WebSocket-Version:"),
        without("Sec-WebSocket-Key:"), post, version, key,
        std::string{"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"}}) {
    CAPTURE(request);
    raw_client client{*host.server};
    client.send(request);
    CHECK(client.reply().starts_with("HTTP/1.1 400 "));
  }
}

TEST_CASE("whoever breaks the rules is closed, and the rest go on") {
  echo_server host;
  raw_client good{*host.server};
  good.send(upgrade);
  good.until("\r\n\r\n");
  int broken = 0;
  for (const std::string& bytes :
       {std::string{"\x81\x02hi"},                           // no mask
        frame(text, std::string(201, 'x')),                  // too long
        frame(text, "\xff"),                                 // no UTF-8
        frame(3, ""),                                        // no such frame
        std::string{"\xf1\x80\0\0\0\0", 6},                  // bits nobody agreed on
        std::string{"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", 12}, // a message within another
        frame(ping, std::string(126, 'x'))}) {               // a ping too long
    CAPTURE(bytes);
    raw_client client{*host.server};
    client.send(upgrade);
    client.until("\r\n\r\n");
    client.send(bytes);
    client.rest();
    CHECK(client.closed());
    client.leave();
    ++broken;
    CHECK(eventually([&] { return host.closed == broken; }));
  }
  CHECK(host.heard == 0);
  good.send(frame(text, "still here"));
  CHECK(good.until("still here").ends_with("still here"));
}

TEST_CASE("a WebSocket counts among the connections for as long as it is there") {
  http_server_options options;
  options.max_connections = 1;
  echo_server host{options};
  {
    raw_client client{*host.server};
    client.send(upgrade);
    client.until("\r\n\r\n");
    raw_client second{*host.server};
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(second.reply().starts_with("HTTP/1.1 503 "));
  }
  CHECK(eventually([&] {
    raw_client next{*host.server};
    next.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    return next.reply().starts_with("HTTP/1.1 400 ");
  }));
}

TEST_CASE("a server that ends takes its WebSockets along") {
  auto host = std::make_unique<echo_server>();
  raw_client idle{*host->server}, hasty{*host->server};
  idle.send(upgrade);
  idle.until("\r\n\r\n");
  hasty.send(upgrade + frame(text, "before the answer"));
  host.reset();
  idle.rest();
  CHECK(idle.closed());
}

namespace {

/// One that we open, and what it hears.
struct dialler : web_socket_watcher {
  dialler(http_server& from, web_socket_target target) : server{from} {
    on_loop([&] { socket = open_web_socket(server.loop(0), target, *this); });
  }
  ~dialler() override {
    on_loop([&] { socket.reset(); });
  }
  void on_loop(const std::function<void()>& act) {
    std::promise<void> done;
    server.loop(0).post([&] {
      act();
      done.set_value();
    });
    done.get_future().wait();
  }
  void say(const std::string& words) {
    on_loop([&] {
      if (socket)
        socket->send(words);
    });
  }
  void on_message(std::string_view message) override {
    last = std::string{message};
    ++heard;
  }
  void on_pong() override {}
  void on_ping() override { ++pinged; }
  void on_open(const std::string& host, std::uint16_t from) override {
    CHECK(host == "127.0.0.1");
    port = from;
  }
  void on_closed() override {
    socket.reset();
    ++closed;
  }

  http_server& server;
  std::unique_ptr<web_socket> socket;
  std::string last;
  std::atomic<int> heard{0}, pinged{0}, closed{0}, port{0};
};

} // namespace

TEST_CASE("a WebSocket can be opened towards a server") {
  echo_server host;
  dialler client{*host.server, {.address = host.server->address(), .path = "/ws", .headers = {}}};
  CHECK(eventually([&] { return client.port != 0; }));
  client.say("hello");
  CHECK(eventually([&] { return client.heard == 1; }));
  CHECK(client.last == "hello");
  host.pinging = true;
  CHECK(eventually([&] { return client.pinged > 0 && host.pongs > 0; }));
  client.say("bye"); // upon which the server lets go
  CHECK(eventually([&] { return client.closed == 1; }));
}

TEST_CASE("letting go of a WebSocket that we opened closes it, whatever it was at") {
  echo_server host;
  {
    dialler client{*host.server, {.address = host.server->address(), .path = "/", .headers = {}}};
    CHECK(eventually([&] { return client.port != 0; }));
  }
  CHECK(eventually([&] { return host.closed == 1; }));
  dialler{*host.server, {.address = host.server->address(), .path = "/", .headers = {}}};
}

TEST_CASE("what cannot be opened is told of as closed") {
  using namespace std::chrono_literals;
  struct refusing : http_handler {
    void on_request(std::shared_ptr<exchange> client, http_request&&) override {
      client->reply({404, {}, "no"});
    }
    http_reply error_reply(int status, std::string_view) override { return {status, {}, {}}; }
  };
  struct silent : refusing {
    void on_request(std::shared_ptr<exchange> client, http_request&&) override {
      kept.push_back(std::move(client));
    }
    void on_loop_end() override { kept.clear(); }
    std::vector<std::shared_ptr<exchange>> kept;
  };
  auto serve = [](auto make) {
    auto made = http_server::make({});
    REQUIRE(made.has_value());
    (*made)->start(make);
    return std::move(*made);
  };
  auto no = serve([](std::uint32_t) { return std::make_unique<refusing>(); });
  auto nothing = serve([](std::uint32_t) { return std::make_unique<silent>(); });
  std::string gone;
  {
    auto there = serve([](std::uint32_t) { return std::make_unique<refusing>(); });
    gone = there->address();
  }
  for (const auto& address :
       {no->address(), nothing->address(), gone, std::string{"nowhere"},
        std::string{"a.invalid:1"}}) {
    CAPTURE(address);
    dialler client{*no, {.address = address, .path = "/", .headers = {}, .patience = 300ms}};
    CHECK(eventually([&] { return client.closed == 1; }));
    CHECK(client.port == 0);
  }
}
