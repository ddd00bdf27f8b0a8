#include "net/deadline_wheel.hpp"
#include "upstream_testing.hpp"

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

TEST_CASE("a server that cannot be reached is told later, not from within send") {
  std::string refused;
  {
    raw_host gone;
    refused = gone.address();
  }
  auto no_such_name = std::string(64, 'x') + ":80"; // too long for a label: no server is asked
  for (const auto& address :
       {refused, no_such_name, std::string{"localhost:"} + refused.substr(10)}) {
    CAPTURE(address);
    asking asked;
    pool_on_loop pool;
    pool.send(address, asked.heard, asked.call);
    CHECK(asked.heard.outcome() == errc::unreachable);
    CHECK(asked.heard.events() == events{"end unreachable"});
    CHECK(asked.heard.text().starts_with(address + ": "));
    CHECK(!asked.heard.ended_within_send);
    CHECK(pool.connections() == 0);
  }
}

TEST_CASE("a server that does not take the connection is given up after a while") {
  raw_host host{AF_INET, 0};
  raw_host other;
  std::vector<asking> filling(3); // the kernel takes one or two by itself
  asking asked;
  pool_on_loop pool{{.connect_timeout = 200ms}};
  for (auto& filler : filling)
    pool.send(host.address(), filler.heard, filler.call);
  auto begun = clock::now();
  pool.send(host.address(), asked.heard, asked.call);
  CHECK(asked.heard.outcome() == errc::unreachable);
  CHECK(clock::now() - begun >= 200ms);
  CHECK(asked.heard.events() == events{"end unreachable"});
}

TEST_CASE("a request that cannot be written down is refused, but not from within send") {
  raw_host host;
  auto good = post_to(host.address());
  auto with = [&](auto&& change) {
    auto request = good;
    change(request);
    return request;
  };
  for (const auto& request : {
         with([](auto& r) { r.address = ""; }),
         with([](auto& r) { r.address = "127.0.0.1"; }),
         with([](auto& r) { r.address = "127.0.0.1:"; }),
         with([](auto& r) { r.address = "127.0.0.1:0"; }),
         with([](auto& r) { r.address = "127.0.0.1:65536"; }),
         with([](auto& r) { r.address = "127.0.0.1:8o"; }),
         with([](auto& r) { r.address = ":80"; }),
         with([](auto& r) { r.address = "[::1:80"; }),
         with([](auto& r) { r.address = "[127.0.0.1]:80"; }),
         with([](auto& r) { r.address = "::1:80"; }),
         with([](auto& r) { r.address = "user@host:80"; }),
         with([](auto& r) { r.address = "a b:80"; }),
         with([](auto& r) { r.address = "a\r\nx: y\r\n:80"; }),
         with([](auto& r) { r.method = ""; }),
         with([](auto& r) { r.method = "GET /"; }),
         with([](auto& r) { r.method = "CONNECT"; }),
         with([](auto& r) { r.target = ""; }),
         with([](auto& r) { r.target = "/a b"; }),
         with([](auto& r) { r.target = "/\r\nx: y"; }),
         with([](auto& r) {
           r.target = std::string{"/\0", 2};
         }),
         with([](auto& r) {
           r.headers = {{"", "y"}};
         }),
         with([](auto& r) {
           r.headers = {{"x:", "y"}};
         }),
         with([](auto& r) {
           r.headers = {{"x\r\nz", "y"}};
         }),
         with([](auto& r) {
           r.headers = {{"x", "y\r\nz: 1"}};
         }),
         with([](auto& r) {
           r.headers = {{"x", "y\nz: 1"}};
         }),
         with([](auto& r) {
           r.headers = {{"x", std::string{"y\0", 2}}};
         }),
         with([](auto& r) {
           r.headers = {{"connection", "\x7f"}};
         }),
       }) {
    CAPTURE(request.address);
    CAPTURE(request.target);
    asking asked;
    asking given_up;
    pool_on_loop pool;
    pool.on_loop([&] { pool.pool->send(request, given_up.heard).reset(); });
    pool.send(request, asked.heard, asked.call);
    CHECK(asked.heard.outcome() == errc::invalid_argument);
    CHECK(asked.heard.events() == events{"end invalid_argument"});
    CHECK(!asked.heard.ended_within_send);
    CHECK(given_up.heard.events().empty());
    CHECK(pool.connections() == 0);
  }
  CHECK(!host.waits());
}

TEST_CASE("a kept connection that the server closes is dropped, whatever way it closes") {
  for (const std::string unasked : {"", "HTTP/1.1 408 Request Timeout\r\n\r\n", "reset"}) {
    CAPTURE(unasked);
    raw_host host;
    asking second;
    pool_on_loop pool{{.idle_timeout = 60s}};
    auto peer = keep_one(pool, host);
    CHECK(pool.connections() == 1);
    if (unasked == "reset")
      reset(peer);
    else if (unasked.empty())
      peer.leave();
    else
      peer.send(unasked); // it is not even closed: nothing more can be made of it
    CHECK(pool.comes_to(0));
    pool.send(host.address(), second.heard, second.call);
    auto fresh = host.accept();
    fresh.until("\r\n\r\n");
    fresh.send(sized(0));
    CHECK(second.heard.outcome() == errc::ok);
  }
}

TEST_CASE("a request is sent again, once, if its kept connection fails before any of the answer") {
  struct row {
    std::string answer; // on the kept connection
    bool cut;           // by a reset
    bool second_fails;
    errc outcome;
    int accepted;
  };
  for (const auto& [answer, cut, second_fails, outcome, accepted] : {
         row{"", false, false, errc::ok, 2},
         row{"", true, false, errc::ok, 2},
         row{"", false, true, errc::disconnected, 2},
         row{"H", false, false, errc::disconnected, 1},
       })
    for (std::size_t body_size : {std::size_t{10}, std::size_t{16} << 20}) {
      if (body_size > 10 && !answer.empty())
        continue; // is tested below
      CAPTURE(accepted);
      CAPTURE(body_size);
      raw_host host;
      asking asked;
      pool_on_loop pool;
      auto kept = keep_one(pool, host);
      std::string body(body_size, 'b');
      pool.send(post_to(host.address(), body), asked.heard, asked.call);
      auto request = kept.until("\r\n\r\n");
      kept.send(answer);
      if (cut)
        reset(kept);
      else
        kept.leave();
      if (accepted == 2) {
        auto fresh = host.accept();
        CHECK(fresh.until("\r\n\r\n") == request);
        CHECK(fresh.until(body) == body);
        if (second_fails)
          fresh.leave();
        else
          fresh.send(sized(2) + "ok");
        CHECK(asked.heard.outcome() == outcome);
      }
      CHECK(asked.heard.outcome() == outcome);
      CHECK(host.accepted == accepted);
      CHECK(!host.waits());
    }
}

TEST_CASE("a server that ends with a request on a kept connection may have begun with it") {
  asking asked;
  pool_on_loop pool;
  {
    raw_host host;
    auto kept = keep_one(pool, host);
    pool.send(host.address(), asked.heard, asked.call);
    kept.until("\r\n\r\n");
    host.close();
    kept.leave();
  }
  CHECK(asked.heard.outcome() == errc::disconnected);
  CHECK(pool.connections() == 0);
}

TEST_CASE("silence on a kept connection is no reason to ask again") {
  raw_host host;
  asking asked;
  pool_on_loop pool;
  auto kept = keep_one(pool, host);
  pool.send(with_silence(host.address(), 100ms), asked.heard, asked.call);
  CHECK(asked.heard.outcome() == errc::timeout);
  CHECK(!host.waits());
  CHECK(pool.connections() == 0);
}

TEST_CASE("the connection used last is used first, and an idle one is dropped after a while") {
  raw_host host;
  std::vector<asking> both(2);
  asking third;
  pool_on_loop pool{{.idle_timeout = 600ms}};
  for (auto& asked : both)
    pool.send(host.address(), asked.heard, asked.call);
  auto first = host.accept();
  auto second = host.accept();
  for (auto* peer : {&first, &second}) {
    peer->until("\r\n\r\n");
    peer->send(sized(0));
    CHECK(eventually([&] { // they are answered one after the other
      return (both[0].heard.events().empty() ? 0 : 1) + (both[1].heard.events().empty() ? 0 : 1)
             == (peer == &first ? 1 : 2);
    }));
  }
  auto idle_since = clock::now();
  CHECK(pool.connections() == 2);
  pool.send(host.address(), third.heard, third.call);
  CHECK(second.until("\r\n\r\n").starts_with("POST"));
  CHECK(first.rest().empty());
  CHECK(first.closed());
  CHECK(clock::now() - idle_since >= 550ms);
  CHECK(pool.connections() == 1); // a busy one has all the time
  second.send(sized(0));
  CHECK(third.heard.outcome() == errc::ok);
  CHECK(host.accepted == 2);
}

TEST_CASE("when too many connections are kept, the one that was idle longest goes") {
  raw_host host;
  raw_host other;
  raw_host third;
  pool_on_loop pool{{.idle_timeout = 60s, .idle_max = 2}};
  auto first = keep_one(pool, host);
  auto second = keep_one(pool, other);
  auto last = keep_one(pool, third);
  first.rest();
  CHECK(first.closed());
  CHECK(pool.connections() == 2);
}

TEST_CASE("two hundred requests at once, and as many again on the connections kept") {
  held_server host;
  std::vector<asking> asked(400);
  pool_on_loop pool{{.idle_max = 50}};
  auto send_all = [&](std::size_t from, std::size_t to) {
    pool.on_loop([&] {
      for (auto i = from; i < to; ++i)
        asked[i].call = pool.pool->send(
          post_to(host.server->address(), "request " + std::to_string(i)), asked[i].heard);
    });
  };
  auto check_all = [&](std::size_t from, std::size_t to) {
    for (auto i = from; i < to; ++i) {
      CHECK(asked[i].heard.outcome() == errc::ok);
      CHECK(asked[i].heard.body() == "POST / request " + std::to_string(i));
    }
  };
  send_all(0, 200);
  CHECK(pool.connections() <= 200);
  check_all(0, 200);
  CHECK(pool.connections() == 50);
  send_all(200, 250);
  CHECK(pool.connections() == 50);
  check_all(200, 250);
  CHECK(pool.connections() == 50);
  // Each is sent from within the end of another.
  pool.on_loop([&] {
    for (std::size_t i = 250; i < 400; ++i) {
      auto next = i + 25;
      if (next < 400)
        asked[i].heard.then = [&, next](std::string_view event) {
          if (event == "end ok")
            asked[next].call = pool.pool->send(
              post_to(host.server->address(), "request " + std::to_string(next)),
              asked[next].heard);
        };
    }
  });
  send_all(250, 275);
  check_all(250, 400);
  CHECK(pool.connections() == 50);
}

TEST_CASE("with no room for idle connections each request says that it is the last") {
  raw_host host;
  asking asked;
  pool_on_loop pool{{.idle_max = 0}};
  pool.send(host.address(), asked.heard, asked.call);
  auto peer = host.accept();
  CHECK(peer.until("\r\n\r\n").find("\r\nconnection: close\r\n") != std::string::npos);
  peer.send(sized(0));
  CHECK(asked.heard.outcome() == errc::ok);
  CHECK(pool.connections() == 0);
}

TEST_CASE("names and IPv6 addresses are understood") {
  raw_host host;
  raw_host six{AF_INET6};
  std::vector<std::pair<std::string, raw_host*>> rows{{"localhost:" + host.port(), &host}};
  if (six.usable())
    rows.emplace_back(six.address(), &six);
  else
    MESSAGE("no IPv6 here");
  for (const auto& [address, at] : rows) {
    CAPTURE(address);
    std::vector<asking> asked(3);
    pool_on_loop pool;
    for (auto& one : asked) // all wait for the same name
      pool.send(address, one.heard, one.call);
    for (std::size_t i = 0; i < asked.size(); ++i) {
      auto peer = at->accept();
      CHECK(peer.until("\r\n\r\n").find("\r\nhost: " + address + "\r\n") != std::string::npos);
      peer.send(sized(2) + "hi");
      peer.leave();
    }
    for (auto& one : asked)
      CHECK(one.heard.outcome() == errc::ok);
  }
}

TEST_CASE("a wheel of deadlines brings each when it is due, and not before") {
  struct item {
    deadline_hook timer;
    clock::time_point deadline;
  };
  using wheel = deadline_wheel<item>;
  const clock::time_point start{1234567ms};
  for (auto tick : {100ms, 130ms, 2000ms, 60000ms}) { // a loop may be kept from ticking
    CAPTURE(tick.count());
    wheel deadlines{start};
    std::vector<item> items(600);
    for (std::size_t i = 0; i < items.size(); ++i)
      deadlines.set(items[i], start + i * 170ms);
    items[7].timer.unlink();
    deadlines.set(items[8], start + 500000ms);
    std::size_t came = 0;
    for (auto now = start; now < start + 600000ms; now += tick) {
      wheel::list due;
      deadlines.sweep(now, due);
      while (!due.empty()) {
        auto& one = due.front();
        due.pop_front();
        ++came;
        CHECK(one.deadline <= now);
        CHECK(one.deadline > now - tick);
      }
    }
    CHECK(came == items.size() - 1);
  }
}
