#include "upstream_testing.hpp"

#include <optional>

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

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
         row{"", then::closes, errc::disconnected, none},
         row{"", then::resets, errc::disconnected, none},
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
      pool_on_loop pool{{.idle_timeout = 60s}};
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

TEST_CASE("a body may begin within a text that somebody keeps") {
  auto kept = std::make_shared<std::string>(std::size_t{4} << 20, 'k');
  (*kept)[0] = '<';
  for (std::size_t begins : {std::size_t{5}, std::size_t{40'000}, kept->size()})
    for (std::size_t rest : {std::size_t{0}, std::size_t{3}, std::size_t{50'000}}) {
      CAPTURE(begins);
      CAPTURE(rest);
      raw_host host;
      asking asked;
      pool_on_loop pool;
      auto request = post_to(host.address(), std::string(rest, 'r'));
      request.body_begin = {kept, std::string_view{*kept}.substr(0, begins)};
      pool.send(std::move(request), asked.heard, asked.call);
      auto peer = host.accept();
      auto head = peer.until("\r\n\r\n");
      CHECK(
        head.find("content-length: " + std::to_string(begins + rest) + "\r\n")
        != std::string::npos);
      auto body = kept->substr(0, begins) + std::string(rest, 'r');
      CHECK(peer.until(body) == body);
      peer.send(sized(0));
      CHECK(asked.heard.outcome() == errc::ok);
    }
  CHECK(kept.use_count() == 1);
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
