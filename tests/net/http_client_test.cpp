#include "http_testing.hpp"
#include "net/http_client.hpp"
#include "net/reply_reader.hpp"

#include <thread>

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

namespace {

http_url url_of(const http_server& server, const std::string& path) {
  auto url = parse_url("http://" + server.address() + path);
  REQUIRE(url.has_value());
  return *url;
}

} // namespace

TEST_CASE("a reply is read alike in pieces of any size") {
  using status = reply_reader::status;
  struct row {
    std::string bytes;
    status outcome;
    std::string body;
  };
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  for (const auto& [bytes, outcome, body] : {
         row{ok + "content-length: 3\r\n\r\nabc", status::complete, "abc"},
         row{
           ok + "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
           status::complete, "abc"},
         row{ok + "\r\nabc", status::complete, "abc"}, // up to the end of the connection
         row{
           "HTTP/1.1 100 Continue\r\n\r\n" + ok + "content-length: 3\r\n\r\nabc", status::complete,
           "abc"},
         row{"HTTP/1.1 204 No Content\r\n\r\n", status::complete, ""},
         row{ok + "content-length: 0\r\n\r\n", status::complete, ""},
         row{ok + "content-length: 4\r\n\r\nabc", status::malformed, "abc"},
         row{ok + "Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", status::complete, "a"},
         row{ok + "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", status::malformed, "abc"},
         row{ok + "transfer-encoding: chunked\r\n\r\nx\r\n", status::malformed, ""},
         row{ok + "content-length: 101\r\n\r\n", status::too_long, ""},
         row{ok + "x: " + std::string(600, 'y'), status::too_long, ""},
         row{"hello\r\n", status::malformed, ""},
         row{"", status::malformed, ""},
         row{ok, status::malformed, ""},
       })
    for (std::size_t step = 1; step <= std::max<std::size_t>(bytes.size(), 1); ++step) {
      CAPTURE(bytes);
      CAPTURE(step);
      reply_reader reader{500, 100, false};
      auto state = status::need_more;
      for (std::size_t i = 0; i < bytes.size() && state == status::need_more; i += step)
        state = reader.feed(std::string_view{bytes}.substr(i, step));
      if (state == status::need_more)
        state = reader.end();
      CHECK(state == outcome);
      CHECK(reader.reply().body == body);
    }
}

TEST_CASE("fetch brings a whole reply") {
  held_server host;
  auto reply = fetch(url_of(*host.server, "/a%20b?c=d"), "POST", {{"x-a", "b"}}, "body", 10s);
  REQUIRE(reply.has_value());
  CHECK(reply->status == 200);
  CHECK(reply->body == "POST /a b body");
  auto seen = host.last();
  CHECK(seen.query == "c=d");
  CHECK(seen.header("x-a") == "b");
  CHECK(seen.header("host") == host.server->address());
  auto head = fetch(url_of(*host.server, "/"), "HEAD", {}, "", 10s);
  REQUIRE(head.has_value());
  CHECK(head->body.empty());
  auto large = fetch(url_of(*host.server, "/"), "POST", {}, std::string(3U << 20, 'x'), 20s);
  REQUIRE(large.has_value());
  CHECK(large->body.size() == (3U << 20) + 7);
}

TEST_CASE("fetch_stream hands on each piece as it comes, and stops when told") {
  held_server host;
  std::vector<std::string> pieces;
  auto answering = std::thread{[&] {
    host.with("/hold", [](exchange& e) {
      e.begin_stream(200, {{"content-type", "text/event-stream"}});
      e.write("first");
      e.flush();
    });
  }};
  auto reply
    = fetch_stream(url_of(*host.server, "/hold"), "GET", {}, "", 10s, [&](std::string_view piece) {
        pieces.emplace_back(piece);
        if (pieces.size() == 1) // the second is only written once the first is here
          host.server->loop(0).post([held = host.take("/hold")] {
            held->write("second");
            held->end_stream();
          });
        return true;
      });
  answering.join();
  REQUIRE(reply.has_value());
  CHECK(reply->status == 200);
  CHECK(reply->body.empty());
  CHECK(pieces == std::vector<std::string>{"first", "second"});

  host.forget();
  auto endless = std::thread{[&] {
    host.with("/hold", [](exchange& e) {
      e.begin_stream(200, {});
      e.write("more");
      e.flush();
    });
  }};
  CHECK(fetch_stream(url_of(*host.server, "/hold"), "GET", {}, "", 10s, [](std::string_view) {
          return false;
        }).has_value());
  endless.join();
  CHECK(eventually([&] { return host.watcher.gone == 1; }));
}

TEST_CASE("a fetch that cannot succeed says why") {
  held_server host;
  auto closed = [] {
    held_server gone;
    return url_of(*gone.server, "/");
  }();
  auto refused = fetch(closed, "GET", {}, "", 10s);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().code == errc::unreachable);
  CHECK(refused.error().context.starts_with("GET http://127.0.0.1:"));

  auto begun = clock::now();
  auto late = fetch(url_of(*host.server, "/hold"), "GET", {}, "", 200ms);
  REQUIRE(!late.has_value());
  CHECK(late.error().code == errc::timeout);
  CHECK(clock::now() - begun >= 200ms);

  auto injected = fetch(url_of(*host.server, "/"), "GET", {{"x", "a\r\nb: c"}}, "", 10s);
  REQUIRE(!injected.has_value());
  CHECK(injected.error().code == errc::invalid_argument);

  auto cutting = std::thread{[&] {
    host.with("/hold-cut", [](exchange& e) {
      e.begin_stream(200, {});
      e.write("half");
      e.flush();
      e.abandon();
    });
  }};
  auto cut = fetch(url_of(*host.server, "/hold-cut"), "GET", {}, "", 10s);
  cutting.join();
  REQUIRE(!cut.has_value());
  CHECK(cut.error().code == errc::unreachable);
}
