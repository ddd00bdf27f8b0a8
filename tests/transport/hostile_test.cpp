#include "tests/transport/test_device.hpp"
#include "tests/transport/transport_kinds.hpp"
#include "transport/ucx/ucx_endpoint.hpp"
#include "transport/ucx/ucx_greeting.hpp"
#include "transport/ucx/ucx_knock.hpp"
#include "transport/ucx/ucx_messages.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <atomic>
#include <netinet/in.h>
#include <poll.h>
#include <random>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

constexpr handover_id key{0x1111, 0x2222};

/// A plain TCP listener; it takes connections into its backlog and never says a word.
struct silent_listener {
  silent_listener() {
    descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto where = *ucx::socket_address("127.0.0.1", 0);
    socklen_t size = sizeof(sockaddr_in);
    REQUIRE(::bind(descriptor, reinterpret_cast<sockaddr*>(&where), size) == 0);
    REQUIRE(::listen(descriptor, 16) == 0);
    REQUIRE(::getsockname(descriptor, reinterpret_cast<sockaddr*>(&where), &size) == 0);
    port = ntohs(reinterpret_cast<sockaddr_in&>(where).sin_port);
  }
  ~silent_listener() { ::close(descriptor); }
  int descriptor;
  std::uint16_t port;
};

/// A stranger's connection, from an address that no peer has. None when nobody takes it.
ucx::owned_descriptor connect_to(std::uint16_t port, const std::string& own = "127.0.0.2") {
  ucx::owned_descriptor made{::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  auto from = *ucx::socket_address(own, 0);
  auto where = *ucx::socket_address("127.0.0.1", port);
  REQUIRE(::bind(made.get(), reinterpret_cast<sockaddr*>(&from), sizeof(sockaddr_in)) == 0);
  ::connect(made.get(), reinterpret_cast<sockaddr*>(&where), sizeof(sockaddr_in));
  pollfd event{made.get(), POLLOUT, 0};
  return ::poll(&event, 1, 200) == 1 ? std::move(made) : ucx::owned_descriptor{};
}

void say(const ucx::owned_descriptor& to, std::span<const std::byte> bytes) {
  [[maybe_unused]] auto sent
    = ::send(to.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/// What a peer's door tells who knows the key.
std::uint16_t ask_at_door(const ucx::peer& at) {
  ucx::socket_watch watch;
  REQUIRE(watch.open());
  auto knock = ucx::ucx_knock::begin(at, watch);
  REQUIRE(knock);
  std::optional<std::uint16_t> port;
  REQUIRE(eventually([&] {
    auto told = knock->work(impatient_ucx(false).cluster_key, at.life);
    REQUIRE(told);
    port = *told;
    return port.has_value();
  }));
  return *port;
}

/// Every TCP port this process listens on.
std::vector<std::uint16_t> own_ports() {
  std::vector<std::uint16_t> ports;
  for (int descriptor = 3; descriptor < 256; ++descriptor) {
    int listens = 0;
    socklen_t size = sizeof listens;
    if (::getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0)
      continue;
    sockaddr_storage where{};
    size = sizeof where;
    if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&where), &size) == 0)
      ports.push_back(ntohs(reinterpret_cast<sockaddr_in&>(where).sin_port));
  }
  return ports;
}

/// Speaks UCX, and our messages, but says what it likes.
struct raw_client {
  raw_client(const std::string& address) {
    target = *ucx::parse_address(address);
    context = std::move(*ucx::make_context("lo"));
    worker = std::move(*ucx::make_worker(context));
    ucp_am_handler_param_t param{};
    param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB
                       | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    param.id = ucx::control_message;
    param.cb = [](
                 void* self, const void* header, std::size_t bytes, void*, std::size_t,
                 const ucp_am_recv_param_t*) {
      if (auto what = ucx::decode({static_cast<const std::byte*>(header), bytes}))
        static_cast<raw_client*>(self)->heard.push_back(*what);
      return UCS_OK;
    };
    param.arg = this;
    REQUIRE(ucp_worker_set_am_recv_handler(worker.get(), &param) == UCS_OK);
    param.id = ucx::chunk_message;
    param.cb =
      [](void* self, const void*, std::size_t, void*, std::size_t, const ucp_am_recv_param_t* how) {
        if ((how->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0)
          return UCS_OK;
        ++static_cast<raw_client*>(self)->announced;
        return UCS_INPROGRESS; // and never takes it
      };
    REQUIRE(ucp_worker_set_am_recv_handler(worker.get(), &param) == UCS_OK);
    end = std::move(*ucx::ucx_endpoint::connect(
      worker.get(), *ucx::socket_address(target.at.ip, ask_at_door(target.at))));
  }
  ~raw_client() {
    end->close();
    while (!end->closed())
      ucp_worker_progress(worker.get());
  }

  void say(const ucx::message& what, bool reply = false) { end->send(encode(what), reply); }
  void turn_for(std::chrono::milliseconds time) {
    auto until = std::chrono::steady_clock::now() + time;
    while (std::chrono::steady_clock::now() < until)
      ucp_worker_progress(worker.get());
  }
  template <class T>
  std::optional<T> next() {
    auto until = std::chrono::steady_clock::now() + 5s;
    while (heard.empty() && std::chrono::steady_clock::now() < until && !end->broken())
      ucp_worker_progress(worker.get());
    if (heard.empty() || !std::holds_alternative<T>(heard.front()))
      return std::nullopt;
    auto first = std::get<T>(heard.front());
    heard.erase(heard.begin());
    return first;
  }
  /// Alive, but nothing else, until `over` or cut off; five seconds at most.
  void live_until(std::uint64_t link, const std::function<bool()>& over) {
    auto until = std::chrono::steady_clock::now() + 5s;
    while (!over() && !end->broken() && std::chrono::steady_clock::now() < until) {
      say(ucx::ping{link});
      turn_for(10ms);
    }
  }
  bool cut_off() {
    auto until = std::chrono::steady_clock::now() + 3s;
    while (!end->broken() && std::chrono::steady_clock::now() < until)
      ucp_worker_progress(worker.get());
    return end->broken();
  }
  /// Says the right things up to the welcome; the server's name for this connection.
  std::uint64_t greet(const std::string& cluster_key) {
    const ucx::token nonce{1, 2};
    say(ucx::hello{7, nonce, target.at.life}, true);
    auto asked = next<ucx::challenge>();
    REQUIRE(asked);
    say(ucx::answer{
      asked->server_link,
      prove(cluster_key, ucx::client_role, nonce, asked->nonce, target.at.life)});
    return asked->server_link;
  }

  ucx::address target;
  ucx::context context;
  ucx::worker worker;
  std::unique_ptr<ucx::ucx_endpoint> end;
  std::vector<ucx::message> heard;
  int announced = 0; ///< chunks that it might take
};

struct ucx_pair : transport_pair {
  ucx_pair(ucx_settings settings = impatient_ucx(false))
    : transport_pair{{"UCX", [settings] { return make_ucx(settings); }}, 4 << 20, 4 << 20} {}
  bool works() { return pull({{0, 0, 1 << 20}}).wait().why.code == errc::ok; }
};

} // namespace

TEST_CASE("a listener that never answers, and a port without one") {
  ucx_pair pair;
  silent_listener silent;
  auto address = *ucx::parse_address(pair.source->address(pair.from));
  address.at.port = silent.port;
  for (auto deadline : {nanoseconds{100ms}, nanoseconds{10s}}) {
    ending end;
    auto before = std::chrono::steady_clock::now();
    pair.own->pull(to_string(address), key, pair.into, {{0, 0, 10}}, deadline, end.callback());
    CHECK(end.wait().why.code == (deadline < 1s ? errc::timeout : errc::unreachable));
    CHECK(std::chrono::steady_clock::now() - before < 2s);
  }
  ::shutdown(silent.descriptor, SHUT_RDWR);
  ending end;
  pair.own->pull(to_string(address), key, pair.into, {{0, 0, 10}}, 10s, end.callback());
  CHECK(end.wait().why.code == errc::unreachable);
  CHECK(pair.works());
}

TEST_CASE("garbage at any port of ours ends a connection and nothing else") {
  ucx_pair pair;
  REQUIRE(pair.works());
  std::mt19937_64 random{11};
  auto ports = own_ports();
  REQUIRE(ports.size() >= 2);
  std::size_t hidden = 0;
  for (auto port : ports) {
    if (!connect_to(port)) {
      ++hidden;
      continue;
    }
    for (std::size_t size : {0, 1, 4, 8, 40, 48, 64, 4096, 200000}) {
      std::vector<std::byte> garbage(size);
      for (auto& byte : garbage)
        byte = static_cast<std::byte>(random());
      say(connect_to(port), garbage);
      for (auto same : {std::byte{0}, std::byte{0xFF}})
        say(connect_to(port), std::vector(size, same));
    }
  }
  CHECK(hidden == 4); // UCX's listeners, and those of its data connections, of both ends
  CHECK(eventually([&] { // from where a peer came a moment ago, too
    auto reached = std::ranges::count_if(
      ports, [](std::uint16_t port) { return bool{connect_to(port, "127.0.0.1")}; });
    return static_cast<std::size_t>(reached) == ports.size() - hidden;
  }));
  CHECK(pair.works());
}

TEST_CASE("what is said wrongly at the door leads nowhere, and a crowd there keeps nobody out") {
  ucx_pair pair;
  auto at = ucx::parse_address(pair.source->address(pair.from))->at;
  SUBCASE("half a call") {
    auto half = encode(ucx::door_call{});
    half.resize(half.size() / 2);
    auto stranger = connect_to(at.port);
    say(stranger, half);
    CHECK(pair.works());
  }
  SUBCASE("a wrong proof") {
    auto stranger = connect_to(at.port);
    say(stranger, encode(ucx::door_call{}));
    std::array<std::byte, 200> heard;
    std::size_t bytes = 0;
    pollfd event{stranger.get(), POLLIN, 0};
    for (ssize_t got = 1; got > 0; bytes += static_cast<std::size_t>(std::max<ssize_t>(got, 0))) {
      REQUIRE(::poll(&event, 1, 5000) == 1);
      got = ::recv(stranger.get(), heard.data(), heard.size(), 0);
    }
    CHECK(bytes == ucx::door_greeting::bytes);
    CHECK(!connect_to(ask_at_door(at)));
  }
  SUBCASE("many that say nothing") {
    std::vector<ucx::owned_descriptor> crowd;
    for (int i = 0; i < 200; ++i)
      crowd.push_back(connect_to(at.port));
    CHECK(std::ranges::all_of(crowd, [](const auto& x) { return bool{x}; }));
    CHECK(pair.works());
  }
  CHECK(pair.works());
}

TEST_CASE("only who knows the key is served, and only what it may read") {
  ucx_pair pair;
  auto address = pair.source->address(pair.from);
  const auto cluster_key = impatient_ucx(false).cluster_key;
  SUBCASE("a wrong proof") {
    raw_client client{address};
    client.greet("a wrong key");
    CHECK(client.cut_off());
  }
  SUBCASE("a request before the proof") {
    raw_client client{address};
    client.say(ucx::hello{7, {1, 2}, client.target.at.life}, true);
    auto asked = client.next<ucx::challenge>();
    REQUIRE(asked);
    client.say(ucx::read_request{asked->server_link, 1, key, 1, false, {{0, 100}}});
    CHECK(client.cut_off());
  }
  SUBCASE("another life") {
    raw_client client{address};
    client.say(ucx::hello{7, {1, 2}, {3, 4}}, true);
    CHECK(client.next<ucx::refusal>().has_value());
  }
  SUBCASE("requests under a link it was not given") {
    raw_client client{address};
    client.greet(cluster_key);
    REQUIRE(client.next<ucx::welcome>());
    client.say(ucx::read_request{99, 1, key, 1, false, {{0, 100}}});
    client.say(ucx::lease_request{98, 1, key, 1});
    client.say(ucx::ping{97});
    client.turn_for(50ms);
    CHECK(client.heard.empty());
  }
  SUBCASE("no window, and pieces out of the region") {
    raw_client client{address};
    auto link = client.greet(cluster_key);
    REQUIRE(client.next<ucx::welcome>());
    client.say(ucx::read_request{link, 1, {9, 9}, 1, false, {{0, 100}}});
    CHECK(client.next<ucx::denial>()->why == errc::stale);
    client.say(ucx::read_request{link, 2, key, 2, false, {{0, 100}}});
    CHECK(client.next<ucx::denial>()->why == errc::stale);
    client.say(ucx::read_request{link, 3, key, 1, false, {{0, 100}, {UINT64_MAX - 10, 100}}});
    CHECK(client.next<ucx::denial>()->why == errc::invalid_argument);
    client.say(ucx::read_request{link, 4, key, 1, false, {{4 << 20, 1}}});
    CHECK(client.next<ucx::denial>()->why == errc::invalid_argument);
  }
  SUBCASE("what only a source says, and what nobody says") {
    raw_client client{address};
    client.greet(cluster_key);
    REQUIRE(client.next<ucx::welcome>());
    client.say(ucx::chunk_header{7, 1, 0});
    client.say(ucx::lease_grant{7, 1, 1, 0, 100, 0, {}});
    client.say(ucx::denial{7, 1, errc::stale});
    std::mt19937_64 random{12};
    for (std::size_t size = 0; size < 600; size += 7) {
      std::vector<std::byte> bytes(size);
      for (auto& x : bytes)
        x = static_cast<std::byte>(random());
      client.end->send(bytes);
    }
    client.turn_for(50ms);
  }
  SUBCASE("many that say nothing") {
    std::vector<std::unique_ptr<raw_client>> clients;
    for (int i = 0; i < 8; ++i)
      clients.push_back(std::make_unique<raw_client>(address));
    for (auto& client : clients)
      client->turn_for(5ms);
    CHECK(pair.works());
    CHECK(clients.back()->cut_off());
  }
  CHECK(pair.works());
}

TEST_CASE("who reads for ever does not keep a window open: it is cut off") {
  auto settings = impatient_ucx(true);
  ucx_pair pair{settings};
  raw_client keeper{pair.source->address(pair.from)};
  auto link = keeper.greet(settings.cluster_key);
  REQUIRE(keeper.next<ucx::welcome>());
  keeper.say(ucx::lease_request{link, 1, key, 1});
  REQUIRE(keeper.next<ucx::lease_grant>());
  signal closed;
  pair.source->close_window(key, closed.callback());
  CHECK(!closed.came());
  CHECK(keeper.cut_off());
  CHECK(closed.wait(1s));
}

TEST_CASE("a window that closes cuts off nobody who has given back what it read under it") {
  auto settings = impatient_ucx(true);
  settings.quiesce_within = 500ms;
  ucx_pair pair{settings};
  const handover_id other{5, 6};
  pair.source->open_window(pair.from, other);
  raw_client keeper{pair.source->address(pair.from)};
  auto link = keeper.greet(settings.cluster_key);
  REQUIRE(keeper.next<ucx::welcome>());
  keeper.say(ucx::lease_request{link, 1, key, 1});
  REQUIRE(keeper.next<ucx::lease_grant>());
  keeper.say(ucx::lease_request{link, 2, other, 1});
  REQUIRE(keeper.next<ucx::lease_grant>());
  signal closed;
  pair.source->close_window(key, closed.callback());
  CHECK(!closed.came());
  keeper.say(ucx::lease_return{link, 1, 0});
  REQUIRE(keeper.next<ucx::lease_end>());
  CHECK(closed.wait(1s));
  auto limit = std::chrono::steady_clock::now() + settings.quiesce_within + 100ms;
  keeper.live_until(link, [&] { return std::chrono::steady_clock::now() > limit; });
  CHECK(!keeper.end->broken());
  keeper.heard.clear();
  keeper.say(ucx::lease_return{link, 2, 0});
  CHECK(keeper.next<ucx::lease_end>());
}

TEST_CASE("who lives and takes nothing has half of a device's staging, and not for ever") {
  auto settings = impatient_ucx(false);
  settings.taken_within = 1s;
  ucx_pair pair{settings};
  test_memory memory{24 << 20, make_device()};
  auto region = *pair.source->add_region(memory.region());
  pair.source->open_window(region, key);
  raw_client greedy{pair.source->address(region)};
  auto link = greedy.greet(settings.cluster_key);
  REQUIRE(greedy.next<ucx::welcome>());
  for (std::uint64_t i = 0; i < 24; ++i)
    greedy.say(ucx::read_request{link, i + 1, key, region, false, {{i << 20, 1 << 20}}});
  greedy.live_until(link, [&] { return greedy.announced >= 8; });
  ending end;
  pair.own->pull(
    pair.source->address(region), key, pair.into, {{0, 0, 4 << 20}}, 5s, end.callback());
  greedy.live_until(link, [&] { return end.came(); });
  CHECK(end.wait().why.code == errc::ok);
  CHECK(greedy.announced == 8);
  greedy.live_until(link, [] { return false; });
  CHECK(greedy.end->broken());
  CHECK(pair.works());
}

TEST_CASE("memory of a device is lent to nobody, and not read past its end") {
  auto settings = impatient_ucx(true);
  ucx_pair pair{settings};
  test_memory memory{1000, make_device()};
  auto region = *pair.source->add_region(memory.region());
  pair.source->open_window(region, key);
  raw_client client{pair.source->address(region)};
  auto link = client.greet(settings.cluster_key);
  REQUIRE(client.next<ucx::welcome>());
  client.say(ucx::lease_request{link, 1, key, region});
  CHECK(client.next<ucx::denial>()->why == errc::invalid_argument);
  client.say(ucx::read_request{link, 2, key, region, false, {{999, 2}}});
  CHECK(client.next<ucx::denial>()->why == errc::invalid_argument);
  client.say(ucx::read_request{link, 3, key, region, false, {{UINT64_MAX, 2}}});
  CHECK(client.next<ucx::denial>()->why == errc::invalid_argument);
  CHECK(pair.works());
}

TEST_CASE("bytes that change on their way are noticed") {
  auto settings = impatient_ucx(false);
  settings.checksums = true;
  ucx_pair pair{settings};
  CHECK(pair.works());
  // The source's checksum is taken before the bytes go: spoil them in between, again and again.
  std::atomic<bool> over = false;
  std::thread spoiler{[&] {
    while (!over)
      for (std::size_t at = 0; at < pair.there.size(); at += 4096)
        std::atomic_ref{reinterpret_cast<unsigned char&>(pair.there[at])} ^= 0x40;
  }};
  auto seen = eventually([&] {
    return pair.pull({{0, 0, 4 << 20}}).wait().why.code == errc::bad_message;
  });
  over = true;
  spoiler.join();
  CHECK(seen);
  CHECK(pair.own->counters().bad_checksums > 0);
}

TEST_CASE("settings that cannot be are refused") {
  struct row {
    const char* name;
    std::function<void(ucx_settings&)> change;
    errc code;
  };
  for (const auto& [name, change, code] : {
         row{"as they are", [](auto&) {}, errc::ok},
         row{"no address", [](auto& x) { x.listen = "localhost"; }, errc::invalid_argument},
         row{"not ours", [](auto& x) { x.listen = "203.0.113.9"; }, errc::invalid_argument},
         row{
           "off loopback without a key", [](auto& x) { x.listen = "0.0.0.0", x.cluster_key = ""; },
           errc::invalid_argument},
         row{"loopback without a key", [](auto& x) { x.cluster_key = ""; }, errc::ok},
         row{"no chunk", [](auto& x) { x.chunk_bytes = 0; }, errc::invalid_argument},
         row{"no spans", [](auto& x) { x.chunk_spans = 0; }, errc::invalid_argument},
         row{"too many spans", [](auto& x) { x.chunk_spans = 10000; }, errc::invalid_argument},
       }) {
    CAPTURE(name);
    auto settings = impatient_ucx(false);
    change(settings);
    auto made = make_ucx_transport(settings);
    CHECK((made ? errc::ok : made.error().code) == code);
  }
}
