// What UCX and a device do at the same time: their copies are held, and what must wait waits.
#include "tests/transport/peer_process.hpp"
#include "tests/transport/test_device.hpp"
#include "tests/transport/transport_kinds.hpp"

#include <doctest/doctest.h>

#include <future>
#include <thread>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

constexpr std::size_t mebibyte = 1 << 20;
constexpr std::uint64_t staging = 16 * mebibyte; ///< of one direction
constexpr handover_id key{0x11, 0x22};

/// A source and a destination in this process, both on a device, whose copies can be held.
struct held_pair {
  explicit held_pair(
    std::size_t bytes = 4 * mebibyte, bool checksums = false, nanoseconds quiesce_within = 5s)
    : settings{[&] {
        auto x = impatient_ucx(true);
        x.checksums = checksums;
        x.quiesce_within = quiesce_within;
        x.connect_within = x.silence_max = 2s;
        return x;
      }()},
      there{bytes, source_device},
      here{bytes, own_device} {
    there.fill(1);
    here.fill(2);
    from = *source->add_region(there.region());
    into = *own->add_region(here.region());
    source->open_window(from, key);
  }
  ~held_pair() {
    source_device->let_go();
    own_device->let_go();
    source.reset();
    own.reset();
    CHECK(source_device->dropped() == 0);
    CHECK(own_device->dropped() == 0);
  }

  kv_transport::job_id
  pull(const ending& end, std::vector<kv_span> spans = {}, nanoseconds deadline = 10s) {
    if (spans.empty())
      spans = {{0, 0, there.size()}};
    auto call = ending{end}.callback();
    return own->pull(source->address(from), key, into, std::move(spans), deadline, call);
  }
  bool holds_seed(const test_memory& memory, std::uint64_t seed) {
    return !first_difference(memory.get(), 0, memory.size(), seed, 0);
  }

  ucx_settings settings;
  std::shared_ptr<held_device> source_device = std::make_shared<held_device>(make_device());
  std::shared_ptr<held_device> own_device = std::make_shared<held_device>(make_device());
  std::unique_ptr<kv_transport> source = make_ucx(settings), own = make_ucx(settings);
  test_memory there, here;
  kv_transport::region_id from = 0, into = 0;
};

/// Nothing of the kind happens for a while: there is no event to wait for.
bool stays(const std::function<bool()>& holds) {
  auto until = std::chrono::steady_clock::now() + 60ms;
  while (std::chrono::steady_clock::now() < until) {
    if (!holds())
      return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

/// A third transport that is read from a device of its own and reads into memory of the host, so
/// that more chunks may be on their way than one side has staging for.
struct third : held_pair {
  static constexpr std::size_t bytes = 24 * mebibyte;
  third() : held_pair{bytes} {
    other_there.fill(1);
    other_from = *other->add_region(other_there.region());
    other_into = *other->add_region(other_here.region());
    other->open_window(other_from, key);
  }
  ~third() {
    source_device->let_go();
    own_device->let_go();
    other.reset();
  }
  /// Our own pulls from both, both pull from the source.
  void pull_all(std::vector<ending>& ends) {
    for (int i = 0; i < 3; ++i) {
      ends.resize(ends.size() + 3);
      auto* end = &ends[ends.size() - 3];
      pull(end[0]);
      own->pull(other->address(other_from), key, into, {{0, 0, bytes}}, 10s, end[1].callback());
      other->pull(source->address(from), key, other_into, {{0, 0, bytes}}, 10s, end[2].callback());
    }
  }

  std::shared_ptr<held_device> other_device = std::make_shared<held_device>(make_device());
  std::unique_ptr<kv_transport> other = make_ucx(settings);
  test_memory other_there{bytes, other_device}, other_here{bytes, nullptr};
  kv_transport::region_id other_from = 0, other_into = 0;
};

} // namespace

TEST_CASE(
  "a job that is cancelled while its bytes are staged ends once they are there, or never go") {
  held_pair pair;
  pair.own_device->hold();
  ending end, beside;
  auto job = pair.pull(end);
  REQUIRE(eventually([&] { return pair.own_device->waiting() == 4; }));
  pair.own->cancel(job);
  CHECK(stays([&] { return !end.came(); }));
  pair.own_device->let_go();
  CHECK(end.wait().why.code == errc::cancelled);
  CHECK(end.wait().bytes == 4 * mebibyte);
  pair.here.fill(77);
  CHECK(stays([&] { return pair.own_device->waiting() == 0; }));
  CHECK(pair.holds_seed(pair.here, 77));
  CHECK(end.times() == 1);
  pair.pull(beside);
  CHECK(beside.wait().why.code == errc::ok);
  CHECK(pair.holds_seed(pair.here, 1));
}

TEST_CASE("bytes that come for a job given up meanwhile never reach the device") {
  held_pair pair;
  pair.source_device->hold();
  ending end;
  auto job = pair.pull(end);
  REQUIRE(eventually([&] { return pair.source_device->waiting() == 4; }));
  auto begun = pair.own_device->begun();
  pair.own->cancel(job);
  CHECK(stays([&] { return !end.came(); }));
  pair.source_device->let_go();
  CHECK(end.wait().why.code == errc::cancelled);
  CHECK(end.wait().bytes == 0);
  CHECK(pair.own_device->begun() == begun);
  CHECK(pair.holds_seed(pair.here, 2));
}

TEST_CASE("a deadline ends a job whose bytes are staged, once they are there") {
  held_pair pair{4 * mebibyte, false, 50ms};
  pair.own_device->hold();
  ending end;
  auto begin = std::chrono::steady_clock::now();
  pair.pull(end, {}, 1s);
  REQUIRE(eventually([&] { return pair.own_device->waiting() == 4; }));
  std::this_thread::sleep_until(begin + 1200ms); // and a peer has 50 ms to answer
  CHECK(!end.came());
  pair.own_device->let_go();
  CHECK(end.wait().why.code == errc::timeout);
  ending again;
  pair.pull(again);
  CHECK(again.wait().why.code == errc::ok);
}

TEST_CASE("a destination that forgets a region waits for what is on its way into it") {
  held_pair pair;
  pair.own_device->hold();
  ending end;
  pair.pull(end);
  REQUIRE(eventually([&] { return pair.own_device->waiting() == 4; }));
  auto forgotten = std::async(std::launch::async, [&] { pair.own->forget(pair.into); });
  CHECK(forgotten.wait_for(60ms) == std::future_status::timeout);
  pair.own_device->let_go();
  forgotten.get();
  CHECK(end.came());
  CHECK(end.wait().why.code == errc::cancelled);
  pair.here.fill(77);
  CHECK(stays([&] { return pair.own_device->waiting() == 0; }));
  CHECK(pair.holds_seed(pair.here, 77));
}

TEST_CASE("a window stays open until the device has been read, and not until the bytes are sent") {
  held_pair pair;
  pair.source_device->hold();
  pair.own_device->hold();
  ending end;
  pair.pull(end);
  REQUIRE(eventually([&] { return pair.source_device->waiting() == 4; }));
  signal closed;
  pair.source->close_window(key, closed.callback());
  CHECK(stays([&] { return !closed.came(); }));
  pair.source_device->let_go();
  CHECK(closed.wait());
  CHECK(!end.came());
  pair.there.fill(99);
  pair.own_device->let_go();
  CHECK(end.wait().why.code == errc::ok);
  CHECK(pair.holds_seed(pair.here, 1));
}

TEST_CASE("a source that forgets a region waits until the device has been read") {
  held_pair pair;
  pair.source_device->hold();
  ending end;
  pair.pull(end);
  REQUIRE(eventually([&] { return pair.source_device->waiting() == 4; }));
  auto forgotten = std::async(std::launch::async, [&] { pair.source->forget(pair.from); });
  CHECK(forgotten.wait_for(60ms) == std::future_status::timeout);
  pair.source_device->let_go();
  forgotten.get();
  pair.there.fill(99);
  if (end.wait().why.code == errc::ok)
    CHECK(pair.holds_seed(pair.here, 1));
}

TEST_CASE("the end of a transport waits for its devices") {
  for (bool source_side : {false, true}) {
    CAPTURE(source_side);
    held_pair pair;
    auto& device = source_side ? *pair.source_device : *pair.own_device;
    auto& transport = source_side ? pair.source : pair.own;
    device.hold();
    ending end;
    pair.pull(end);
    REQUIRE(eventually([&] { return device.waiting() == 4; }));
    auto ended = std::async(std::launch::async, [&] { transport.reset(); });
    CHECK(ended.wait_for(60ms) == std::future_status::timeout);
    device.let_go();
    ended.get();
    CHECK(end.wait().why.code == (source_side ? errc::unreachable : errc::cancelled));
    auto& memory = source_side ? pair.there : pair.here;
    memory.fill(77);
    CHECK(stays([&] { return device.waiting() == 0; }));
    CHECK(pair.holds_seed(memory, 77));
  }
}

TEST_CASE("staging is bounded on both sides, whatever is asked for") {
  for (bool source_side : {false, true}) {
    CAPTURE(source_side);
    third all;
    auto& device = source_side ? *all.source_device : *all.own_device;
    device.hold();
    std::vector<ending> ends;
    all.pull_all(ends);
    REQUIRE(eventually([&] { return device.bytes_waiting() >= staging; }));
    CHECK(stays([&] { return device.bytes_waiting() <= staging; }));
    device.let_go();
    for (auto& end : ends)
      CHECK(end.wait().why.code == errc::ok);
    CHECK(all.holds_seed(all.here, 1));
    CHECK(all.holds_seed(all.other_here, 1));
  }
}

TEST_CASE("a peer has half of the staging at most") {
  for (bool source_side : {false, true}) {
    CAPTURE(source_side);
    third all;
    auto& device = source_side ? *all.source_device : *all.own_device;
    device.hold();
    // Into memory of the host nothing but the source's share holds a peer back.
    auto& reader = source_side ? all.other : all.own;
    auto into = source_side ? all.other_into : all.into;
    ending end;
    reader->pull(
      all.source->address(all.from), key, into, {{0, 0, third::bytes}}, 10s, end.callback());
    REQUIRE(eventually([&] { return device.bytes_waiting() == staging / 2; }));
    CHECK(stays([&] { return device.bytes_waiting() == staging / 2; }));
    device.let_go();
    CHECK(end.wait().why.code == errc::ok);
  }
}

TEST_CASE("a device that is slow does not hold up the bytes of another one") {
  third all;
  test_memory quick{mebibyte, make_device()}, here{mebibyte, nullptr};
  quick.fill(5);
  auto from = *all.source->add_region(quick.region());
  all.source->open_window(from, key);
  auto reader = make_ucx(all.settings);
  auto into = *reader->add_region(here.region());
  all.source_device->hold();
  std::vector<ending> ends;
  all.pull_all(ends); // more of it is wanted than there is staging for
  REQUIRE(eventually([&] { return all.source_device->bytes_waiting() == staging; }));
  ending end;
  reader->pull(all.source->address(from), key, into, {{0, 0, mebibyte}}, 10s, end.callback());
  CHECK(end.wait().why.code == errc::ok);
  CHECK(here.get() == quick.get());
  CHECK(all.source_device->bytes_waiting() == staging);
  all.source_device->let_go();
  for (auto& each : ends)
    CHECK(each.wait().why.code == errc::ok);
}

TEST_CASE("what waits for staging when its window closes is never read") {
  third all;
  auto before = all.source_device->begun();
  all.source_device->hold();
  std::vector<ending> ends;
  all.pull_all(ends);
  REQUIRE(eventually([&] { return all.source_device->bytes_waiting() == staging; }));
  signal closed;
  all.source->close_window(key, closed.callback());
  CHECK(stays([&] { return !closed.came(); }));
  all.source_device->let_go();
  CHECK(closed.wait());
  for (std::size_t i = 0; i < ends.size(); ++i)
    CHECK(ends[i].wait().why.code == (i % 3 == 1 ? errc::ok : errc::stale));
  CHECK(all.source_device->begun() - before == staging / mebibyte);
}

TEST_CASE("two devices that read each other do not wait for each other's staging") {
  const std::size_t bytes = 40 * mebibyte;
  held_pair pair{bytes};
  pair.own->open_window(pair.into, key);
  std::vector<ending> ends(6);
  for (std::size_t i = 0; i < ends.size(); ++i) {
    auto& from = i % 2 == 0 ? pair.source : pair.own;
    auto& to = i % 2 == 0 ? pair.own : pair.source;
    to->pull(
      from->address(1), key, 1, {{0, 20 * mebibyte, 20 * mebibyte}}, 10s, ends[i].callback());
  }
  for (auto& end : ends)
    CHECK(end.wait().why.code == errc::ok);
  CHECK(!first_difference(pair.here.get(), 20 * mebibyte, 20 * mebibyte, 1, 0));
  CHECK(!first_difference(pair.there.get(), 20 * mebibyte, 20 * mebibyte, 2, 0));
}

TEST_CASE("requests larger than our own chunks are served out of a device") {
  auto settings = impatient_ucx(false);
  settings.chunk_bytes = 16 * mebibyte;
  auto source = make_ucx(impatient_ucx(false));
  auto own = make_ucx(settings);
  auto device = make_device();
  test_memory there{20 * mebibyte, device}, here{20 * mebibyte, device};
  there.fill(1);
  auto from = *source->add_region(there.region());
  source->open_window(from, key);
  ending end;
  own->pull(
    source->address(from), key, *own->add_region(here.region()), {{0, 0, there.size()}}, 10s,
    end.callback());
  CHECK(end.wait().why.code == errc::ok);
  CHECK(here.get() == there.get());
}

TEST_CASE("another process's memory is never read directly where a device is involved") {
  held_pair pair; // whose settings allow direct reading
  test_memory host_there{mebibyte, nullptr}, host_here{mebibyte, nullptr};
  host_there.fill(5);
  auto host_from = *pair.source->add_region(host_there.region());
  auto host_into = *pair.own->add_region(host_here.region());
  pair.source->open_window(host_from, key);
  auto pull = [&](kv_transport::region_id from, kv_transport::region_id into) {
    ending end;
    pair.own->pull(pair.source->address(from), key, into, {{0, 0, mebibyte}}, 10s, end.callback());
    return end.wait().why.code;
  };
  CHECK(pull(pair.from, pair.into) == errc::ok);
  CHECK(pull(host_from, pair.into) == errc::ok);
  CHECK(pull(pair.from, host_into) == errc::ok);
  CHECK(pair.own->counters().bytes_direct == 0);
  // And nothing of it was tried: what fails is not tried again on that connection.
  CHECK(pull(host_from, host_into) == errc::ok);
  CHECK(pair.own->counters().bytes_direct == mebibyte);
  CHECK(host_here.get() == host_there.get());
}

TEST_CASE("bytes that change on their way never reach the device") {
  held_pair pair{mebibyte, true};
  ending good;
  pair.pull(good);
  CHECK(good.wait().why.code == errc::ok);
  CHECK(pair.holds_seed(pair.here, 1));
  pair.here.fill(2);
  auto begun = pair.own_device->begun();
  // Out of memory of the host, so that they can be spoiled after the source has summed them up.
  test_memory host{mebibyte, nullptr};
  auto from = *pair.source->add_region(host.region());
  pair.source->open_window(from, key);
  std::atomic<bool> over = false;
  std::thread spoiler{[&] {
    auto bytes = host.region().bytes;
    while (!over)
      for (std::size_t at = 0; at < bytes.size(); at += 4096)
        std::atomic_ref{reinterpret_cast<unsigned char&>(bytes[at])} ^= 0x40;
  }};
  auto bad = 0, pulls = 0;
  eventually([&] {
    ending end;
    pair.own->pull(
      pair.source->address(from), key, pair.into, {{0, 0, mebibyte}}, 10s, end.callback());
    ++pulls;
    bad += end.wait().why.code == errc::bad_message;
    return bad > 0;
  });
  over = true;
  spoiler.join();
  REQUIRE(bad == 1);
  CHECK(pair.own_device->begun() - begun == static_cast<std::uint64_t>(pulls - bad));
  if (pulls == 1)
    CHECK(pair.holds_seed(pair.here, 2));
}

TEST_CASE(
  "a source killed in the middle: the job ends, and no byte reaches the device after that") {
  for (bool there_too : {false, true})
    for (std::uint64_t landed : {0, 1, 12}) {
      CAPTURE(there_too);
      CAPTURE(landed);
      const std::size_t bytes = 16 * mebibyte;
      peer_process peer{{.same_host = true, .bytes = bytes, .device = there_too}};
      auto device = std::make_shared<held_device>(make_device(), 5);
      auto own = make_ucx(impatient_ucx(true));
      test_memory here{bytes, device};
      auto into = *own->add_region(here.region());
      auto blocks = static_cast<std::uint32_t>(bytes / 32768);
      auto spans = spans_of(shuffled(blocks, 1), shuffled(blocks, 2), 32768);
      auto pull = [&] {
        ending end;
        own->pull(peer.address(), peer_process::key, into, spans, 5s, end.callback());
        return end;
      };
      REQUIRE(pull().wait().why.code == errc::ok);
      std::vector<std::byte> source(bytes);
      fill(source, 1);
      auto wanted = testing::landed(std::vector<std::byte>(bytes), source, spans);
      REQUIRE(here.get() == wanted);
      auto before = own->counters().bytes_in;
      auto end = pull();
      auto second = pull();
      eventually(
        [&] { return own->counters().bytes_in >= before + landed * mebibyte || end.came(); });
      peer.kill();
      auto how = end.wait();
      CHECK((how.why.code == errc::unreachable || how.why.code == errc::ok));
      second.wait();
      here.fill(77);
      CHECK(stays([&] { return device->waiting() == 0; }));
      CHECK(!first_difference(here.get(), 0, bytes, 77, 0));
      CHECK(end.times() == 1);
      own.reset();
      CHECK(device->dropped() == 0);
    }
}

TEST_CASE("a source that hangs keeps half of the staging at most: others' bytes reach the device") {
  const std::size_t bytes = 24 * mebibyte;
  peer_process stuck{{.bytes = bytes, .device = true}};
  held_pair pair;
  auto settings = pair.settings;
  settings.silence_max = 6s; // so long it is not given up
  auto own = make_ucx(settings);
  test_memory here{bytes, pair.own_device};
  auto into = *own->add_region(here.region());
  auto pull = [&](const std::string& from, const handover_id& under, std::uint64_t size) {
    ending end;
    own->pull(from, under, into, {{0, 0, size}}, 20s, end.callback());
    return end;
  };
  REQUIRE(pull(stuck.address(), peer_process::key, 1).wait().why.code == errc::ok);
  stuck.stand_still();
  auto hangs = pull(stuck.address(), peer_process::key, bytes);
  auto began = std::chrono::steady_clock::now();
  auto good = pull(pair.source->address(pair.from), key, 4 * mebibyte);
  CHECK(good.wait().why.code == errc::ok);
  CHECK(std::chrono::steady_clock::now() - began < 4s);
  CHECK(!hangs.came());
  stuck.kill();
  CHECK(hangs.wait().why.code == errc::unreachable);
}
