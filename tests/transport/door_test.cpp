#include "transport/ucx/ucx_door.hpp"
#include "transport/ucx/ucx_knock.hpp"

#include <doctest/doctest.h>

#include <array>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <vector>

using namespace llumnix;
using namespace llumnix::ucx;
using namespace std::chrono_literals;

namespace {

/// Listens like UCX, and is a plain socket.
struct plain_listener {
  explicit plain_listener(const std::string& ip) : where{*socket_address(ip, 0)} {
    socket = owned_descriptor{::socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&where), size_of(where)) != 0)
      return;
    REQUIRE(::listen(socket.get(), 16) == 0);
    socklen_t size = sizeof where;
    REQUIRE(::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&where), &size) == 0);
    there = true;
  }

  sockaddr_storage where;
  owned_descriptor socket;
  bool there = false; ///< false without IPv6
};

/// A connection from that address; none when nobody takes it within a fifth of a second.
owned_descriptor connect_from(const std::string& ip, const sockaddr_storage& to) {
  owned_descriptor made{::socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  auto from = *socket_address(ip, 0);
  REQUIRE(::bind(made.get(), reinterpret_cast<sockaddr*>(&from), size_of(from)) == 0);
  ::connect(made.get(), reinterpret_cast<const sockaddr*>(&to), size_of(to));
  pollfd event{made.get(), POLLOUT, 0};
  if (::poll(&event, 1, 200) == 1 && (event.revents & POLLERR) == 0)
    return made;
  return {};
}

/// A door with a plain listener behind it, and one caller; all on this thread.
struct door_fixture {
  door_fixture() {
    settings.cluster_key = "a key of tests";
    REQUIRE(watch.open());
    REQUIRE(door.open(*socket_address("127.0.0.1", 0)));
    door.lead_to(hidden.where);
  }
  /// Turns until the caller knows.
  result<std::uint16_t> call(const std::string& key, const token& wanted, std::uint16_t at) {
    peer server;
    server.ip = "127.0.0.1";
    server.port = at;
    auto knock = ucx_knock::begin(server, watch);
    REQUIRE(knock);
    for (auto until = now + 5s; std::chrono::steady_clock::now() < until;) {
      door.work(now);
      auto told = knock->work(key, wanted);
      if (!told)
        return std::move(told).error();
      if (*told)
        return **told;
    }
    return error{errc::timeout, "no answer"};
  }

  ucx_settings settings;
  time_point now = std::chrono::steady_clock::now();
  token life{1, 2};
  socket_watch watch;
  plain_listener hidden{"127.0.0.1"};
  ucx_gate lanes;
  ucx_door door{settings, life, watch, lanes};
};

} // namespace

TEST_CASE("the words of the door have a fixed size; anything else is none") {
  door_greeting greeting{{1, 2}, {3, 4}};
  auto bytes = encode(greeting);
  CHECK(bytes.size() == door_greeting::bytes);
  CHECK(encode(door_call{}).size() == door_call::bytes);
  CHECK(encode(door_answer{}).size() == door_answer::bytes);
  auto again = decode_as<door_greeting>(bytes);
  REQUIRE(again);
  CHECK(again->life == greeting.life);
  CHECK(again->nonce == greeting.nonce);
  for (std::size_t at = 0; at < 8; ++at) { // another name, or another version
    auto other = bytes;
    other[at] ^= std::byte{0x10};
    CHECK(!decode_as<door_greeting>(other));
  }
  bytes.pop_back();
  CHECK(!decode_as<door_greeting>(bytes));
}

TEST_CASE("only those let in get through the gate, and only as long") {
  struct row {
    const char* name;
    const char* listener;
    std::vector<const char*> guests;
    const char* caller;
    bool passes;
  };
  for (const auto& [name, listener, guests, caller, passes] : {
         row{"nobody let in", "127.0.0.1", {}, "127.0.0.1", false},
         row{"a guest", "127.0.0.1", {"127.0.0.1"}, "127.0.0.1", true},
         row{"a stranger", "127.0.0.1", {"127.0.0.1"}, "127.0.0.2", false},
         row{
           "the last of three",
           "127.0.0.1",
           {"10.0.0.1", "10.0.0.2", "127.0.0.2"},
           "127.0.0.2",
           true},
         row{"nobody, IPv6", "::1", {}, "::1", false},
         row{"a guest, IPv6", "::1", {"::1"}, "::1", true},
         row{"all but the last word, IPv6", "::1", {"::2", "::"}, "::1", false},
         row{"all but the first, IPv6", "::1", {"fe80::1"}, "::1", false},
         row{"the last of three, IPv6", "::1", {"fe80::1", "::2", "::1"}, "::1", true},
       }) {
    CAPTURE(name);
    plain_listener one{listener};
    if (!one.there)
      continue;
    ucx_gate gate;
    REQUIRE(gate.shut(one.where));
    auto now = std::chrono::steady_clock::now();
    for (const auto* guest : guests)
      gate.let_in(*socket_address(guest, 0), now + 1s);
    CHECK(bool{connect_from(caller, one.where)} == passes);
    CHECK(gate.work(now + 1s) == !guests.empty());
    CHECK(!connect_from(caller, one.where));
  }
}

TEST_CASE("who has come through the gate stays in touch when it shuts") {
  plain_listener one{"127.0.0.1"};
  ucx_gate gate;
  REQUIRE(gate.shut(one.where));
  auto now = std::chrono::steady_clock::now();
  gate.let_in(*socket_address("127.0.0.1", 0), now + 1s);
  CHECK(gate.wake_at() == now + 1s);
  auto caller = connect_from("127.0.0.1", one.where);
  REQUIRE(caller);
  owned_descriptor taken{::accept(one.socket.get(), nullptr, nullptr)};
  REQUIRE(taken);
  SUBCASE("in time") {
    gate.work(now + 1s);
  }
  SUBCASE("once it has come") {
    gate.came(*socket_address("127.0.0.1", 0));
  }
  CHECK(gate.wake_at() == time_point::max());
  CHECK(!connect_from("127.0.0.1", one.where));
  char byte = 0;
  CHECK(::send(caller.get(), "x", 1, 0) == 1);
  CHECK(::recv(taken.get(), &byte, 1, 0) == 1);
  CHECK(::send(taken.get(), "y", 1, 0) == 1);
  pollfd event{caller.get(), POLLIN, 0};
  CHECK(::poll(&event, 1, 1000) == 1);
}

TEST_CASE("who was let in twice may come twice, and not three times") {
  plain_listener one{"127.0.0.1"};
  ucx_gate gate;
  REQUIRE(gate.shut(one.where));
  auto who = *socket_address("127.0.0.1", 0);
  auto until = std::chrono::steady_clock::now() + 1s;
  gate.let_in(who, until);
  gate.let_in(who, until);
  for (auto passes : {true, true, false}) {
    CHECK(bool{connect_from("127.0.0.1", one.where)} == passes);
    gate.came(who);
  }
}

TEST_CASE("who is kept in comes as often as it likes, for as long as was said last") {
  plain_listener hidden{"127.0.0.1"};
  ucx_gate gate;
  REQUIRE(gate.shut(hidden.where));
  auto now = std::chrono::steady_clock::now();
  auto here = *socket_address("127.0.0.1", 0);
  CHECK(!connect_from("127.0.0.1", hidden.where));
  gate.keep_in(here, now + 10s);
  gate.keep_in(here, now + 20s);
  gate.keep_in(here, now + 5s);
  CHECK(gate.wake_at() == now + 20s);
  for (int i = 0; i < 3; ++i)
    CHECK(bool{connect_from("127.0.0.1", hidden.where)});
  gate.work(now + 10s);
  CHECK(bool{connect_from("127.0.0.1", hidden.where)});
  gate.work(now + 20s);
  CHECK(!connect_from("127.0.0.1", hidden.where));
}

TEST_CASE("a crowd of guests: the one let in longest ago makes room") {
  for (const std::string ip : {"127.0.0.1", "::1"}) {
    CAPTURE(ip);
    plain_listener one{ip};
    if (!one.there)
      continue;
    ucx_gate gate;
    REQUIRE(gate.shut(one.where));
    auto until = std::chrono::steady_clock::now() + 1s;
    auto others = [&](int count) {
      for (int i = 1; i <= count; ++i)
        gate.let_in(
          *socket_address((ip == "::1" ? "fe80::" : "10.0.0.") + std::to_string(i), 0), until);
    };
    gate.let_in(*socket_address(ip, 0), until);
    others(63);
    CHECK(bool{connect_from(ip, one.where)});
    others(64);
    CHECK(!connect_from(ip, one.where));
  }
}

TEST_CASE_FIXTURE(door_fixture, "who knows the key is told the port and let in; nobody else is") {
  auto says = [](const result<std::uint16_t>& x, std::string_view what) {
    return !x && x.error().context.find(what) != std::string::npos;
  };
  CHECK(!connect_from("127.0.0.1", hidden.where));
  CHECK(says(call("a wrong key", life, door.port()), "another key"));
  CHECK(says(call("a key of tests", {3, 4}, door.port()), "that life of the peer is over"));
  CHECK(!connect_from("127.0.0.1", hidden.where));
  auto told = call("a key of tests", life, door.port());
  REQUIRE(told);
  CHECK(*told == port_in(hidden.where));
  CHECK(bool{connect_from("127.0.0.1", hidden.where)});
  CHECK(!connect_from("127.0.0.2", hidden.where));
}

TEST_CASE_FIXTURE(door_fixture, "without a key the same is said") {
  settings.cluster_key.clear();
  CHECK(call("", life, door.port()));
  CHECK(!call("some key", life, door.port()));
}

TEST_CASE_FIXTURE(door_fixture, "a caller believes nobody who speaks otherwise") {
  for (const auto& words :
       {std::string{"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"}, std::string(64, '\0'),
        std::string(64, '\xff')}) {
    plain_listener other{"127.0.0.1"};
    peer server;
    server.ip = "127.0.0.1";
    server.port = port_in(other.where);
    auto knock = ucx_knock::begin(server, watch);
    REQUIRE(knock);
    owned_descriptor taken{::accept(other.socket.get(), nullptr, nullptr)};
    REQUIRE(::send(taken.get(), words.data(), words.size(), 0) > 0);
    auto told = knock->work("a key of tests", life);
    REQUIRE(!told);
    CHECK(told.error().context == "does not speak as a KV peer of this version");
  }
}

TEST_CASE_FIXTURE(door_fixture, "who says nothing at the door is sent off in time") {
  auto silent = connect_from("127.0.0.2", *socket_address("127.0.0.1", door.port()));
  REQUIRE(silent);
  while (door.wake_at() == time_point::max())
    door.work(now);
  CHECK(door.wake_at() == now + settings.connect_within);
  std::array<std::byte, 64> heard;
  CHECK(::recv(silent.get(), heard.data(), heard.size(), 0) == door_greeting::bytes);
  CHECK(!door.work(now + settings.connect_within - 1ms));
  CHECK(door.work(now + settings.connect_within));
  CHECK(::recv(silent.get(), heard.data(), heard.size(), 0) == 0);
  CHECK(door.wake_at() == time_point::max());
}
