#include "http_testing.hpp"

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

namespace {

http_server_options strict() {
  http_server_options options;
  options.max_header_bytes = 1024;
  options.max_body_bytes = 2000;
  return options;
}

} // namespace

TEST_CASE("what is malformed is answered with 400 and closed, whole or byte by byte") {
  held_server host{strict()};
  const std::string get = "GET / HTTP/1.1\r\nhost: a\r\n";
  const std::string post = "POST / HTTP/1.1\r\nhost: a\r\n";
  const std::string chunked = post + "transfer-encoding: chunked\r\n\r\n";
  for (const auto& request : {
         post + "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
         post + "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
         post + "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
         post + "content-length: 3, 4\r\n\r\nabcd",
         post + "content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
         post + "content-length: 3, 3\r\n\r\nabc",
         post + "content-length: 3x\r\n\r\nabc",
         post + "content-length: -1\r\n\r\n",
         post + "content-length: +3\r\n\r\nabc",
         post + "content-length: 0x3\r\n\r\nabc",
         post + "content-length:\r\n\r\n",
         post + "content-length: 99999999999999999999999\r\n\r\n",
         post + "transfer-encoding: gzip\r\n\r\n",
         post + "transfer-encoding: chunked, gzip\r\n\r\n",
         post + "transfer-encoding: xchunked\r\n\r\n",
         post + "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
         std::string{"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"},
         std::string{"GET / HTTP/1.1\nhost: a\n\n"},
         std::string{"GET / HTTP/1.1\r\nhost: a\n\r\n"},
         std::string{"GET / HTTP/1.1\r\nhost: a\r\n\n"},
         get + "x: a\r\n b\r\n\r\n",
         get + "x:\r\n\tb\r\n\r\n",
         std::string{"GET / HTTP/1.1\r\n host: a\r\n\r\n"},
         get + "x: a\rb\r\n\r\n",
         get + std::string{"x: a\0b\r\n\r\n", 11},
         std::string{"GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n", 28},
         get + "x y: a\r\n\r\n",
         get + "x : a\r\n\r\n",
         get + ": a\r\n\r\n",
         get + "nothing\r\n\r\n",
         std::string{"GET / HTTP/1.1\r\n\r\n"},
         get + "host: b\r\n\r\n",
         std::string{"get / HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"G@T / HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET  / HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{" GET / HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET x HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET /#f HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET /\xc3\xa9 HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET * HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET /%zz HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET /%4 HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET /a%00b HTTP/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET / HTTP/2.0\r\nhost: a\r\n\r\n"},
         std::string{"GET / HTTX/1.1\r\nhost: a\r\n\r\n"},
         std::string{"GET /\r\nhost: a\r\n\r\n"},
         std::string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11},
         chunked + "x\r\n",
         chunked + "-1\r\n",
         chunked + "\r\n",
         chunked + "3\nabc",
         chunked + "3\r\nabcd\r\n",
         chunked + "3\r\nabc\n",
         chunked + "3 x\n",
         chunked + "11111111111111111\r\n",
         chunked + "3;a\n",
         chunked + "0\r\nx: y\n",
         chunked + "0\r\n\n",
         chunked + "0\r\nno field\r\n\r\n",
         chunked + "0\r\nname\r\n\r\n",
         chunked + "0\r\nname : x\r\n\r\n",
         chunked + "0\r\n: x\r\n\r\n",
         chunked + "0\r\na: b\r\n folded\r\n\r\n",
         chunked + std::string{"0\r\na: b\0c\r\n\r\n", 13},
         chunked + "0x3\r\n",
       }) {
    CAPTURE(request);
    raw_client whole{*host.server};
    whole.send(request);
    auto reply = whole.rest();
    CHECK(reply.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    CHECK(reply.find("connection: close\r\n") != std::string::npos);
    CHECK(whole.closed());
    raw_client slow{*host.server};
    for (char c : request)
      if (!slow.send({&c, 1}))
        break;
    CHECK(slow.rest().starts_with("HTTP/1.1 400 Bad Request\r\n"));
  }
  CHECK(host.requests() == 0);
}

TEST_CASE("what is too large is told so, and the client gets to read it") {
  held_server host{strict()};
  const std::string start = "POST / HTTP/1.1\r\nhost: a\r\n";
  struct row {
    std::string request;
    const char* status;
  };
  std::string many;
  for (int i = 0; i < 200; ++i)
    many += "x" + std::to_string(i) + ": y\r\n";
  for (const auto& [request, status] : {
         row{start + "x: " + std::string(2000, 'y') + "\r\n\r\n", "431"},
         row{start + many + "\r\n", "431"},
         row{start + "x: " + std::string(100000, 'y'), "431"},
         row{"GET /" + std::string(2000, 'y') + " HTTP/1.1\r\nhost: a\r\n\r\n", "431"},
         row{start + "content-length: 2001\r\n\r\n", "413"}, // before any of the body has come
         row{start + "content-length: 2001\r\nexpect: 100-continue\r\n\r\n", "413"},
         row{start + "content-length: 1000000\r\n\r\n" + std::string(1000000, 'x'), "413"},
         row{start + "transfer-encoding: chunked\r\n\r\n7d1\r\n", "413"},
         row{
           start + "transfer-encoding: chunked\r\n\r\n7d0\r\n" + std::string(2000, 'x')
             + "\r\n1\r\n",
           "413"},
       }) {
    CAPTURE(request.substr(0, 100));
    raw_client client{*host.server};
    client.send(request);
    auto reply = client.rest();
    CHECK(reply.starts_with(std::string{"HTTP/1.1 "} + status));
    CHECK(reply.find("100 Continue") == std::string::npos);
    CHECK(client.closed());
  }
  CHECK(host.requests() == 0);
}

TEST_CASE("what a client expects and nobody can promise is refused") {
  held_server host{strict()};
  const std::string start = "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n";
  for (const std::string expectation :
       {"expect: 200-ok\r\n", "expect: 100-continue, 200-ok\r\n", "expect: 100-continued\r\n",
        "expect: 100-continue\r\nexpect: x\r\n", "expect: x\r\nexpect: 100-continue\r\n"}) {
    CAPTURE(expectation);
    raw_client client{*host.server};
    client.send(start + expectation + "\r\nabc");
    CHECK(client.rest().starts_with("HTTP/1.1 417 Expectation Failed\r\n"));
    CHECK(client.closed());
  }
  CHECK(host.requests() == 0);
  for (const std::string expectation :
       {"expect:\r\n", "expect: 100-Continue\r\n",
        "expect: 100-continue\r\nexpect: 100-continue\r\n"}) {
    CAPTURE(expectation);
    raw_client client{*host.server};
    client.send(start + expectation + "\r\nabc");
    CHECK(client.reply().ends_with("POST /p abc"));
  }
}

TEST_CASE("the limits themselves are allowed") {
  held_server host{strict()};
  raw_client client{*host.server};
  std::string head = "POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\nx: ";
  head += std::string(1024 - head.size() - 4, 'y') + "\r\n\r\n";
  client.send(head + std::string(2000, 'b'));
  CHECK(client.reply().starts_with("HTTP/1.1 200 OK"));
  CHECK(host.last().body == std::string(2000, 'b'));
}

TEST_CASE("a request that arrives too slowly is answered with 408, however steadily it drips") {
  http_server_options options;
  options.header_timeout = 300ms;
  options.body_timeout = 300ms;
  held_server host{options};
  for (std::string start :
       {"GET / HTTP/1.1\r\nhost: a\r\nx: ",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5000\r\n\r\n"}) {
    CAPTURE(start);
    raw_client client{*host.server};
    auto begun = clock::now();
    client.send(start);
    pollfd state{client.socket(), POLLIN, 0};
    while (::poll(&state, 1, 20) == 0 && clock::now() < begun + patience)
      client.send("y");
    CHECK(clock::now() - begun >= 300ms);
    CHECK(client.rest().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    CHECK(client.closed());
  }
}

TEST_CASE("a connection without a request is closed in silence") {
  http_server_options options;
  options.header_timeout = 200ms;
  options.idle_timeout = 200ms;
  held_server host{options};
  raw_client silent{*host.server};
  CHECK(silent.rest().empty());
  CHECK(silent.closed());
  raw_client idle{*host.server};
  idle.send("GET /a HTTP/1.1\r\nhost: a\r\n\r\n");
  CHECK(idle.reply().ends_with("GET /a "));
  CHECK(idle.rest().empty());
  CHECK(idle.closed());
}

TEST_CASE("connections above the limit get 503 while those below go on") {
  http_server_options options;
  options.max_connections = 2;
  held_server host{options};
  const std::string get = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";
  raw_client first{*host.server};
  raw_client second{*host.server};
  first.send(get);
  second.send(get);
  CHECK(first.reply().starts_with("HTTP/1.1 200"));
  CHECK(second.reply().starts_with("HTTP/1.1 200"));
  raw_client third{*host.server};
  third.send(get);
  CHECK(third.rest().starts_with("HTTP/1.1 503 Service Unavailable"));
  CHECK(third.closed());
  first.send(get);
  CHECK(first.reply().starts_with("HTTP/1.1 200"));
  first.leave();
  third.leave();
  CHECK(eventually([&] {
    raw_client next{*host.server};
    next.send(get);
    return next.reply().starts_with("HTTP/1.1 200");
  }));
}
