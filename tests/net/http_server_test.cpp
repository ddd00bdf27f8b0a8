#include "http_testing.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <malloc.h>
#include <sys/resource.h>
#include <thread>

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

namespace {

std::string get(const std::string& path, const std::string& more = "") {
  return "GET " + path + " HTTP/1.1\r\nhost: a\r\n" + more + "\r\n";
}

// One arena for all threads, which is the one `mallinfo2` tells about.
const int one_arena = ::mallopt(M_ARENA_MAX, 1);

// Bytes the process has allocated and not freed; always 0 under the address sanitizer.
std::size_t allocated() {
  auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

} // namespace

TEST_CASE("a request arrives as it was meant, split at any byte") {
  held_server host;
  for (const std::string request : {
         "POST /a%20b/c?d=%20e HTTP/1.1\r\nHost: a\r\nX-Thing:  v w "
         "\r\nX-Empty:\r\nContent-Length: 5\r\n\r\nhello",
         "POST /a%20b/c?d=%20e HTTP/1.1\r\nHost: a\r\nX-Thing: v w\r\nX-Empty: "
         "\r\nTransfer-Encoding: chunked\r\n\r\n"
         "2;ext=\"1\"\r\nhe\r\n03\r\nllo\r\n0\r\ntrailer: x\r\n\r\n",
         "POST http://b/a%20b/c?d=%20e HTTP/1.1\r\nHost: a\r\nX-Thing: v "
         "w\r\nX-Empty:\r\nContent-Length: 5\r\n\r\nhello",
       }) {
    raw_client client{*host.server}; // one connection for all, so each reply must leave it clean
    for (std::size_t cut = 1; cut < request.size(); ++cut) {
      CAPTURE(request.substr(0, cut));
      REQUIRE(client.send(request.substr(0, cut)));
      ::poll(nullptr, 0, cut % 8 == 0 ? 1 : 0); // now and then the halves surely come apart
      REQUIRE(client.send(request.substr(cut)));
      REQUIRE(client.reply() == "HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\nPOST /a b/c hello");
      auto seen = host.last();
      CHECK(seen.query == "d=%20e");
      CHECK(seen.header("x-thing") == "v w");
      CHECK(seen.header("x-empty").empty());
      CHECK(seen.header("trailer").empty());
      CHECK(seen.peer.starts_with("127.0.0.1:"));
    }
  }
}

TEST_CASE("pipelined requests are answered in order, also when one has to wait") {
  held_server host;
  raw_client client{*host.server};
  client.send(
    get("/1") + get("/2") + get("/hold") + get("/4")
    + "POST /5 HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx");
  CHECK(client.reply().ends_with("GET /1 "));
  CHECK(client.reply().ends_with("GET /2 "));
  host.take("/hold");
  CHECK(host.requests() == 3); // the fourth waits
  host.with("/hold", [](exchange& e) { e.reply({200, {}, "held"}); });
  CHECK(client.reply().ends_with("held"));
  CHECK(client.reply().ends_with("GET /4 "));
  CHECK(client.reply().ends_with("POST /5 x"));
}

TEST_CASE("what was pipelined before a client said it sends no more is answered") {
  held_server host;
  for (const std::string last : {"", "GET /cut HTTP"}) {
    CAPTURE(last);
    raw_client client{*host.server};
    client.send(get("/1") + get("/hold") + get("/3") + get("/hold2") + get("/5") + last);
    CHECK(client.reply().ends_with("GET /1 "));
    host.take("/hold");
    client.finish_sending();
    CHECK(client.reply().starts_with("HTTP/1.1 100 ")); // whether it is there
    host.with("/hold", [](exchange& e) { e.reply({200, {}, "held"}); });
    CHECK(client.reply().ends_with("held"));
    CHECK(client.reply().ends_with("GET /3 "));
    host.take("/hold2");
    host.with("/hold2", [](exchange& e) { e.reply({200, {}, "held too"}); });
    CHECK(client.reply().ends_with("held too"));
    CHECK(client.reply().ends_with("GET /5 "));
    CHECK(client.rest().empty());
  }
}

TEST_CASE("a client that pipelines without end is not read further while its answer waits") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold"));
  host.take("/hold");
  timeval short_while{0, 300000};
  ::setsockopt(client.socket(), SOL_SOCKET, SO_SNDTIMEO, &short_while, sizeof short_while);
  std::size_t sent = 0;
  const auto request = get("/x");
  while (sent < (64U << 20) && client.send(request)) // ends when no buffer takes more
    sent += request.size();
  CHECK(sent < (64U << 20));
  CHECK(host.requests() == 1);
}

TEST_CASE("a client that leaves behind more requests than are read is noticed all the same") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold"));
  host.take("/hold");
  for (std::size_t sent = 0;
       sent < 56 * 1024;) { // more than the server reads, less than its kernel takes
    const auto request = get("/x");
    client.send(request);
    sent += request.size();
  }
  client.leave();
  CHECK(eventually([&] { return host.watcher.gone == 1; }));
  CHECK(host.requests() == 1);
}

TEST_CASE("many pipelined requests whose replies are not read do not pile up") {
  held_server host;
  raw_client client{*host.server, 4096};
  const int rounds = 20000;
  std::thread sender{[&] {
    for (int i = 0; i < rounds; ++i)
      client.send(get("/" + std::string(500, 'p')));
  }};
  std::size_t replies = 0;
  while (replies < rounds && client.reply().ends_with("ppp "))
    ++replies;
  sender.join();
  CHECK(replies == rounds);
}

TEST_CASE("how a connection goes on depends on version and headers") {
  held_server host;
  struct row {
    std::string request;
    bool stays;
    std::string reply;
  };
  for (const auto& [request, stays, reply] : {
         row{get("/"), true, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nGET / "},
         row{
           get("/", "connection: close\r\n"), false,
           "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nGET / "},
         row{
           "GET / HTTP/1.0\r\n\r\n", false,
           "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nGET / "},
         row{
           "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", true,
           "HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 6\r\n\r\nGET / "},
         row{"\r\n" + get("/"), true, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nGET / "},
       }) {
    CAPTURE(request);
    raw_client client{*host.server};
    client.send(request);
    CHECK(client.reply() == reply);
    if (stays) {
      client.send(get("/again", "connection: close\r\n"));
      CHECK(client.rest().ends_with("GET /again "));
    } else {
      CHECK(client.rest().empty());
    }
    CHECK(client.closed());
  }
}

TEST_CASE("HEAD is answered like GET without the body") {
  held_server host;
  raw_client client{*host.server};
  client.send("HEAD /abc HTTP/1.1\r\nhost: a\r\n\r\n" + get("/after"));
  CHECK(client.until("\r\n\r\n") == "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
  CHECK(client.reply().ends_with("GET /after "));
}

TEST_CASE("a client that waits for 100 Continue is told to go on, once") {
  held_server host;
  raw_client client{*host.server};
  const std::string head
    = "POST /p HTTP/1.1\r\nhost: a\r\nexpect: 100-Continue\r\ncontent-length: 4\r\n\r\n";
  client.send(head);
  CHECK(client.until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("ab");
  client.send("cd");
  CHECK(client.reply() == "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nPOST /p abcd");
  client.send(head + "abcd"); // does not wait
  CHECK(client.reply() == "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nPOST /p abcd");
}

TEST_CASE("large bodies pass both ways") {
  held_server host;
  raw_client client{*host.server};
  std::string body(20U << 20, 'b');
  std::thread sender{[&] {
    client.send(
      "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(body.size()) + "\r\n\r\n"
      + body);
  }};
  sender.join();
  auto reply = client.reply();
  CHECK(reply.size() > body.size());
  CHECK(std::string_view{reply}.substr(reply.size() - body.size()) == body);
}

TEST_CASE(
  "a client that leaves before its answer is told to the watcher, and late answers do no harm") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold"));
  auto held = host.take("/hold");
  CHECK(host.server->open_exchanges() == 1);
  client.leave();
  CHECK(eventually([&] { return host.watcher.gone == 1; }));
  CHECK(eventually([&] { return host.server->open_exchanges() == 0; }));
  host.on_loop([&] {
    CHECK(held->backlog() == 0);
    held->begin_stream(200, {});
    held->write("x");
    held->flush();
    held->end_stream();
    held->reply({});
    held->abandon();
  });
  CHECK(host.watcher.gone == 1);
  held.reset();
  host.forget();
}

TEST_CASE("a client that has only finished sending still gets its answer") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold"));
  host.take("/hold");
  client.finish_sending();
  CHECK(client.reply().starts_with("HTTP/1.1 100 Continue\r\n\r\n")); // the server wonders
  host.with("/hold", [](exchange& e) { e.reply({200, {}, "late"}); });
  CHECK(client.rest().ends_with("late"));
  CHECK(host.watcher.gone == 0);
}

TEST_CASE("a client of HTTP/1.0 that finishes sending before its answer begins has left") {
  held_server host;
  struct row {
    const char* headers;
    bool leaves; ///< else it only says that it sends no more
  };
  int gone = 0;
  for (auto [headers, leaves] :
       {row{"", true}, row{"", false}, row{"connection: keep-alive\r\n", true},
        row{"connection: keep-alive\r\n", false}}) {
    CAPTURE(headers);
    CAPTURE(leaves);
    raw_client client{*host.server};
    client.send("GET /hold HTTP/1.0\r\n" + std::string{headers} + "\r\n");
    host.take("/hold");
    CHECK(host.watcher.gone == gone);
    if (leaves)
      client.leave();
    else
      client.finish_sending();
    ++gone;
    CHECK(eventually([&] { return host.watcher.gone == gone; }));
    if (!leaves)
      CHECK(client.rest().empty());
    host.forget();
  }
}

TEST_CASE("a client of HTTP/1.0 that finishes sending in a stream of events still gets it") {
  held_server host;
  raw_client client{*host.server};
  client.send("GET /hold HTTP/1.0\r\n\r\n");
  auto held = host.take("/hold");
  host.on_loop([&] {
    held->begin_stream(200, {{"content-type", "text/event-stream"}});
    held->write("data: 1\n\n");
    held->flush();
  });
  client.finish_sending();
  CHECK(client.until("\n:\n\n").ends_with("data: 1\n\n:\n\n"));
  host.on_loop([&] {
    held->write("data: 2\n\n");
    held->end_stream();
  });
  CHECK(client.rest() == "data: 2\n\n");
  CHECK(host.watcher.gone == 0);
}

TEST_CASE(
  "a client that has finished sending and then leaves is noticed in the middle of a stream") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold"));
  auto held = host.take("/hold");
  host.on_loop([&] {
    held->begin_stream(200, {{"content-type", "text/event-stream; charset=utf-8"}});
    held->write("data: 1\n\n");
    held->flush();
  });
  client.finish_sending();
  CHECK(client.until(":\n\n").ends_with(":\n\n")); // the server wonders
  CHECK(host.watcher.gone == 0);
  client.leave();
  host.on_loop([&] {
    held->write("data: 2\n\n");
    held->flush();
  });
  CHECK(eventually([&] { return host.watcher.gone == 1; }));
  held.reset();
  host.forget();
}

TEST_CASE("an exchange already answered does not answer the next request") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold1"));
  auto first = host.take("/hold1");
  host.on_loop([&] { first->reply({200, {}, "one"}); });
  CHECK(client.reply().ends_with("one"));
  client.send(get("/hold2"));
  host.take("/hold2");
  host.on_loop([&] { first->reply({200, {}, "wrong"}); });
  host.with("/hold2", [](exchange& e) { e.reply({200, {}, "two"}); });
  CHECK(client.reply().ends_with("two"));
  CHECK(host.watcher.gone == 0);
}

TEST_CASE("an abandoned exchange drops its connection without a word") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold"));
  host.with("/hold", [](exchange& e) { e.abandon(); });
  CHECK(client.rest().empty());
  CHECK(client.closed());
  CHECK(host.watcher.gone == 0);
  CHECK(eventually([&] { return host.server->open_exchanges() == 0; }));
}

TEST_CASE("a request that is let go of without an answer does not hang for ever") {
  held_server host;
  raw_client client{*host.server};
  client.send(get("/hold"));
  host.take("/hold").reset();
  host.forget();
  CHECK(client.rest().empty());
  CHECK(client.closed());
  CHECK(eventually([&] { return host.server->open_exchanges() == 0; }));
}

TEST_CASE("an idle connection costs little memory") {
  held_server host;
  std::vector<raw_client> clients;
  const std::size_t count = 1000; // two descriptors each
  rlimit descriptors{};
  ::getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur
    = std::max<rlim_t>(descriptors.rlim_cur, std::min<rlim_t>(descriptors.rlim_max, 4096));
  ::setrlimit(RLIMIT_NOFILE, &descriptors);
  REQUIRE(descriptors.rlim_cur > 2 * count + 100);
  for (std::size_t i = 0; i < 4; ++i) { // what the first ones allocate once for all
    raw_client warm{*host.server};
    warm.send(get("/warm"));
    CHECK(warm.reply().ends_with("/warm "));
  }
  clients.reserve(count);
  auto before = allocated();
  for (std::size_t i = 0; i < count; ++i) {
    clients.emplace_back(*host.server);
    clients.back().send(
      "POST /" + std::string(3000, 'p') + " HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n");
    clients.back().send(std::string(9000, 'b'));
    REQUIRE(clients.back().reply().size() > 9000);
    host.forget();
  }
  host.on_loop([] {}); // behind the last reply
  host.forget();
  auto each = (allocated() - before) / count;
  MESSAGE("bytes per idle connection: " << each);
  CHECK((one_arena == 1 || before == 0));
  CHECK(each <= 4096);
  CHECK((each > 2048 || before == 0)); // what a connection holds in any case: it was counted
}

TEST_CASE("draining ends what is idle, completes what is open, and every answer is the last") {
  held_server host;
  raw_client idle{*host.server};
  raw_client open{*host.server};
  raw_client streaming{*host.server};
  idle.send(get("/a"));
  idle.reply();
  open.send(get("/hold"));
  streaming.send(get("/hold-stream"));
  host.with("/hold-stream", [](exchange& e) {
    e.begin_stream(200, {});
    e.write("one");
    e.flush();
  });
  streaming.until("one\r\n");
  host.take("/hold");
  host.server->drain();
  CHECK(idle.rest().empty());
  CHECK(idle.closed());
  CHECK(host.server->open_exchanges() == 2);
  raw_client late{*host.server}; // who asks now is told whatever the handler has to say
  late.send(get("/late") + get("/more"));
  CHECK(
    late.rest() == "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\nGET /late ");
  CHECK(late.closed());
  host.with("/hold", [](exchange& e) { e.reply({200, {}, "late"}); });
  auto reply = open.rest();
  CHECK(reply.find("connection: close\r\n") != std::string::npos);
  CHECK(reply.ends_with("late"));
  host.with("/hold-stream", [](exchange& e) {
    e.write("two");
    e.end_stream();
  });
  CHECK(streaming.rest() == "3\r\ntwo\r\n0\r\n\r\n");
  CHECK(eventually([&] { return host.server->open_exchanges() == 0; }));
  http_server_options same;
  same.listen = host.server->address();
  CHECK_FALSE(http_server::make(same).has_value());
  host.server.reset();
  CHECK(http_server::make(same).has_value()); // the port is free again
}

TEST_CASE("what works for a loop elsewhere may use it until its handler was told of the end") {
  struct busy : http_handler {
    busy(executor& to, std::atomic<int>& told)
      : ends{told}, worker{[this, &to] {
          while (!ended) {
            to.post([] {});
            ::poll(nullptr, 0, 1);
          }
        }} {}
    void on_request(std::shared_ptr<exchange>, http_request&&) override {}
    void on_loop_end() override {
      ended = true;
      worker.join();
      ++ends;
    }
    http_reply error_reply(int status, std::string_view) override { return {status, {}, ""}; }
    std::atomic<int>& ends;
    std::atomic<bool> ended{false};
    std::thread worker;
  };
  std::atomic<int> ends{0};
  auto server = std::move(*http_server::make({.loops = 2}));
  server->start([&](std::uint32_t i) { return std::make_unique<busy>(server->loop(i), ends); });
  server->stop();
  CHECK(ends == 0);
  server.reset();
  CHECK(ends == 2);
}

TEST_CASE("stopping with open exchanges drops them, and watchers hear nothing") {
  auto host = std::make_unique<held_server>(http_server_options{.loops = 2});
  std::vector<raw_client> clients;
  std::vector<std::shared_ptr<exchange>> held;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back(*host->server);
    clients.back().send(get("/hold" + std::to_string(i)));
    held.push_back(host->take("/hold" + std::to_string(i)));
  }
  host->server->stop();
  host->server->stop();
  for (auto& client : clients) {
    CHECK(client.rest().empty());
    CHECK(client.closed());
  }
  CHECK(host->server->open_exchanges() == 0);
  CHECK(host->watcher.gone == 0);
  held[0]->reply({}); // a no-op by now
  host.reset();
  held[1]->reply({});
}

TEST_CASE("a port in use, and an address that is none, are told by name") {
  held_server host;
  http_server_options options;
  for (std::string listen :
       {host.server->address(), std::string{"127.0.0.1"}, std::string{":80"},
        std::string{"127.0.0.1:x"}, std::string{"127.0.0.1:65536"},
        std::string{"no.such.host.invalid:1"}}) {
    CAPTURE(listen);
    options.listen = listen;
    auto made = http_server::make(options);
    REQUIRE(!made.has_value());
    CHECK(made.error().context.starts_with(listen + ": "));
  }
  options.listen = host.server->address();
  CHECK(http_server::make(options).error().context.ends_with("address already in use"));
}

TEST_CASE("each loop ticks, runs what is posted in order, and takes connections") {
  struct counting : http_handler {
    explicit counting(std::atomic<int>& to) : ticks{to} {}
    void on_request(std::shared_ptr<exchange> client, http_request&&) override {
      client->reply({});
    }
    void on_tick() override { ++ticks; }
    http_reply error_reply(int status, std::string_view) override { return {status, {}, ""}; }
    std::atomic<int>& ticks;
  };
  std::array<std::atomic<int>, 2> ticks{};
  auto server = std::move(*http_server::make({.loops = 2}));
  CHECK(server->loops() == 2);
  server->start([&](std::uint32_t i) { return std::make_unique<counting>(ticks[i]); });
  CHECK(eventually([&] { return ticks[0] >= 3 && ticks[1] >= 3; }));
  std::vector<int> order;
  std::promise<void> done;
  for (int i = 0; i < 100; ++i)
    server->loop(1).post([&, i] {
      order.push_back(i);
      if (i == 99)
        done.set_value();
    });
  REQUIRE(done.get_future().wait_for(patience) == std::future_status::ready);
  CHECK(std::is_sorted(order.begin(), order.end()));
  for (int i = 0; i < 20; ++i) {
    raw_client client{*server};
    client.send(get("/"));
    CHECK(client.reply().starts_with("HTTP/1.1 200"));
  }
}
