#include "http_testing.hpp"
#include "net/event_stream.hpp"

#include <atomic>

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

namespace {

const std::string hold = "GET /hold HTTP/1.1\r\nhost: a\r\n\r\n";

// Writes until the kernel takes no more for this client.
void fill(held_server& host, const std::string& path) {
  host.with(path, [](exchange& e) {
    const std::string chunk(16 * 1024, 'x');
    e.begin_stream(200, {});
    e.flush();
    for (int i = 0; i < 10000 && e.backlog() == 0; ++i) {
      e.write(chunk);
      e.flush();
    }
    CHECK(e.backlog() > 0);
  });
}

} // namespace

TEST_CASE("a stream is written in chunks behind its head, and the connection goes on") {
  held_server host;
  raw_client client{*host.server};
  client.send(hold);
  host.with("/hold", [](exchange& e) {
    e.begin_stream(201, {{"content-type", "text/event-stream"}});
    e.write("data: a\n\n");
    CHECK(e.backlog() > 0); // nothing is sent before it is asked for
    e.write("");
    e.write("data: b\n\n");
    e.flush();
    CHECK(e.backlog() == 0);
  });
  CHECK(
    client.until("b\n\n\r\n")
    == "HTTP/1.1 201 Created\r\ncontent-type: text/event-stream\r\ntransfer-encoding: "
       "chunked\r\n\r\n"
       "9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n");
  host.with("/hold", [](exchange& e) {
    e.write(std::string(300, 'z'));
    e.end_stream();
  });
  CHECK(client.until("0\r\n\r\n") == "12c\r\n" + std::string(300, 'z') + "\r\n0\r\n\r\n");
  client.send("GET /next HTTP/1.1\r\nhost: a\r\n\r\n");
  CHECK(client.reply().ends_with("GET /next "));
  CHECK(host.watcher.gone == 0);
  CHECK(host.watcher.drained == 0); // nothing ever had to wait
}

TEST_CASE("several writes before a flush arrive together") {
  held_server host;
  raw_client client{*host.server};
  client.send(hold);
  host.with("/hold", [](exchange& e) {
    e.begin_stream(200, {});
    for (int i = 0; i < 10; ++i)
      e.write("token");
    e.flush();
  });
  char buffer[4096];
  auto size = ::recv(
    client.socket(), buffer, sizeof buffer, 0); // one segment: one system call at the server
  std::string_view seen{buffer, static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
  CHECK(seen.starts_with("HTTP/1.1 200 OK\r\n"));
  CHECK(
    seen.size()
    == std::string_view{"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"}.size() + 10 * 10);
}

TEST_CASE("a client of HTTP/1.0 gets its stream plain, one of HEAD only the head") {
  held_server host;
  auto answer = [](exchange& e) {
    e.begin_stream(200, {});
    e.write("abc");
    e.flush();
    e.write("def");
    e.end_stream();
  };
  raw_client old{*host.server};
  old.send("GET /hold1 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n");
  host.with("/hold1", answer);
  CHECK(old.rest() == "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcdef");
  CHECK(old.closed());
  raw_client head{*host.server};
  head.send("HEAD /hold2 HTTP/1.1\r\nhost: a\r\n\r\nGET /next HTTP/1.1\r\nhost: a\r\n\r\n");
  host.with("/hold2", answer);
  CHECK(head.until("\r\n\r\n") == "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
  CHECK(head.reply() == "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nGET /next ");
}

TEST_CASE("a client that leaves in the middle of a stream is told at once, without a write") {
  held_server host;
  raw_client client{*host.server};
  client.send(hold);
  host.with("/hold", [](exchange& e) {
    e.begin_stream(200, {});
    e.write("a");
    e.flush();
  });
  client.until("a\r\n");
  client.leave();
  CHECK(eventually([&] { return host.watcher.gone == 1; }));
  host.with("/hold", [](exchange& e) {
    e.write("b");
    e.flush();
    e.end_stream();
  });
  CHECK(host.watcher.gone == 1);
  CHECK(host.server->open_exchanges() == 0);
}

TEST_CASE(
  "a slow reader's backlog grows and stalls while others go on; once read it is told as drained") {
  held_server host;
  raw_client slow{*host.server, 4096};
  raw_client other{*host.server};
  slow.send("GET /hold-slow HTTP/1.1\r\nhost: a\r\n\r\n");
  fill(host, "/hold-slow");
  std::size_t first = 0;
  clock::time_point since;
  auto before = clock::now();
  // The kernel may take a little more while it settles; from then on time stands still for this
  // client.
  CHECK(eventually([&] {
    auto known = since;
    host.with("/hold-slow", [&](exchange& e) {
      first = e.backlog();
      since = e.stalled_since();
    });
    return known == since && clock::now() - since > 50ms;
  }));
  CHECK(since <= clock::now());
  CHECK(since >= before - 10s);
  host.with("/hold-slow", [&](exchange& e) {
    e.write(std::string(1000, 'y'));
    e.flush();
    CHECK(e.backlog() == first + 1000 + 7); // with "3e8", two line ends
    CHECK(e.stalled_since() == since);
  });
  for (int i = 0; i < 100; ++i) {
    other.send("GET /quick HTTP/1.1\r\nhost: a\r\n\r\n");
    REQUIRE(other.reply().ends_with("GET /quick "));
  }
  CHECK(host.watcher.drained == 0);
  slow.until(std::string(1000, 'y') + "\r\n");
  CHECK(eventually([&] { return host.watcher.drained == 1; }));
  host.with("/hold-slow", [&](exchange& e) {
    CHECK(e.backlog() == 0);
    e.end_stream();
  });
  CHECK(slow.until("0\r\n\r\n") == "0\r\n\r\n");
  CHECK(host.watcher.gone == 0);
}

TEST_CASE("a backlog above the limit drops the client as gone, outside of the call that wrote") {
  http_server_options options;
  options.max_backlog_bytes = 256 * 1024;
  held_server host{options};
  raw_client client{*host.server, 4096};
  client.send(hold);
  fill(host, "/hold");
  CHECK(host.watcher.gone == 0);
  host.with("/hold", [&](exchange& e) {
    for (int i = 0; i < 100; ++i)
      e.write(std::string(16 * 1024, 'x'));
    CHECK(e.backlog() == 0); // it has lost its connection
    CHECK(host.watcher.gone == 0);
  });
  CHECK(eventually([&] { return host.watcher.gone == 1; }));
  CHECK(host.server->open_exchanges() == 0);
}

TEST_CASE("a whole reply may be larger than the limit of a backlog") {
  http_server_options options;
  options.max_backlog_bytes = 64 * 1024;
  held_server host{options};
  raw_client client{*host.server, 4096};
  client.send(hold);
  host.with("/hold", [](exchange& e) { e.reply({200, {}, std::string(8U << 20, 'x')}); });
  CHECK(host.server->open_exchanges() == 1); // answered, but not yet sent
  CHECK(client.reply().size() > (8U << 20));
  CHECK(eventually([&] { return host.server->open_exchanges() == 0; }));
}

TEST_CASE("a client that stops reading a complete answer is dropped in the end") {
  http_server_options options;
  options.idle_timeout = 300ms;
  held_server host{options};
  raw_client client{*host.server, 4096};
  client.send(hold);
  host.with("/hold", [](exchange& e) { e.reply({200, {}, std::string(8U << 20, 'x')}); });
  CHECK(eventually([&] { return host.server->open_exchanges() == 0; }));
}

TEST_CASE("an unwatched exchange whose client leaves calls nobody back") {
  held_server host;
  raw_client client{*host.server};
  client.send(hold);
  host.with("/hold", [](exchange& e) { e.watch(nullptr); });
  client.leave();
  CHECK(eventually([&] { return host.server->open_exchanges() == 0; }));
  host.on_loop([] {}); // behind whatever the loss has posted
  CHECK(host.watcher.gone == 0);
}
