#include "net/deadline_wheel.hpp"
#include "upstream_testing.hpp"

#include <optional>
#include <thread>

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

namespace {

/// One request: what its sender holds, and what is heard of it. Declared before the pool, so that
/// the pool goes first.
struct asking {
  recorder heard;
  std::unique_ptr<upstream_call> call;
};

using events = std::vector<std::string>;

const std::string ok = "HTTP/1.1 200 OK\r\n";
const std::string chunked = ok + "transfer-encoding: chunked\r\n\r\n";

std::string sized(std::size_t size) {
  return ok + "content-length: " + std::to_string(size) + "\r\n\r\n";
}

upstream_request post_to(const std::string& address, std::string body = {}) {
  upstream_request request;
  request.address = address;
  request.body = std::move(body);
  return request;
}

upstream_request with_silence(const std::string& address, std::chrono::milliseconds silence) {
  auto request = post_to(address);
  request.silence = silence;
  return request;
}

/// Has one request answered, so that its connection is kept; returns the server's end of it.
raw_client keep_one(pool_on_loop& pool, raw_host& host) {
  asking first;
  pool.send(host.address(), first.heard, first.call);
  auto peer = host.accept();
  peer.until("\r\n\r\n");
  peer.send(sized(0));
  CHECK(first.heard.outcome() == errc::ok);
  return peer;
}

} // namespace

// ---- failures

TEST_CASE("an answer that fails says how, and its connection is dropped") {
  enum class then { stays, closes, resets };
  struct row {
    std::string bytes;
    then next;
    errc outcome;
    events before;
  };
  const events none;
  const events headed{"head 200", "pause"};
  const events begun{"head 200", "body", "pause"};
  for (const auto& [bytes, next, outcome, before] : {
         row{"", then::closes, errc::unreachable, none},
         row{"", then::resets, errc::unreachable, none},
         row{"HTTP/1.1 200 O", then::closes, errc::disconnected, none},
         row{"HTTP/1.1 100 Continue\r\n\r\n", then::closes, errc::disconnected, none},
         row{sized(4), then::closes, errc::disconnected, headed},
         row{sized(4) + "abc", then::closes, errc::disconnected, begun},
         row{sized(4) + "abc", then::resets, errc::disconnected, begun},
         row{chunked + "4\r\nabc", then::closes, errc::disconnected, begun},
         row{chunked + "3\r\nabc\r\n", then::closes, errc::disconnected, begun},
         row{ok + "\r\nabc", then::resets, errc::disconnected, begun}, // not what ends a body
         row{"SSH-2.0-OpenSSH", then::stays, errc::bad_message, none},
         row{"HTTP/2 200 OK\r\n\r\n", then::stays, errc::bad_message, none},
         row{"HTTP/1.1 abc OK\r\n\r\n", then::stays, errc::bad_message, none},
         row{"HTTP/1.1 099 OK\r\n\r\n", then::stays, errc::bad_message, none},
         row{"HTTP/1.1 101 Go\r\n\r\n", then::stays, errc::bad_message, none},
         row{ok + "no colon\r\n\r\n", then::stays, errc::bad_message, none},
         row{ok + "content-length: -1\r\n\r\n", then::stays, errc::bad_message, none},
         row{
           ok + "content-length: 1\r\ncontent-length: 2\r\n\r\n", then::stays, errc::bad_message,
           none},
         row{
           ok + "content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", then::stays,
           errc::bad_message, none},
         row{ok + "transfer-encoding: gzip, chunked\r\n\r\n", then::stays, errc::bad_message, none},
         row{chunked + "x\r\n", then::stays, errc::bad_message, {"head 200"}},
         row{chunked + "1\r\nab\r\n", then::stays, errc::bad_message, {"head 200", "body"}},
         row{ok + "x: " + std::string(9000, 'y'), then::stays, errc::too_long, none},
         row{ok + "x: " + std::string(9000, 'y') + "\r\n\r\n", then::stays, errc::too_long, none},
         row{sized(101), then::stays, errc::too_long, none},
         row{chunked + "65\r\n", then::stays, errc::too_long, {"head 200"}},
         row{ok + "\r\n" + std::string(101, 'x'), then::stays, errc::too_long, {"head 200"}},
         row{"", then::stays, errc::timeout, none},
         row{"HTTP/1.1 ", then::stays, errc::timeout, none},
         row{sized(4) + "abc", then::stays, errc::timeout, begun},
       }) {
    CAPTURE(bytes.substr(0, 100));
    CAPTURE(static_cast<int>(next));
    raw_host host;
    asking asked;
    pool_on_loop pool{{.max_header_bytes = 8000}};
    auto request = with_silence(host.address(), outcome == errc::timeout ? 100ms : 0ms);
    request.max_body_bytes = 100;
    auto begun_at = clock::now();
    pool.send(std::move(request), asked.heard, asked.call);
    auto peer = host.accept();
    peer.until("\r\n\r\n");
    peer.send(bytes);
    if (next == then::closes)
      peer.leave();
    if (next == then::resets) {
      if (!before.empty())
        asked.heard.heard("pause"); // or it might never get what was sent
      reset(peer);
    }
    CHECK(asked.heard.outcome() == outcome);
    if (outcome == errc::timeout)
      CHECK(clock::now() - begun_at >= 100ms);
    auto all = before;
    all.push_back("end " + std::string{to_string(outcome)});
    CHECK(asked.heard.events() == all);
    CHECK(asked.heard.text().starts_with(host.address() + ": "));
    CHECK(pool.connections() == 0);
    CHECK(!host.waits()); // what fails on a new connection is not sent again
  }
}

TEST_CASE("interim replies without end are too long") {
  raw_host host;
  asking asked;
  pool_on_loop pool{{.max_header_bytes = 8000}};
  pool.send(host.address(), asked.heard, asked.call);
  auto peer = host.accept();
  while (peer.send("HTTP/1.1 100 Continue\r\n\r\n")) {
  }
  CHECK(asked.heard.outcome() == errc::too_long);
  CHECK(asked.heard.events() == events{"end too_long"});
}

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

// ---- kept connections

TEST_CASE("a kept connection that the server closes is dropped, whatever way it closes") {
  for (const std::string unasked : {"", "HTTP/1.1 408 Request Timeout\r\n\r\n", "reset"}) {
    CAPTURE(unasked);
    raw_host host;
    asking second;
    pool_on_loop pool;
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
         row{"", false, true, errc::unreachable, 2},
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

// ---- what is sent, and every form of answer

TEST_CASE("a request is written with what only the pool knows") {
  raw_host host;
  asking asked;
  pool_on_loop pool;
  auto request = post_to(host.address(), "{}");
  request.target = "/v1/completions?a=b";
  request.headers
    = {{"content-type", "application/json"}, {"Host", "elsewhere"},   {"Content-Length", "99"},
       {"transfer-encoding", "chunked"},     {"Connection", "close"}, {"x-empty", ""}};
  pool.send(std::move(request), asked.heard, asked.call);
  auto peer = host.accept();
  CHECK(
    peer.until("{}")
    == "POST /v1/completions?a=b HTTP/1.1\r\nhost: " + host.address()
         + "\r\ncontent-type: application/json\r\nx-empty: \r\ncontent-length: 2\r\n\r\n{}");
  peer.send(sized(0));
  CHECK(asked.heard.outcome() == errc::ok);

  asking got;
  auto get = post_to(host.address());
  get.method = "GET";
  pool.send(std::move(get), got.heard, got.call);
  CHECK(peer.until("\r\n\r\n") == "GET / HTTP/1.1\r\nhost: " + host.address() + "\r\n\r\n");
  pool.drop(got.call);
}

TEST_CASE("every form of answer is understood, in one piece and in many") {
  struct row {
    std::string bytes;
    std::string body;
    bool closes;
    std::size_t kept;
    std::string method = "POST";
  };
  for (const auto& row : {
         row{sized(3) + "abc", "abc", false, 1},
         row{sized(0), "", false, 1},
         row{chunked + "2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", "abc", false, 1},
         row{chunked + "3\r\nabc\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", "abc", false, 1},
         row{chunked + "0\r\n\r\n", "", false, 1},
         row{"HTTP/1.1 100 Continue\r\n\r\n" + sized(3) + "abc", "abc", false, 1},
         row{
           "HTTP/1.1 103 Early Hints\r\nx-a: b\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + sized(3)
             + "abc",
           "abc", false, 1},
         row{
           "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc", "abc", false, 0},
         row{"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", "abc", false, 0},
         row{
           "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabc", "abc",
           false, 1},
         row{
           "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: "
           "chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
           "abc", false, 0},
         row{ok + "\r\nabc", "abc", true, 0},
         row{"HTTP/1.0 200 OK\r\n\r\n", "", true, 0},
         row{"HTTP/1.1 204 No Content\r\n\r\n", "", false, 1},
         row{"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", "", false, 1},
         row{sized(7), "", false, 1, "HEAD"},
         row{chunked, "", false, 1, "HEAD"},
         row{sized(3) + "abcd", "abc", false, 0}, // nobody asked for the rest
         row{sized(0) + sized(0), "", false, 0},
       })
    for (std::size_t step : {row.bytes.size(), std::size_t{7}}) {
      CAPTURE(row.bytes);
      CAPTURE(step);
      raw_host host;
      asking asked;
      pool_on_loop pool;
      auto request = post_to(host.address());
      request.method = row.method;
      pool.send(std::move(request), asked.heard, asked.call);
      auto peer = host.accept();
      peer.until("\r\n\r\n");
      for (std::size_t i = 0; i < row.bytes.size(); i += step) {
        peer.send(row.bytes.substr(i, step));
        pool.on_loop([] {}); // it may have read that much
      }
      if (row.closes)
        peer.leave();
      CHECK(asked.heard.outcome() == errc::ok);
      CHECK(asked.heard.body() == row.body);
      auto heard = asked.heard.events();
      CHECK(heard.front().starts_with("head "));
      CHECK(heard.back() == "end ok");
      CHECK(std::count(heard.begin(), heard.end(), heard.front()) == 1);
      CHECK(pool.comes_to(row.kept));
      CHECK(!asked.heard.ended_within_send);
    }
}

TEST_CASE("what comes in one read is told in a row, and a pause only when more is to come") {
  raw_host host;
  asking whole;
  asking pieces;
  pool_on_loop pool;
  pool.send(host.address(), whole.heard, whole.call);
  auto peer = host.accept();
  peer.until("\r\n\r\n");
  peer.send("HTTP/1.1 503 Busy\r\nX-Why: load\r\ncontent-length: 2\r\n\r\nno");
  CHECK(whole.heard.outcome() == errc::ok);
  CHECK(whole.heard.events() == events{"head 503 x-why=load", "body", "end ok"});

  pool.send(host.address(), pieces.heard, pieces.call);
  peer.until("\r\n\r\n");
  peer.send(chunked);
  pieces.heard.heard("pause");
  peer.send("1\r\na\r\n1\r\nb\r\n");
  CHECK(eventually([&] { return pieces.heard.events().size() == 4; }));
  peer.send("0\r\n\r\n");
  CHECK(pieces.heard.outcome() == errc::ok);
  CHECK(pieces.heard.events() == events{"head 200", "pause", "body", "pause", "end ok"});
  CHECK(pieces.heard.body() == "ab");
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

// ---- large requests

TEST_CASE("a large request is written as the server takes it, and its answer awaited") {
  held_server host;
  asking asked;
  pool_on_loop pool;
  std::string body(16U << 20, 'x');
  pool.send(post_to(host.server->address(), body), asked.heard, asked.call);
  CHECK(asked.heard.outcome() == errc::ok);
  CHECK(asked.heard.body().size() == body.size() + 7);
  CHECK(pool.connections() == 1);
}

TEST_CASE("an answer before the request is written is told, and the connection dropped") {
  for (bool kept : {false, true})
    for (bool leaves : {false, true}) {
      CAPTURE(kept);
      CAPTURE(leaves);
      raw_host host;
      asking asked;
      pool_on_loop pool;
      std::optional<raw_client> peer;
      if (kept)
        peer.emplace(keep_one(pool, host));
      pool.send(post_to(host.address(), std::string(64U << 20, 'x')), asked.heard, asked.call);
      if (!kept)
        peer.emplace(host.accept());
      CHECK(peer->until("\r\n\r\n").starts_with("POST"));
      peer->send("HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig");
      if (leaves)
        peer->leave(); // with input unread: the connection is reset
      CHECK(asked.heard.outcome() == errc::ok);
      CHECK(asked.heard.body() == "big");
      CHECK(pool.connections() == 0);
      CHECK(host.accepted == 1);
      CHECK(!host.waits());
    }
}

// ---- giving up

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
      peer.rest();
      CHECK(peer.closed());
    }
    CHECK(pool.connections() == 0);
    for (auto& event : asked.heard.events())
      CHECK(!event.starts_with("end"));
  }
}

TEST_CASE("giving up while a name is looked up, or the server does not take the connection") {
  raw_host host{AF_INET, 0};
  std::vector<asking> asked(4);
  asking named;
  pool_on_loop pool;
  for (auto& one : asked)
    pool.send(host.address(), one.heard, one.call);
  pool.on_loop([&] {
    named.call = pool.pool->send(post_to("localhost:" + host.port()), named.heard);
    CHECK(pool.pool->connections() == 5);
    for (auto& one : asked)
      one.call.reset();
    named.call.reset();
    CHECK(pool.pool->connections() == 0);
  });
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

// ---- slowing down

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
  CHECK(asked.heard.outcome() == errc::unreachable);
}

// ---- time

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
