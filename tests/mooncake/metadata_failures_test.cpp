#include "tests/mooncake/metadata_stage.hpp"

#include <doctest/doctest.h>

namespace llumnix::mooncake::testing {
namespace {

/// An address where nobody listens.
std::string deserted() {
  auto server = net::http_server::make({});
  REQUIRE(server.has_value());
  return (*server)->address();
}

} // namespace

TEST_CASE("answers of any wrong kind use up the attempts and put the service down") {
  const std::string good = R"({"success":true,"data":{}})";
  struct row {
    const char* what;
    int status;
    std::string body;
    errc code;
  };
  const row rows[]{
    {"an error", 500, good, errc::internal},
    {"an unknown path", 404, "no such path", errc::internal},
    {"a URL too long for it", 414, "", errc::internal},
    {"another good status", 201, good, errc::internal},
    {"elsewhere", 302, good, errc::internal},
    {"nothing", 200, "", errc::bad_message},
    {"garbage", 200, "<html>", errc::bad_message},
    {"half of it", 200, R"({"success":true,"data":{)", errc::bad_message},
    {"a failure", 200, R"({"success":false,"data":{}})", errc::internal},
    {"wrong types", 200, R"({"success":true,"data":[]})", errc::bad_message},
    {"too much", 200, std::string(5000, ' '), errc::too_long}};
  for (const auto& [what, status, body, code] : rows) {
    CAPTURE(what);
    auto options = quick(3);
    options.answer_bytes_max = 4096;
    stage on{options};
    on.will_reply(status, body, 3);
    CHECK(code_of(on.ask(tokens(8), 50ms, 600ms)) == code);
    CHECK(on.service.requests == 3);
    CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
    CHECK(on.service.requests == 3);
  }
}

TEST_CASE("where nobody listens a query ends after its attempts and pauses") {
  stage on{quick(3), deserted()};
  on.find(tokens(8));
  for (int pause = 0; pause < 3; ++pause) { // also after the last
    on.settle();
    CHECK(on.heard->size() == 0);
    on.pass(100ms);
  }
  REQUIRE(on.hears(1));
  CHECK(code_of(on.last()) == errc::unreachable);
}

TEST_CASE("no address is an error like others") {
  for (const char* address : {"nowhere", "127.0.0.1:", "http://127.0.0.1:1", "a b:1"}) {
    stage on{quick(), address};
    CHECK(code_of(on.ask(tokens(8), 100ms, 200ms)) != errc::ok);
  }
}

TEST_CASE("a connection that is cut is tried three more times at once, within the attempt") {
  auto cut = [](const auto& client, const auto&) { client->abandon(); };
  auto cut_within = [](const auto& client, const auto&) {
    client->begin_stream(200, {});
    client->write(R"({"success":true,)");
    client->flush();
    client->abandon();
  };
  {
    stage on;
    on.will(cut, 2);
    on.will(cut_within);
    CHECK(code_of(on.ask(tokens(8))) == errc::ok);
    CHECK(on.service.requests == 4);
  }
  stage on;
  on.will(cut_within, 4);
  CHECK(code_of(on.ask(tokens(8), 100ms, 200ms)) == errc::disconnected);
  CHECK(on.service.requests == 4);
}

TEST_CASE("a service that is slow gets its time for each call, and a query its attempts") {
  auto options = quick(2);
  options.budget = 1h;
  stage on{options};
  on.will_wait();
  on.will([&](const auto& client, const auto&) { // begins, and never ends
    client->begin_stream(200, {});
    client->write("{");
    client->flush();
    on.service.kept.push_back(client);
  });
  on.find(tokens(8));
  REQUIRE(on.is_asked(1));
  on.pass(2999ms);
  CHECK(on.heard->size() == 0);
  on.pass(1ms); // given up
  on.pass(99ms);
  on.settle();
  CHECK(on.service.requests == 1);
  on.pass(1ms);
  REQUIRE(on.is_asked(2));
  on.pass(2999ms);
  on.pass(1ms);
  CHECK(on.heard->size() == 0);
  on.pass(100ms);
  REQUIRE(on.hears(1));
  CHECK(code_of(on.last()) == errc::timeout);
  CHECK(on.service.requests == 2);
}

TEST_CASE("a query never outlasts its budget") {
  SUBCASE("by one slow call") {
    stage on{quick(5)};
    on.will_wait();
    on.find(tokens(8));
    REQUIRE(on.is_asked(1));
    on.pass(1499ms);
    CHECK(on.heard->size() == 0);
    on.pass(1ms);
    REQUIRE(on.hears(1));
    CHECK(code_of(on.last()) == errc::timeout);
    CHECK(code_of(on.ask(tokens(8))) == errc::unreachable); // down
    CHECK(on.service.requests == 1);
  }
  SUBCASE("by many attempts; the last failure is told") {
    auto options = quick(1000);
    stage on{options};
    on.will_reply(503, "", 1000);
    CHECK(code_of(on.ask(tokens(8), 100ms, 1500ms)) == errc::internal);
    CHECK(on.service.requests == 15);
  }
  SUBCASE("by a long list of keys") {
    auto options = quick();
    options.target_bytes_max = 100; // one key each
    stage on{options};
    on.on_loop([&] { on.service.hold(tokens(12), "h", options.keys); });
    on.will([&](const auto& client, const auto& request) { on.service.answer(client, request); });
    on.will_wait();
    on.find(tokens(12));
    REQUIRE(on.is_asked(2));
    on.pass(1500ms);
    REQUIRE(on.hears(1));
    CHECK(code_of(on.last()) == errc::timeout);
  }
}

TEST_CASE("a failed attempt is made good by the next, after a pause") {
  stage on{quick(5)};
  on.on_loop([&] { on.service.hold(tokens(8), "10.0.0.1", quick().keys); });
  on.will_reply(500, "", 2);
  on.find(tokens(8));
  REQUIRE(on.is_asked(1));
  on.settle();
  on.pass(99ms);
  on.settle();
  CHECK(on.service.requests == 1);
  on.pass(1ms);
  REQUIRE(on.is_asked(2));
  on.settle();
  on.pass(100ms);
  REQUIRE(on.hears(1));
  CHECK(on.last()->list == holders{{"10.0.0.1", 8}});
  CHECK(code_of(on.ask(tokens(8))) == errc::ok); // it was never down
}

TEST_CASE("a service that was down is asked again by one query alone") {
  stage on{quick(5)};
  on.will_reply(500, "", 5);
  CHECK(code_of(on.ask(tokens(8), 100ms, 600ms)) == errc::internal);
  on.pass(30s); // not yet
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  CHECK(on.service.requests == 5);

  on.pass(1ms);
  on.will_wait();
  on.find(tokens(8)); // the probe
  REQUIRE(on.is_asked(6));
  for (int i = 0; i < 3; ++i)
    CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.on_loop([&] { on.service.kept.front()->reply({500, {}, {}}); });
  on.settle();
  on.pass(100ms);
  REQUIRE(on.heard->size() == 6); // in one attempt
  CHECK(code_of(on.last()) == errc::internal);

  on.pass(30s); // down anew
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.pass(1ms);
  on.will_wait();
  on.find(tokens(8));
  REQUIRE(on.is_asked(7));
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.on_loop([&] { on.service.kept.back()->reply({200, {}, R"({"success":true})"}); });
  REQUIRE(on.hears(9));
  CHECK(code_of(on.last()) == errc::ok);
  CHECK(code_of(on.ask(tokens(8))) == errc::ok); // up
  CHECK(on.service.requests == 8);
}

TEST_CASE("a probe that hears nothing ends with its budget, and the next one comes later") {
  stage on;
  on.will_reply(500, "");
  CHECK(code_of(on.ask(tokens(8), 100ms, 200ms)) == errc::internal);
  on.pass(30001ms);
  on.will_wait();
  on.find(tokens(8));
  REQUIRE(on.is_asked(2));
  on.pass(1500ms);
  REQUIRE(on.hears(2));
  CHECK(code_of(on.last()) == errc::timeout);
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable);
  on.pass(30001ms);
  CHECK(code_of(on.ask(tokens(8))) == errc::ok);
}

TEST_CASE("queries that were under way when the service went down may still succeed, once") {
  stage on{quick(2)};
  on.will_wait(3);
  for (int i = 0; i < 3; ++i)
    on.find(tokens(8));
  REQUIRE(on.is_asked(3));
  on.will_reply(500, "");
  on.on_loop([&] { on.service.kept[0]->reply({500, {}, {}}); });
  on.settle();
  on.pass(100ms);
  REQUIRE(on.is_asked(4)); // its second attempt, which fails
  on.settle();
  on.pass(50ms);
  on.on_loop([&] { on.service.kept[1]->reply({500, {}, {}}); });
  on.settle();
  on.pass(50ms); // the first has ended
  REQUIRE(on.hears(1));
  on.pass(50ms); // the second's pause is over, but there is no second attempt
  REQUIRE(on.hears(2));
  CHECK(code_of(on.last()) == errc::internal);
  CHECK(on.service.requests == 4);
  on.on_loop([&] { on.service.kept[2]->reply({200, {}, R"({"success":true})"}); });
  REQUIRE(on.hears(3));
  CHECK(code_of(on.last()) == errc::ok);
  CHECK(code_of(on.ask(tokens(8))) == errc::unreachable); // it stays down
}

} // namespace llumnix::mooncake::testing
