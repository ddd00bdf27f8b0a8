#include "transport/memory_table.hpp"

#include <doctest/doctest.h>

#include <array>

using namespace llumnix;

namespace {

constexpr handover_id key{1, 2};

struct table_fixture {
  std::array<std::byte, 8> bytes{};
  memory_table table;
  memory_table::region_id region = *table.add(bytes);
  int closed = 0;
  std::function<void()> count() {
    return [this] { ++closed; };
  }
};

} // namespace

TEST_CASE_FIXTURE(table_fixture, "a read needs the window's key and region") {
  auto other = *table.add(bytes);
  CHECK(!table.begin_read(region, key));
  table.open(region, key);
  CHECK(table.begin_read(region, key));
  CHECK(!table.begin_read(other, key));
  CHECK(!table.begin_read(region, {1, 3}));
  table.open(other, key);
  CHECK(table.begin_read(other, key));
}

TEST_CASE_FIXTURE(
  table_fixture, "a window is closed once nobody reads, and for good reads begin no more") {
  table.open(region, key);
  auto first = table.begin_read(region, key);
  auto second = table.begin_read(region, key);
  table.close(key, count());
  table.close(key, count());
  CHECK(!table.begin_read(region, key));
  first.reset();
  CHECK(closed == 0);
  second.reset();
  CHECK(closed == 2);
}

TEST_CASE_FIXTURE(
  table_fixture, "a window that is unknown, unread or closed already closes at once") {
  table.close(key, count());
  CHECK(closed == 1);
  table.open(region, key);
  table.close(key, count());
  CHECK(closed == 2);
  table.close(key, count());
  CHECK(closed == 3);
}

TEST_CASE_FIXTURE(table_fixture, "no read of a removed region begins, and none without a region") {
  table.open(region, key);
  table.remove(region);
  CHECK(!table.begin_read(region, key));
  CHECK(!table.find(region));
  table.open(region, {3, 4});
  CHECK(!table.begin_read(region, {3, 4}));
  CHECK(table.add({}).error().code == errc::invalid_argument);
}
