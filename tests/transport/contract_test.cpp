#include "tests/transport/transport_kinds.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

constexpr std::size_t mebibyte = 1 << 20;

bool untouched(std::span<const std::byte> memory) {
  return std::ranges::all_of(memory, [](std::byte x) { return x == std::byte{0}; });
}

} // namespace

TEST_CASE("scattered blocks land where they belong, and nowhere else") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    for (std::uint32_t block : {512u, 4096u, 32768u, 1u << 20}) {
      CAPTURE(block);
      auto count = std::max<std::uint32_t>(8, 4 * mebibyte / block / 4);
      transport_pair pair{kind, std::size_t{count} * block, std::size_t{count} * block};
      auto from = shuffled(count, 1);
      auto to = shuffled(count, 2);
      // The last one stays out, and what is there must not change.
      std::vector<std::uint32_t> some{from.begin(), from.end() - 1};
      std::vector<std::uint32_t> into{to.begin(), to.end() - 1};
      auto how = pair.pull(spans_of(some, into, block)).wait();
      CHECK(how.why.code == errc::ok);
      CHECK(how.bytes == std::uint64_t{count - 1} * block);
      for (std::size_t i = 0; i < some.size(); ++i)
        REQUIRE(!first_difference(
          pair.here, std::size_t{into[i]} * block, block, 1, std::uint64_t{some[i]} * block));
      CHECK(untouched(std::span{pair.here}.subspan(std::size_t{to.back()} * block, block)));
      CHECK(pair.own->counters().bytes_in == how.bytes);
      CHECK(eventually([&] { return pair.source->counters().bytes_out == how.bytes; }));
    }
  }
}

TEST_CASE("spans of any size and place land, down to none at all") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    transport_pair pair{kind, 9 * mebibyte, 9 * mebibyte};
    CHECK(pair.pull({}).wait().why.code == errc::ok);
    std::vector<kv_span> spans{
      {1, 3, 1},
      {5, 100, 0},
      {8191, 4095, 3},
      {100001, 1000, 777},
      {12345, 5 * mebibyte + 7, 3 * mebibyte + 11}};
    auto how = pair.pull(spans).wait();
    CHECK(how.why.code == errc::ok);
    CHECK(how.bytes == 1 + 3 + 777 + 3 * mebibyte + 11);
    for (const auto& span : spans)
      CHECK(!first_difference(pair.here, span.to, span.bytes, 1, span.from));
    CHECK(pair.here[2] == std::byte{0});
    CHECK(pair.here[4] == std::byte{0});
    CHECK(pair.here[4094] == std::byte{0});
    CHECK(pair.here[4098] == std::byte{0});
    CHECK(pair.here[1777] == std::byte{0});
  }
}

TEST_CASE("what may not be read is not read, and the reason is told") {
  using spans = std::vector<kv_span>;
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    transport_pair pair{kind, mebibyte, 2 * mebibyte};
    auto& own = *pair.own;
    auto good = pair.source->address(pair.from);
    std::vector<std::byte> closed_memory(100);
    auto closed = pair.source->address(*pair.source->add_region(closed_memory));
    auto nowhere = pair.source->address(999);
    handover_id was_open{5, 6};
    pair.source->open_window(pair.from, was_open);
    signal shut;
    pair.source->close_window(was_open, shut.callback());
    CHECK(shut.wait());
    struct row {
      const char* name;
      std::string from;
      handover_id key;
      kv_transport::region_id into;
      spans what;
      nanoseconds deadline;
      errc code;
    };
    const auto into = pair.into;
    const auto key = transport_pair::key;
    const spans little{{0, 0, 10}};
    const std::vector<row> rows{
      {"unknown key", good, {1, 1}, into, little, 5s, errc::stale},
      {"closed window", good, was_open, into, little, 5s, errc::stale},
      {"no window on the region", closed, key, into, little, 5s, errc::stale},
      {"no such region there", nowhere, key, into, little, 5s, errc::stale},
      {"past the source", good, key, into, {{mebibyte - 5, 0, 10}}, 5s, errc::invalid_argument},
      {"far past the source",
       good,
       key,
       into,
       {{UINT64_MAX - 5, 0, 10}},
       5s,
       errc::invalid_argument},
      {"past our own", good, key, into, {{0, 2 * mebibyte, 1}}, 5s, errc::invalid_argument},
      {"far past our own", good, key, into, {{0, UINT64_MAX, 2}}, 5s, errc::invalid_argument},
      {"no such region here", good, key, 999, little, 5s, errc::invalid_argument},
      {"no address", "", key, into, little, 5s, errc::invalid_argument},
      {"no address of ours", "http://127.0.0.1/", key, into, little, 5s, errc::invalid_argument},
      {"no time", good, key, into, little, 0s, errc::timeout},
    };
    for (const auto& row : rows) {
      CAPTURE(row.name);
      ending end;
      own.pull(row.from, row.key, row.into, row.what, row.deadline, end.callback());
      auto how = end.wait();
      CHECK(how.why.code == row.code);
      CHECK(how.bytes == 0);
      CHECK(end.times() == 1);
    }
    CHECK(untouched(pair.here));
    CHECK(own.counters().failed == rows.size());
    CHECK(pair.source->counters().refused >= 4);
    CHECK(pair.pull(little).wait().why.code == errc::ok);
  }
}

TEST_CASE("one key opens several regions, and closing it closes all of them") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    transport_pair pair{kind, mebibyte, mebibyte};
    std::vector<std::byte> more(mebibyte);
    fill(more, 2);
    auto second = *pair.source->add_region(more);
    pair.source->open_window(second, transport_pair::key);
    auto pull_second = [&] {
      ending end;
      pair.own->pull(
        pair.source->address(second), transport_pair::key, pair.into, {{0, 500, 500}}, 5s,
        end.callback());
      return end.wait().why.code;
    };
    CHECK(pull_second() == errc::ok);
    CHECK(pair.pull({{0, 0, 500}}).wait().why.code == errc::ok);
    CHECK(!first_difference(pair.here, 0, 500, 1, 0));
    CHECK(!first_difference(pair.here, 500, 500, 2, 0));
    signal closed;
    pair.source->close_window(transport_pair::key, closed.callback());
    CHECK(closed.wait());
    CHECK(pull_second() == errc::stale);
    CHECK(pair.pull({{0, 0, 500}}).wait().why.code == errc::stale);
  }
}

TEST_CASE("once a window is closed the source may reuse its blocks: no reader sees the new bytes") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    const std::uint32_t count = 64, block = 32768;
    transport_pair pair{kind, count * block, count * block};
    auto from = shuffled(count, 3);
    auto to = shuffled(count, 4);
    for (int round = 0; round < 5; ++round) {
      CAPTURE(round);
      fill(pair.there, 1);
      pair.source->open_window(pair.from, transport_pair::key);
      auto end = pair.pull(spans_of(from, to, block));
      std::this_thread::sleep_for(std::chrono::microseconds{300 * round});
      signal closed;
      pair.source->close_window(transport_pair::key, closed.callback());
      CHECK(closed.wait());
      fill(pair.there, 99);
      auto how = end.wait();
      CHECK((how.why.code == errc::ok || how.why.code == errc::stale));
      if (how.why.code == errc::ok)
        for (std::uint32_t i = 0; i < count; ++i)
          REQUIRE(!first_difference(
            pair.here, std::size_t{to[i]} * block, block, 1, std::uint64_t{from[i]} * block));
    }
  }
}

TEST_CASE("a cancelled job leaves its blocks alone from its end on, and its siblings go on") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    const std::size_t half = 4 * mebibyte;
    transport_pair pair{kind, half, 2 * half};
    std::vector<std::uint32_t> blocks = shuffled(128, 5);
    auto spans = spans_of(blocks, shuffled(128, 6), 32768);
    auto other = spans;
    for (auto& span : other)
      span.to += half;
    for (int round = 0; round < 5; ++round) {
      CAPTURE(round);
      fill(pair.here, 50);
      kv_transport::job_id job = 0, sibling = 0;
      auto end = pair.pull(spans, job);
      auto beside = pair.pull(other, sibling);
      std::this_thread::sleep_for(std::chrono::microseconds{250 * round});
      pair.own->cancel(job);
      auto how = end.wait();
      fill(std::span{pair.here}.first(half), 77);
      CHECK((how.why.code == errc::cancelled || how.why.code == errc::ok));
      CHECK(beside.wait().why.code == errc::ok);
      for (const auto& span : other)
        REQUIRE(!first_difference(pair.here, span.to, span.bytes, 1, span.from));
      CHECK(!first_difference(pair.here, 0, half, 77, 0));
      pair.own->cancel(job);
      pair.own->cancel(12345678);
      CHECK(end.times() == 1);
    }
  }
}

TEST_CASE("a region the destination forgot is touched no more") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    const std::size_t size = 8 * mebibyte;
    auto spans = spans_of(shuffled(256, 5), shuffled(256, 6), 32768);
    transport_pair pair{kind, size, size};
    auto end = pair.pull(spans);
    std::this_thread::sleep_for(1ms);
    pair.own->forget(pair.into);
    CHECK(end.came());
    fill(pair.here, 9);
    CHECK((end.wait().why.code == errc::cancelled || end.wait().why.code == errc::ok));
    CHECK(pair.pull(spans).wait().why.code == errc::invalid_argument);
    CHECK(!first_difference(pair.here, 0, size, 9, 0));
    pair.own->forget(pair.into);
    pair.own->forget(777);
  }
}

TEST_CASE("a region the source forgot is read no more") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    const std::size_t size = 8 * mebibyte;
    auto spans = spans_of(shuffled(256, 5), shuffled(256, 6), 32768);
    transport_pair pair{kind, size, size};
    auto end = pair.pull(spans);
    std::this_thread::sleep_for(1ms);
    pair.source->forget(pair.from);
    fill(pair.there, 9);
    auto how = end.wait();
    if (how.why.code == errc::ok)
      for (const auto& span : spans)
        REQUIRE(!first_difference(pair.here, span.to, span.bytes, 1, span.from));
    CHECK(pair.pull(spans).wait().why.code == errc::stale);
  }
}

TEST_CASE("every pull ends exactly once, whatever ends it") {
  for (const auto& kind : transport_kinds()) {
    for (int ends_early : {0, 1, 2}) {
      CAPTURE(kind.name);
      CAPTURE(ends_early);
      transport_pair pair{kind, 4 * mebibyte, 4 * mebibyte};
      std::vector<ending> ends(300);
      std::vector<kv_transport::job_id> ids;
      auto address = pair.source->address(pair.from);
      for (std::size_t i = 0; i < ends.size(); ++i) {
        auto key = i % 7 == 0 ? handover_id{1, i} : transport_pair::key;
        auto at = (i % 16) * 65536;
        ids.push_back(pair.own->pull(
          address, key, pair.into, {{at, at, i % 11 == 0 ? 8 * mebibyte : 200000}},
          i % 13 == 0 ? nanoseconds{50us} : nanoseconds{5s}, ends[i].callback()));
        if (i % 5 == 0)
          pair.own->cancel(ids[i / 2]);
      }
      if (ends_early == 1)
        pair.own.reset();
      if (ends_early == 2)
        pair.source.reset();
      for (auto& end : ends) {
        end.wait();
        CHECK(end.times() == 1);
      }
      std::ranges::sort(ids);
      CHECK(ids.front() != 0);
      CHECK(std::ranges::adjacent_find(ids) == ids.end());
      if (pair.own) {
        auto seen = pair.own->counters();
        CHECK(seen.jobs == 300);
        CHECK(seen.failed + seen.cancelled >= 27);
      }
    }
  }
}

TEST_CASE("both directions at once, from many threads") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    const std::size_t size = 8 * mebibyte;
    transport_pair pair{kind, 2 * size, 2 * size};
    fill(pair.here, 2);
    pair.own->open_window(pair.into, transport_pair::key);
    // Each reads the other's lower half into its own upper half.
    std::vector<kv_span> spans{{0, size, size}};
    std::vector<ending> ends(8);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < ends.size(); ++i)
      threads.emplace_back([&, i] {
        auto& from = i % 2 == 0 ? pair.source : pair.own;
        auto& to = i % 2 == 0 ? pair.own : pair.source;
        to->pull(from->address(1), transport_pair::key, 1, spans, 10s, ends[i].callback());
      });
    for (auto& thread : threads)
      thread.join();
    for (auto& end : ends)
      CHECK(end.wait().why.code == errc::ok);
    CHECK(!first_difference(pair.here, size, size, 1, 0));
    CHECK(!first_difference(pair.there, size, size, 2, 0));
  }
}

TEST_CASE("a source that is gone is unreachable, and so is its next life by the old address") {
  for (const auto& kind : transport_kinds()) {
    CAPTURE(kind.name);
    transport_pair pair{kind, mebibyte, mebibyte};
    CHECK(pair.pull({{0, 0, 100}}).wait().why.code == errc::ok);
    auto before = pair.source->address(pair.from);
    pair.source.reset();
    auto pull = [&] {
      ending end;
      pair.own->pull(before, transport_pair::key, pair.into, {{0, 0, 100}}, 5s, end.callback());
      return end.wait().why.code;
    };
    CHECK(pull() == errc::unreachable);
  }
}
