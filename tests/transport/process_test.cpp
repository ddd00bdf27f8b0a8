#include "tests/transport/peer_process.hpp"
#include "tests/transport/transport_kinds.hpp"

#include <doctest/doctest.h>

#include <thread>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

constexpr std::size_t mebibyte = 1 << 20;
constexpr std::uint64_t reused = 77; ///< the seed of what blocks hold once they are somebody else's

/// A destination here, and a source in another process, connected.
struct process_fixture {
  explicit process_fixture(bool same_host, std::size_t bytes = 16 * mebibyte)
    : peer{{.same_host = same_host, .bytes = bytes}}, here(bytes) {
    into = *own->add_region(here);
    spans = spans_of(
      shuffled(static_cast<std::uint32_t>(bytes / 32768), 1),
      shuffled(static_cast<std::uint32_t>(bytes / 32768), 2), 32768);
  }

  kv_transport::job_id pull(ending& end, nanoseconds deadline = 5s) {
    return own->pull(peer.address(), peer_process::key, into, spans, deadline, end.callback());
  }

  /// Waits until so many bytes more have landed, or that much can no longer come.
  void let_land(std::uint64_t bytes) {
    auto until = own->counters().bytes_in + bytes;
    auto patience = std::chrono::steady_clock::now() + 5s;
    while (own->counters().bytes_in < until && std::chrono::steady_clock::now() < patience)
      std::this_thread::yield();
  }

  /// The blocks are reused at once; nothing may change them from now on.
  void reuse() { fill(here, reused); }
  bool still_reused() { return !first_difference(here, 0, here.size(), reused, 0); }

  bool landed_well() {
    for (const auto& span : spans)
      if (first_difference(here, span.to, span.bytes, 1, span.from))
        return false;
    return true;
  }

  std::unique_ptr<kv_transport> own = make_ucx([] {
    auto settings = impatient_ucx(true);
    return settings;
  }());
  peer_process peer;
  std::vector<std::byte> here;
  kv_transport::region_id into = 0;
  std::vector<kv_span> spans;
};

} // namespace

TEST_CASE("another process's blocks land here") {
  for (bool same_host : {false, true}) {
    CAPTURE(same_host);
    process_fixture one{same_host};
    ending end;
    one.pull(end);
    CHECK(end.wait().why.code == errc::ok);
    CHECK(one.landed_well());
  }
}

TEST_CASE("a source killed in the middle: the job ends soon, and no byte lands after that") {
  for (bool same_host : {false, true})
    for (std::uint64_t landed : {0, 1, 12}) {
      CAPTURE(same_host);
      CAPTURE(landed);
      process_fixture one{same_host};
      ending warm;
      one.own->pull(
        one.peer.address(), peer_process::key, one.into, {{0, 0, 1}}, 5s, warm.callback());
      REQUIRE(warm.wait().why.code == errc::ok);
      ending end, second;
      one.pull(end);
      one.pull(second);
      one.let_land(landed * mebibyte);
      auto before = std::chrono::steady_clock::now();
      one.peer.kill();
      auto how = end.wait();
      second.wait();
      CHECK(std::chrono::steady_clock::now() - before < 2s);
      CHECK((how.why.code == errc::unreachable || how.why.code == errc::ok));
      one.reuse();
      std::this_thread::sleep_for(30ms);
      CHECK(one.still_reused());
      CHECK(end.times() == 1);
    }
}

TEST_CASE("a source that hangs in the middle is given up, and what it sends later lands nowhere") {
  for (bool same_host : {false, true})
    for (std::uint64_t landed : {0, 1, 5}) {
      CAPTURE(same_host);
      CAPTURE(landed);
      process_fixture one{same_host};
      ending warm, end, cancelled;
      one.own->pull(
        one.peer.address(), peer_process::key, one.into, {{0, 0, 1}}, 5s, warm.callback());
      REQUIRE(warm.wait().why.code == errc::ok);
      one.pull(end, landed == 1 ? 50ms : 5s);
      auto job = one.pull(cancelled);
      one.let_land(landed * mebibyte);
      one.peer.stand_still();
      auto before = std::chrono::steady_clock::now();
      if (landed == 5)
        one.own->cancel(job);
      auto how = end.wait();
      auto other = cancelled.wait();
      CHECK(std::chrono::steady_clock::now() - before < 3s);
      CHECK(
        (how.why.code == errc::unreachable || how.why.code == errc::timeout
         || how.why.code == errc::ok));
      CHECK(other.why.code != errc::internal);
      one.reuse();
      one.peer.go_on();
      std::this_thread::sleep_for(50ms);
      CHECK(one.still_reused());
      // Awake, it serves again.
      ending again;
      one.pull(again);
      CHECK(again.wait().why.code == errc::ok);
      CHECK(one.landed_well());
    }
}

TEST_CASE("a source that hangs before it was ever asked") {
  process_fixture one{false, mebibyte};
  one.peer.stand_still();
  ending end, with_deadline, to_cancel;
  one.pull(end);
  one.pull(with_deadline, 50ms);
  auto job = one.pull(to_cancel);
  CHECK(with_deadline.wait().why.code == errc::timeout);
  one.own->cancel(job);
  CHECK(to_cancel.wait().why.code == errc::cancelled);
  CHECK(end.wait().why.code == errc::unreachable);
}

TEST_CASE("a reader that hangs does not keep a window from being closed") {
  for (bool same_host : {false, true}) {
    CAPTURE(same_host);
    // The reader's thread is held in a callback of its own.
    auto settings = impatient_ucx(same_host);
    auto source = make_ucx(settings);
    auto reader = make_ucx(settings);
    std::vector<std::byte> there(32 * mebibyte), here(32 * mebibyte);
    auto from = *source->add_region(there);
    auto into = *reader->add_region(here);
    source->open_window(from, peer_process::key);
    signal entered, leave;
    reader->pull(
      source->address(from), peer_process::key, into, {{0, 0, 1}}, 5s,
      [call = entered.callback(), leave](kv_transport::outcome) {
        call();
        leave.wait();
      });
    ending end;
    reader->pull(
      source->address(from), peer_process::key, into, {{0, 0, 32 * mebibyte}}, 5s, end.callback());
    CHECK(entered.wait());
    signal closed;
    source->close_window(peer_process::key, closed.callback());
    CHECK(closed.wait(1s));
    leave.callback()();
    CHECK(end.wait().why.code != errc::internal);
  }
}

TEST_CASE("a source that comes back is another one: the old address is dead, the new one works") {
  auto own = make_ucx(impatient_ucx(false));
  std::vector<std::byte> here(1000);
  auto into = *own->add_region(here);
  auto pull = [&](const std::string& from) {
    ending end;
    own->pull(from, peer_process::key, into, {{0, 0, 1000}}, 5s, end.callback());
    return end.wait().why.code;
  };
  peer_process::options how;
  std::string first;
  {
    peer_process peer{how};
    how.port = peer.port();
    first = peer.address();
    CHECK(pull(first) == errc::ok);
  }
  how.seed = 2;
  peer_process peer{how};
  CHECK(peer.port() == how.port);
  CHECK(pull(first) == errc::unreachable);
  CHECK(pull(peer.address()) == errc::ok);
  CHECK(!first_difference(here, 0, 1000, 2, 0));
}

TEST_CASE("peers of another cluster read nothing") {
  peer_process stranger{{.cluster_key = "another key"}};
  auto own = make_ucx(impatient_ucx(false));
  std::vector<std::byte> here(1000);
  ending end;
  own->pull(
    stranger.address(), peer_process::key, *own->add_region(here), {{0, 0, 1000}}, 5s,
    end.callback());
  auto how = end.wait();
  CHECK(how.why.code == errc::unreachable);
  CHECK(how.why.context.find("its cluster has another key") != std::string::npos);
  CHECK(here == std::vector<std::byte>(1000));
}
