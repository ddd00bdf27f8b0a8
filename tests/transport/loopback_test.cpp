#include "tests/transport/test_device.hpp"
#include "tests/transport/transport_fixture.hpp"
#include "transport/loopback_transport.hpp"
#include "transport/spoiling_transport.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

constexpr handover_id key{7, 9};
const std::vector<kv_span> two_spans{{0, 100, 50}, {200, 0, 30}};

/// Two transports of one network; every job is held.
struct held_fixture {
  loopback_network network;
  std::unique_ptr<kv_transport> source = network.make_transport();
  std::unique_ptr<kv_transport> own = network.make_transport();
  std::vector<std::byte> there{1000};
  std::vector<std::byte> here{1000};
  kv_transport::region_id from = *source->add_region(there);
  kv_transport::region_id into = *own->add_region(here);

  held_fixture() {
    fill(there, 1);
    source->open_window(from, key);
    network.on_pull([](const loopback_job&) { return loopback_fate{.hold = true}; });
  }

  kv_transport::job_id pull(ending& end) {
    return own->pull(source->address(from), key, into, two_spans, 1s, end.callback());
  }
};

} // namespace

TEST_CASE_FIXTURE(
  held_fixture, "a held job lands as far as it is driven, and ends with the last byte") {
  ending end;
  auto job = pull(end);
  REQUIRE(network.held().size() == 1);
  CHECK(network.held().front().job == job);
  CHECK(network.held().front().bytes == 80);
  CHECK(network.proceed(job, 60));
  CHECK(!first_difference(here, 100, 50, 1, 0));
  CHECK(!first_difference(here, 0, 10, 1, 200));
  CHECK(here[10] == std::byte{0});
  CHECK(!end.came());
  CHECK(network.proceed(job, 20));
  CHECK(end.wait().why.code == errc::ok);
  CHECK(end.wait().bytes == 80);
  CHECK(!first_difference(here, 0, 30, 1, 200));
  CHECK(!network.proceed(job));
  CHECK(end.times() == 1);
}

TEST_CASE_FIXTURE(
  held_fixture, "a held job keeps its window from being closed; nothing lands after its end") {
  ending end;
  signal closed;
  auto job = pull(end);
  network.proceed(job, 10);
  source->close_window(key, closed.callback());
  CHECK(!closed.came());
  own->cancel(job);
  CHECK(closed.came());
  CHECK(end.wait().why.code == errc::cancelled);
  CHECK(end.wait().bytes == 10);
  CHECK(!network.proceed(job));
  CHECK(here[110] == std::byte{0});
}

TEST_CASE_FIXTURE(held_fixture, "another transport's job is not ours to cancel") {
  ending end;
  auto job = pull(end);
  source->cancel(job);
  CHECK(!end.came());
  CHECK(network.fail(job, {errc::timeout, "late"}));
  CHECK(end.wait().why.code == errc::timeout);
}

TEST_CASE_FIXTURE(held_fixture, "the end of either side ends the job") {
  ending end;
  pull(end);
  SUBCASE("the source's") {
    source.reset();
    CHECK(end.wait().why.code == errc::unreachable);
  }
  SUBCASE("the source's region") {
    source->forget(from);
    CHECK(end.wait().why.code == errc::unreachable);
  }
  SUBCASE("our own") {
    own.reset();
    CHECK(end.wait().why.code == errc::cancelled);
  }
  SUBCASE("our region's") {
    own->forget(into);
    CHECK(end.wait().why.code == errc::cancelled);
  }
  CHECK(end.times() == 1);
  CHECK(network.held().empty());
}

TEST_CASE("the hook fails and corrupts; checksums catch it") {
  struct row {
    bool checksums;
    loopback_fate fate;
    errc code;
    bool lands;
  };
  for (const auto& [checksums, fate, code, lands] : {
         row{false, {.why = {errc::unreachable, "cut"}}, errc::unreachable, false},
         row{false, {.corrupt = true}, errc::ok, true},
         row{true, {.corrupt = true}, errc::bad_message, true},
         row{true, {}, errc::ok, true},
       }) {
    loopback_network network{checksums};
    auto source = network.make_transport();
    auto own = network.make_transport();
    std::vector<std::byte> there(1000), here(1000);
    fill(there, 1);
    auto from = *source->add_region(there);
    source->open_window(from, key);
    network.on_pull([&](const loopback_job&) { return fate; });
    ending end;
    own->pull(source->address(from), key, *own->add_region(here), two_spans, 1s, end.callback());
    CHECK(end.wait().why.code == code);
    CHECK((here[101] == there[1]) == lands);
    CHECK((here[100] == there[0]) == (lands && !fate.corrupt));
    CHECK(own->counters().bad_checksums == (code == errc::bad_message ? 1 : 0));
  }
}

TEST_CASE("into a device too a job lands as far as it is driven, and not a byte after its end") {
  loopback_network network;
  auto source = network.make_transport();
  auto own = network.make_transport();
  auto device = make_device();
  test_memory there{1000, nullptr}, here{1000, device};
  there.fill(1);
  auto from = *source->add_region(there.region());
  auto into = *own->add_region(here.region());
  source->open_window(from, key);
  network.on_pull([](const loopback_job&) { return loopback_fate{.hold = true}; });
  ending end;
  auto job = own->pull(source->address(from), key, into, two_spans, 1s, end.callback());
  CHECK(network.proceed(job, 60));
  auto partly = landed(std::vector<std::byte>(1000), there.get(), {{0, 100, 50}, {200, 0, 10}});
  CHECK(here.get() == partly);
  own->cancel(job);
  CHECK(end.wait().why.code == errc::cancelled);
  CHECK(end.wait().bytes == 60);
  CHECK(!network.proceed(job));
  CHECK(here.get() == partly);
}

TEST_CASE("checksums catch what lands wrong in a device, or comes wrong out of it") {
  for (bool source_side : {false, true})
    for (bool own_side : {false, true})
      for (bool corrupt : {false, true}) {
        loopback_network network{true};
        auto source = network.make_transport();
        auto own = network.make_transport();
        auto device = make_device();
        test_memory there{9 << 20, source_side ? device : nullptr};
        test_memory here{9 << 20, own_side ? device : nullptr};
        there.fill(1);
        auto from = *source->add_region(there.region());
        source->open_window(from, key);
        network.on_pull([&](const loopback_job&) { return loopback_fate{.corrupt = corrupt}; });
        ending end;
        own->pull(
          source->address(from), key, *own->add_region(here.region()), {{0, 0, 9 << 20}}, 1s,
          end.callback());
        CHECK(end.wait().why.code == (corrupt ? errc::bad_message : errc::ok));
      }
}

TEST_CASE("one pull in three is spoiled by one bit, of those that went well") {
  loopback_network network;
  auto source = network.make_transport();
  spoiling_transport own{network.make_transport(), 3};
  std::vector<std::byte> there(1000);
  std::vector<std::byte> here(1000);
  fill(there, 1);
  auto from = *source->add_region(there);
  auto into = *own.add_region(here);
  source->open_window(from, key);
  bool fails = true;
  network.on_pull([&](const loopback_job&) {
    loopback_fate fate;
    if (std::exchange(fails, false))
      fate.why = {errc::unreachable, "cut"};
    return fate;
  });
  std::vector<std::size_t> wrong;
  for (int i = 0; i < 8; ++i) { // the first fails, and counts for nothing
    ending end;
    own.pull(source->address(from), key, into, {{0, 100, 50}}, 1s, end.callback());
    end.wait();
    std::size_t differing = 0;
    for (std::size_t at = 0; at < 50; ++at)
      differing += here[100 + at] != there[at];
    if (i > 0)
      wrong.push_back(differing);
  }
  CHECK(wrong == std::vector<std::size_t>{0, 0, 1, 0, 0, 1, 0});
}
