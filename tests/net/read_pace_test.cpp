#include "net/read_pace.hpp"
#include "tests/net/upstream_testing.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <optional>
#include <vector>

namespace llumnix::net::testing {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;

TEST_CASE("pauses grow while a loop is behind, and go when it is at ease") {
  struct row {
    double share; // of a processor, in the last tenth of a second
    int pause;    // ms
  };
  read_pace pace{milliseconds{40}};
  nanoseconds now{0}, demand{0};
  pace.update(now, demand);
  for (auto [share, pause] :
       {row{0.2, 0}, row{0.54, 0}, row{0.9, 10}, row{1.0, 15}, row{3.0, 22}, row{1.0, 33},
        row{1.0, 40}, row{1.0, 40}, row{0.5, 40}, row{0.3, 26}, row{0.3, 17}, row{0.56, 25},
        row{0.1, 16}, row{0.1, 10}, row{0.1, 0}, row{0.1, 0}}) {
    now += milliseconds{100};
    demand += nanoseconds{static_cast<std::int64_t>(share * 1e8)};
    pace.update(now, demand);
    CHECK(pace.pause().count() == pause);
  }
}

TEST_CASE("without pauses there are none, and a clock that stands still says nothing") {
  read_pace never{milliseconds{0}};
  never.update(nanoseconds{0}, nanoseconds{0});
  never.update(milliseconds{100}, milliseconds{100});
  CHECK(never.pause().count() == 0);
  read_pace pace{milliseconds{40}};
  pace.update(nanoseconds{5}, nanoseconds{0});
  pace.update(nanoseconds{5}, milliseconds{100});
  CHECK(pace.pause().count() == 0);
}

TEST_CASE("a thread's demand grows while it runs") {
  thread_demand demand;
  auto before = demand();
  auto until = std::chrono::steady_clock::now() + milliseconds{20};
  while (std::chrono::steady_clock::now() < until) {
  }
  auto grown = demand() - before;
  CHECK(grown > milliseconds{10});
  CHECK(grown < std::chrono::seconds{20});
}

namespace {

/// A stream, two tokens of which were read on a loop that is far behind: it pauses.
struct paused_stream {
  paused_stream() : pool{options()} {
    REQUIRE(eventually([&] { return updates > 14; })); // pauses are at their longest
    asked.heard.then = [&](std::string_view event) {
      if (event == "body")
        read_at.push_back(std::chrono::steady_clock::now());
    };
    auto request = post_to(host.address());
    request.stream = true;
    pool.send(std::move(request), asked.heard, asked.call);
    peer.emplace(host.accept());
    peer->until("\r\n\r\n");
    peer->send(chunked + "1\r\na\r\n");
    CHECK(asked.heard.heard("body"));
    peer->send("1\r\nb\r\n");
    REQUIRE(eventually([&] { return asked.heard.body() == "ab"; }));
  }
  upstream_options options() {
    upstream_options all;
    all.longest_pause = pause;
    all.demand = [this] { return std::chrono::seconds{++updates}; };
    return all;
  }

  const milliseconds pause{300};
  std::atomic<int> updates{0};
  std::vector<std::chrono::steady_clock::time_point> read_at; ///< each piece, on the loop
  raw_host host;
  asking asked;
  pool_on_loop pool;
  std::optional<raw_client> peer;
};

} // namespace

TEST_CASE_FIXTURE(paused_stream, "behind, a stream waits for a larger piece, and comes whole") {
  for (char c : {'c', 'd', 'e', 'f'})
    peer->send(std::string{"1\r\n"} + c + "\r\n");
  peer->send("0\r\n\r\n");
  CHECK(asked.heard.outcome() == errc::ok);
  CHECK(asked.heard.body() == "abcdef");
  CHECK(pool.comes_to(1));
  REQUIRE(read_at.size() >= 3);
  CHECK(read_at[2] - read_at[1] > pause - milliseconds{20});
}

TEST_CASE_FIXTURE(paused_stream, "a paused stream can be given up") {
  pool.drop(asked.call);
  CHECK(pool.comes_to(0));
}

TEST_CASE_FIXTURE(paused_stream, "a paused stream can be held, and goes on") {
  pool.on_loop([&] { asked.call->hold(); });
  peer->send("1\r\nc\r\n0\r\n\r\n");
  pool.on_loop([&] { asked.call->resume(); });
  CHECK(asked.heard.outcome() == errc::ok);
  CHECK(asked.heard.body() == "abc");
}

TEST_CASE_FIXTURE(paused_stream, "the end of a paused stream is seen") {
  peer->leave();
  CHECK(asked.heard.outcome() == errc::disconnected);
  CHECK(pool.comes_to(0));
}

} // namespace llumnix::net::testing
