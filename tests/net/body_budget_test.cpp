#include "http_testing.hpp"

#include <string>

using namespace llumnix;
using namespace llumnix::net;
using namespace llumnix::net::testing;

namespace {

constexpr std::size_t budget = 500'000;

http_server_options small_budget(std::uint32_t loops = 1) {
  http_server_options options;
  options.loops = loops;
  options.max_body_bytes = 400'000;
  options.max_bodies_bytes = budget;
  return options;
}

std::string post(const std::string& path, std::size_t size) {
  return "POST " + path + " HTTP/1.1\r\nhost: a\r\ncontent-length: " + std::to_string(size)
         + "\r\n\r\n";
}

std::string bytes(std::size_t count) {
  return std::string(count, 'b');
}

bool counts(held_server& host, std::size_t size) {
  return eventually([&] { return host.server->body_bytes() == size; });
}

bool refused(raw_client& client) {
  auto reply = client.rest();
  return reply.starts_with("HTTP/1.1 503 Service Unavailable\r\n")
         && reply.find("connection: close\r\n") != std::string::npos && client.closed();
}

} // namespace

TEST_CASE("a body beyond what all may hold is refused, and the others go on") {
  held_server host{small_budget()};
  raw_client first{*host.server};
  first.send(post("/first", 300'000) + bytes(250'000));
  REQUIRE(counts(host, 250'000));
  raw_client second{*host.server};
  second.send(post("/second", 300'000) + bytes(300'000));
  CHECK(refused(second));
  REQUIRE(counts(host, 250'000)); // what has come of it is gone
  raw_client third{*host.server};
  third.send(post("/third", 1000) + bytes(1000));
  CHECK(third.reply().ends_with("b"));
  CHECK(host.server->body_bytes() == 250'000); // what comes at once is not counted
  first.send(bytes(50'000));
  CHECK(first.reply().ends_with("b"));
  first.send(post("/small", 10)); // and the connection goes on
  first.send(bytes(10));
  CHECK(first.reply().ends_with(" bbbbbbbbbb"));
}

TEST_CASE("a body counts as long as the handler holds it") {
  held_server host{small_budget()};
  raw_client first{*host.server};
  first.send(post("/hold", 300'000) + bytes(300'000));
  host.with("/hold", [](exchange& e) { e.reply({200, {}, "done"}); });
  CHECK(first.reply().ends_with("done"));
  CHECK(host.server->body_bytes() == 300'000);
  raw_client second{*host.server};
  second.send(post("/second", 300'000) + bytes(300'000));
  CHECK(refused(second));
  host.forget();
  CHECK(host.server->body_bytes() == 0);
  raw_client third{*host.server};
  third.send(post("/third", 300'000) + bytes(300'000));
  CHECK(third.reply().ends_with("b"));
  auto kept = host.last();
  host.forget();
  CHECK(host.server->body_bytes() == 300'000);
  host.server.reset(); // whoever holds it may outlive the server
  CHECK(kept.body.size() == 300'000);
}

TEST_CASE("what a body took is given back however its connection ends") {
  auto options = small_budget();
  options.body_timeout = 300ms;
  held_server host{options};
  const std::string chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
  struct row {
    std::string sent, then, status;
  };
  for (const auto& [sent, then, status] :
       {row{post("/", 300'000) + bytes(100'000), "", "408"},
        row{chunked + "186a0\r\n" + bytes(100'000), "", "408"},
        row{chunked + "186a0\r\n" + bytes(100'000), "\r\nx", "400"},
        row{chunked + "186a0\r\n" + bytes(100'000), "\r\n61a80\r\n", "413"}}) {
    CAPTURE(status);
    raw_client client{*host.server};
    client.send(sent);
    REQUIRE(counts(host, 100'000));
    client.send(then);
    CHECK(client.rest().starts_with("HTTP/1.1 " + status));
    CHECK(counts(host, 0));
  }
  raw_client client{*host.server};
  client.send(post("/", 300'000) + bytes(100'000));
  REQUIRE(counts(host, 100'000));
  client.leave();
  CHECK(counts(host, 0));
}

TEST_CASE("the budget is one for all loops") {
  held_server host{small_budget(2)};
  std::vector<raw_client> clients;
  for (std::size_t i = 0; i < 8; ++i) {
    auto& client = clients.emplace_back(*host.server);
    client.send(post("/", 200'000) + bytes(100'000));
    if (i < 5)
      REQUIRE(counts(host, (i + 1) * 100'000));
    else
      CHECK(refused(client));
  }
  CHECK(counts(host, budget));
  clients.clear();
  CHECK(counts(host, 0));
}
