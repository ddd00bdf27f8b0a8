// The port, where one side or both are memory of a device.
#include "tests/transport/test_device.hpp"
#include "tests/transport/transport_kinds.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace llumnix::testing;

namespace {

constexpr std::size_t mebibyte = 1 << 20;
constexpr handover_id key{0x11, 0x22};

/// Which sides are a device's.
struct sides {
  const char* name;
  bool source, own;
};
const sides all_sides[] = {
  {"host to host", false, false},
  {"host to device", false, true},
  {"device to host", true, false},
  {"device to device", true, true}};

struct device_pair {
  device_pair(const transport_kind& kind, const sides& where, std::size_t bytes)
    : source{kind.make()},
      own{kind.make()},
      source_device{std::make_shared<held_device>(make_device(), 11)},
      own_device{std::make_shared<held_device>(make_device(), 12)},
      there{bytes, where.source ? source_device : nullptr},
      here{bytes, where.own ? own_device : nullptr} {
    there.fill(1);
    here.fill(2);
    from = *source->add_region(there.region());
    into = *own->add_region(here.region());
    source->open_window(from, key);
  }
  ~device_pair() {
    source.reset();
    own.reset();
    CHECK(source_device->dropped() == 0);
    CHECK(own_device->dropped() == 0);
  }

  ending pull(const std::vector<kv_span>& spans) {
    ending end;
    own->pull(source->address(from), key, into, spans, 10s, end.callback());
    return end;
  }

  std::unique_ptr<kv_transport> source, own;
  std::shared_ptr<held_device> source_device, own_device;
  test_memory there, here;
  kv_transport::region_id from = 0, into = 0;
};

template <class Test>
void for_all(std::size_t bytes, Test test) {
  for (const auto& kind : transport_kinds())
    for (const auto& where : all_sides) {
      CAPTURE(kind.name);
      CAPTURE(where.name);
      device_pair pair{kind, where, bytes};
      test(pair);
    }
}

} // namespace

TEST_CASE("blocks of all sizes land where they belong, and nowhere else") {
  for (std::uint32_t block : {512u, 4096u, 32768u, 1u << 20}) {
    CAPTURE(block);
    auto count = std::max<std::uint32_t>(4, 2 * mebibyte / block);
    for_all(std::size_t{count} * block, [&](device_pair& pair) {
      auto from = shuffled(count, 1), to = shuffled(count, 2);
      from.pop_back(); // one stays out
      to.pop_back();
      auto spans = spans_of(from, to, block);
      auto wanted = landed(pair.here.get(), pair.there.get(), spans);
      auto how = pair.pull(spans).wait();
      CHECK(how.why.code == errc::ok);
      CHECK(how.bytes == std::uint64_t{count - 1} * block);
      CHECK(pair.here.get() == wanted);
      CHECK(pair.own->counters().bytes_in == how.bytes);
      CHECK(eventually([&] { return pair.source->counters().bytes_out == how.bytes; }));
    });
  }
}

TEST_CASE("spans of odd places and sizes, many of them neighbours") {
  for (std::uint64_t longest : {40ul, 3000ul, 3000000ul}) {
    CAPTURE(longest);
    for_all(3 * mebibyte + 5, [&](device_pair& pair) {
      auto bytes = std::min<std::uint64_t>(pair.there.size(), longest * 2000);
      auto spans = odd_spans(bytes, pair.here.size(), longest, longest);
      auto wanted = landed(pair.here.get(), pair.there.get(), spans);
      auto how = pair.pull(spans).wait();
      CHECK(how.why.code == errc::ok);
      CHECK(how.bytes == bytes_of(spans));
      CHECK(pair.here.get() == wanted);
      CHECK(pair.pull({}).wait().why.code == errc::ok);
    });
  }
}

TEST_CASE("more bytes than there is staging, in several jobs at once") {
  for_all(24 * mebibyte, [&](device_pair& pair) {
    std::vector<ending> ends;
    std::vector<kv_span> all;
    for (std::uint64_t part = 0; part < 4; ++part) {
      kv_span span{part * 6 * mebibyte, (3 - part) * 6 * mebibyte, 6 * mebibyte};
      all.push_back(span);
      ends.push_back(pair.pull({span}));
    }
    for (auto& end : ends)
      CHECK(end.wait().why.code == errc::ok);
    CHECK(pair.here.get() == landed(std::vector<std::byte>(24 * mebibyte), pair.there.get(), all));
  });
}

TEST_CASE("what may not be read is not read, and what lies outside is refused") {
  for_all(mebibyte, [&](device_pair& pair) {
    auto before = pair.here.get();
    CHECK(pair.pull({{0, mebibyte - 1, 2}}).wait().why.code == errc::invalid_argument);
    CHECK(pair.pull({{mebibyte - 1, 0, 2}}).wait().why.code == errc::invalid_argument);
    signal closed;
    pair.source->close_window(key, closed.callback());
    CHECK(closed.wait());
    CHECK(pair.pull({{0, 0, 100}}).wait().why.code == errc::stale);
    CHECK(pair.here.get() == before);
  });
}

TEST_CASE("a device that fails ends the job with `internal`; others go on") {
  for_all(2 * mebibyte, [&](device_pair& pair) {
    auto any = false;
    for (auto [device, memory] :
         {std::pair{pair.source_device, &pair.there}, std::pair{pair.own_device, &pair.here}})
      if (memory->region().device) {
        device->fail();
        any = true;
      }
    auto how = pair.pull({{0, 0, 2 * mebibyte}}).wait();
    CHECK(how.why.code == (any ? errc::internal : errc::ok));
    CHECK(how.bytes == (any ? 0 : 2 * mebibyte));
    test_memory other{mebibyte, nullptr}, into{mebibyte, nullptr};
    other.fill(5);
    auto region = *pair.source->add_region(other.region());
    pair.source->open_window(region, key);
    ending end;
    pair.own->pull(
      pair.source->address(region), key, *pair.own->add_region(into.region()), {{0, 0, mebibyte}},
      10s, end.callback());
    CHECK(end.wait().why.code == errc::ok);
    CHECK(into.get() == other.get());
    pair.own.reset();
  });
}

TEST_CASE("memory that is not the device's is no region, and no staging is made for it") {
  for (const auto& kind : transport_kinds()) {
    auto transport = kind.make();
    auto device = std::make_shared<held_device>(make_device());
    std::vector<std::byte> host(1000);
    CHECK(transport->add_region({host, device}).error().code == errc::invalid_argument);
    CHECK(
      transport->add_region({std::span<std::byte>{}, device}).error().code
      == errc::invalid_argument);
    CHECK(device->stagings() == 0);
    CHECK(transport->add_region(host).has_value());
    test_memory memory{1000, device};
    CHECK(transport->add_region(memory.region()).has_value());
    CHECK(device->stagings() > 0);
  }
}
