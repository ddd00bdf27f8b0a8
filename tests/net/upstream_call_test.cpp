#include "upstream_testing.hpp"

#include <atomic>
#include <thread>

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

TEST_CASE("giving up a request closes its connection at once") {
  for (const std::string at : {"connecting", "waiting", "writing", "within the answer"}) {
    CAPTURE(at);
    raw_host host;
    asking asked;
    pool_on_loop pool;
    if (at == "connecting") {
      pool.on_loop([&] { pool.pool->send(post_to(host.address()), asked.heard).reset(); });
    } else {
      std::string body(at == "writing" ? 64U << 20 : 0U, 'x');
      pool.send(post_to(host.address(), body), asked.heard, asked.call);
      auto peer = host.accept();
      peer.until("\r\n\r\n");
      if (at == "within the answer") {
        peer.send(sized(4) + "abc");
        asked.heard.heard("pause");
      }
      pool.drop(asked.call);
      CHECK(pool.connections() == 0);
      if (at == "writing") // the server hears of it before it has read what came before
        CHECK(eventually([&] {
          pollfd state{peer.socket(), 0, 0};
          return ::poll(&state, 1, 0) > 0 && (state.revents & (POLLERR | POLLHUP)) != 0;
        }));
      peer.rest();
      CHECK(peer.closed());
    }
    CHECK(pool.connections() == 0);
    for (auto& event : asked.heard.events())
      CHECK(!event.starts_with("end"));
  }
}

TEST_CASE("giving up while the server does not take the connection, or its name is looked up") {
  raw_host full{AF_INET, 0};
  raw_host host;
  std::vector<asking> asked(4);
  asking named;
  asking also_named;
  pool_on_loop pool;
  for (auto& one : asked)
    pool.send(full.address(), one.heard, one.call);
  pool.on_loop([&] {
    named.call = pool.pool->send(post_to("localhost:" + host.port()), named.heard);
    also_named.call = pool.pool->send(post_to("localhost:" + host.port()), also_named.heard);
    CHECK(pool.pool->connections() == 6);
    for (auto& one : asked)
      one.call.reset();
    named.call.reset();
    CHECK(pool.pool->connections() == 1);
  });
  auto peer = host.accept();
  peer.until("\r\n\r\n");
  peer.send(sized(0));
  CHECK(also_named.heard.outcome() == errc::ok);
  CHECK(!host.waits());
  for (auto& one : asked)
    CHECK(one.heard.events().empty());
  CHECK(named.heard.events().empty());
}

TEST_CASE("within each callback a request may be given up, the pool may go, and others be sent") {
  for (const std::string what : {"give up", "end the pool", "send"})
    for (const std::string at :
         {"head 200", "body", "pause", "end ok", "end disconnected", "end timeout"}) {
      CAPTURE(what);
      CAPTURE(at);
      raw_host host;
      raw_host other;
      asking asked;
      asking next;
      pool_on_loop pool;
      auto done = false;
      asked.heard.then = [&](std::string_view event) {
        if (event != at || std::exchange(done, true))
          return;
        if (what == "give up") {
          asked.call.reset();
        } else if (what == "end the pool") {
          pool.pool.reset();
        } else {
          next.heard.sending = true;
          next.call = pool.pool->send(post_to(other.address()), next.heard);
          next.heard.sending = false;
        }
      };
      auto fails = at == "end disconnected" || at == "end timeout";
      pool.send(
        with_silence(host.address(), at == "end timeout" ? 100ms : 0ms), asked.heard, asked.call);
      auto peer = host.accept();
      peer.until("\r\n\r\n");
      peer.send(chunked + "1\r\na\r\n1\r\nb\r\n");
      asked.heard.heard(at == "head 200" || at == "body" ? at : "pause");
      if (at == "end disconnected")
        peer.leave();
      else if (at != "end timeout")
        peer.send("1\r\nc\r\n0\r\n\r\n");
      if (what == "send") {
        auto fresh = other.accept();
        fresh.until("\r\n\r\n");
        fresh.send(sized(0));
        CHECK(next.heard.outcome() == errc::ok);
        CHECK((asked.heard.outcome() != errc::ok) == fails);
      } else {
        CHECK(asked.heard.heard(at));
        if (!fails && (at != "end ok" || what == "end the pool")) {
          peer.rest();
          CHECK(peer.closed());
        }
        pool.on_loop([] {});
        CHECK(asked.heard.events().back() == at);
        if (what == "give up")
          CHECK(pool.connections() == (at == "end ok" ? 1 : 0));
      }
    }
}

TEST_CASE("of several requests that time out at once the first may end the others") {
  for (bool with_the_pool : {false, true}) {
    CAPTURE(with_the_pool);
    raw_host host;
    std::vector<asking> asked(3);
    std::atomic<int> ended = 0;
    pool_on_loop pool;
    for (auto& one : asked)
      one.heard.then = [&](std::string_view) {
        ++ended;
        if (with_the_pool)
          pool.pool.reset();
        for (auto& other : asked)
          other.call.reset();
      };
    pool.on_loop([&] {
      for (auto& one : asked)
        one.call = pool.pool->send(with_silence(host.address(), 100ms), one.heard);
    });
    for (std::size_t i = 0; i < asked.size(); ++i) {
      auto peer = host.accept();
      peer.rest();
      CHECK(peer.closed());
    }
    pool.on_loop([] {});
    CHECK(ended == 1);
  }
}

TEST_CASE("from within its end a request is followed by another on the same connection") {
  raw_host host;
  asking first;
  asking second;
  pool_on_loop pool;
  first.heard.then = [&](std::string_view event) {
    if (event == "end ok")
      second.call = pool.pool->send(post_to(host.address()), second.heard);
  };
  pool.send(host.address(), first.heard, first.call);
  auto peer = host.accept();
  for (int i = 0; i < 2; ++i) {
    peer.until("\r\n\r\n");
    peer.send(sized(0));
  }
  CHECK(second.heard.outcome() == errc::ok);
  CHECK(host.accepted == 1);
}

TEST_CASE("the end of a pool ends its connections, and nobody hears of it") {
  raw_host host;
  raw_host full{AF_INET, 0};
  std::vector<asking> asked(6);
  asking refused;
  {
    pool_on_loop pool;
    auto kept = keep_one(pool, host);
    for (std::size_t i = 0; i < 2; ++i)
      pool.send(host.address(), asked[i].heard, asked[i].call);
    for (std::size_t i = 2; i < asked.size(); ++i)
      pool.send(full.address(), asked[i].heard, asked[i].call);
    kept.until("\r\n\r\n");
    kept.send(sized(4) + "abc");
    auto waiting = host.accept();
    waiting.until("\r\n\r\n");
    CHECK(eventually(
      [&] { return asked[0].heard.events().size() == 3 || asked[1].heard.events().size() == 3; }));
    pool.on_loop([&] {
      refused.call = pool.pool->send(post_to("nowhere"), refused.heard);
      pool.pool.reset();
      for (auto& one : asked) {
        one.call->hold();
        one.call->resume();
      }
    });
    kept.rest();
    waiting.rest();
    CHECK(kept.closed());
    CHECK(waiting.closed());
    pool.on_loop([&] { pool.pool.reset(); });
  }
  for (auto& one : asked)
    for (auto& event : one.heard.events())
      CHECK(!event.starts_with("end"));
  CHECK(refused.heard.events().empty());
}

TEST_CASE("a handler may own a pool, to the end of the server and with requests open") {
  struct owner : http_handler {
    void on_request(std::shared_ptr<exchange> client, http_request&& request) override {
      calls.push_back(pool->send(post_to(request.body), heard));
      client->reply({200, {}, ""});
    }
    http_reply error_reply(int status, std::string_view) override { return {status, {}, ""}; }
    recorder heard;
    std::unique_ptr<upstream_pool> pool;
    std::vector<std::unique_ptr<upstream_call>> calls;
  };
  raw_host host;
  auto made = http_server::make({});
  REQUIRE(made.has_value());
  auto& server = **made;
  server.start([&](std::uint32_t i) {
    auto handler = std::make_unique<owner>();
    handler->pool = server.make_upstream(i, {});
    return handler;
  });
  raw_client client{server};
  for (const auto& address : {host.address(), std::string{"localhost:"} + host.port()}) {
    client.send(
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(address.size()) + "\r\n\r\n"
      + address);
    client.reply();
  }
  auto peer = host.accept();
  made->reset();
  peer.rest();
  CHECK(peer.closed());
}

TEST_CASE("while an answer is held nothing more of it is read, and the server is slowed down") {
  raw_host host;
  asking asked;
  asked.heard.gather = false;
  pool_on_loop pool;
  asked.heard.then = [&](std::string_view event) {
    if (event == "head 200")
      asked.call->hold();
  };
  auto request = post_to(host.address());
  request.silence = 200ms; // which does not count while it is held
  pool.send(std::move(request), asked.heard, asked.call);
  auto peer = host.accept();
  peer.until("\r\n\r\n");
  int small = 64 * 1024;
  ::setsockopt(peer.socket(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  constexpr std::size_t size = 64U << 20;
  std::atomic<std::size_t> sent{0};
  std::thread sending{[&] {
    peer.send(sized(size));
    std::string piece(64 * 1024, 'x');
    for (std::size_t i = 0; i < size; i += piece.size()) {
      peer.send(piece);
      sent += piece.size();
    }
  }};
  CHECK(asked.heard.heard("head 200"));
  auto stalled = [&] { // for as long as the silence lasts, and more
    auto before = sent.load();
    ::poll(nullptr, 0, 400);
    return sent == before;
  };
  CHECK(eventually(stalled));
  CHECK(sent < size);
  CHECK(asked.heard.body_bytes <= 64 * 1024);
  CHECK(asked.heard.events().back() != "end timeout");
  pool.on_loop([&] { asked.call->resume(); });
  CHECK(asked.heard.outcome() == errc::ok);
  CHECK(asked.heard.body_bytes == size);
  sending.join();
}

TEST_CASE("an answer held again and again comes whole") {
  raw_host host;
  asking asked;
  pool_on_loop pool;
  asked.heard.then = [&](std::string_view) { asked.call->hold(); };
  pool.send(host.address(), asked.heard, asked.call);
  auto peer = host.accept();
  peer.until("\r\n\r\n");
  std::string body;
  for (int i = 0; i < 100; ++i)
    body += "piece " + std::to_string(i) + "\n";
  peer.send(sized(body.size()));
  for (std::size_t i = 0; i < body.size(); i += 10) {
    peer.send(body.substr(i, 10));
    pool.on_loop([&] { asked.call->resume(); });
  }
  CHECK(eventually([&] {
    pool.on_loop([&] {
      asked.call->resume();
      asked.call->hold();
      asked.call->resume();
    });
    return asked.heard.events().back() == "end ok";
  }));
  CHECK(asked.heard.body() == body);
  CHECK(pool.connections() == 1);
}

TEST_CASE("silence counts anew after an answer was held") {
  raw_host host;
  asking asked;
  pool_on_loop pool;
  pool.send(with_silence(host.address(), 100ms), asked.heard, asked.call);
  auto peer = host.accept();
  peer.until("\r\n\r\n");
  pool.on_loop([&] { asked.call->hold(); });
  peer.leave();
  ::poll(nullptr, 0, 300);
  CHECK(asked.heard.events().empty()); // neither silence nor the end is noticed
  pool.on_loop([&] { asked.call->resume(); });
  CHECK(asked.heard.outcome() == errc::disconnected);
}
