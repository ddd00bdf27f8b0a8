#include "transport/staging_area.hpp"

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <vector>

using namespace llumnix;

TEST_CASE("half is the most that anybody has, unless its first part is larger") {
  struct row {
    std::uint64_t held, wanted, all;
    bool has;
  };
  for (auto [held, wanted, all, has] : {
         row{0, 1, 16, true},
         row{0, 8, 16, true},
         row{0, 16, 16, true}, // or it would never come
         row{1, 7, 16, true},
         row{1, 8, 16, false},
         row{7, 1, 16, true},
         row{8, 1, 16, false},
         row{9, 1, 16, false}, // its first part was larger
         row{16, 1, 16, false},
         row{2, 1, 7, true},
         row{2, 2, 7, false},
         row{1, UINT64_MAX, 16, false},
       }) {
    CAPTURE(held);
    CAPTURE(wanted);
    CHECK(has_share(held, wanted, all) == has);
  }
}

TEST_CASE("parts are taken from the front, in steps of 256 bytes") {
  staging_area area{1024};
  CHECK(area.unused());
  CHECK(area.take(1) == 0);
  CHECK(area.take(257) == 256);
  CHECK(area.take(256) == 768);
  CHECK(!area.take(1));
  area.give_back(256);
  CHECK(!area.take(513));
  CHECK(area.take(512) == 256);
}

TEST_CASE("what was given back is one again, in whatever order") {
  for (auto order : std::vector<std::vector<int>>{{0, 1, 2}, {2, 1, 0}, {0, 2, 1}, {1, 0, 2}}) {
    staging_area area{768};
    for (int i = 0; i < 3; ++i)
      REQUIRE(area.take(256) == static_cast<std::uint64_t>(i) * 256);
    for (auto i : order)
      area.give_back(static_cast<std::uint64_t>(i) * 256);
    CHECK(area.unused());
    CHECK(area.take(768) == 0);
  }
}

TEST_CASE("an area smaller than a step has no room") {
  staging_area area{255};
  CHECK(!area.take(1));
}

TEST_CASE("no two parts overlap, whatever was taken and given back") {
  std::mt19937_64 random{3};
  const std::uint64_t size = 16384;
  staging_area area{size};
  std::map<std::uint64_t, std::uint64_t> held;
  for (int i = 0; i < 20000; ++i) {
    if (random() % 2 == 0 && !held.empty()) {
      auto gone = std::next(held.begin(), static_cast<long>(random() % held.size()));
      area.give_back(gone->first);
      held.erase(gone);
    } else if (auto bytes = 1 + random() % 3000; auto at = area.take(bytes)) {
      REQUIRE(*at + bytes <= size);
      auto next = held.lower_bound(*at);
      REQUIRE((next == held.end() || *at + bytes <= next->first));
      REQUIRE((next == held.begin() || std::prev(next)->first + std::prev(next)->second <= *at));
      held.emplace(*at, bytes);
    }
  }
  while (!held.empty()) {
    area.give_back(held.begin()->first);
    held.erase(held.begin());
  }
  CHECK(area.take(size) == 0);
}
