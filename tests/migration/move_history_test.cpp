#include "runtime/migration/move_history.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace std::chrono_literals;

namespace {

constexpr time_point begin{100s};

stream_ref stream(std::uint64_t number) {
  return {"head", 1, 0, number};
}

} // namespace

// Mends weakness 2 of spec/rescheduling.md.
TEST_CASE("a request is moved by load once in a cool-down, and so many times in all") {
  move_history past{2s, 3};
  auto r = stream(1);
  struct row {
    nanoseconds at;
    bool may;
  };
  for (const auto& [at, may] :
       {row{0s, true}, row{0s, false}, row{1999ms, false}, row{2s, true}, row{3s, false},
        row{4s, true}, // the third
        row{6s, false}, row{1h, false}}) {
    CAPTURE(at.count());
    CHECK(past.may_move(r, begin + at) == may);
    if (may)
      past.begin(r, true, begin + at);
  }
  CHECK(past.may_move(stream(2), begin + 1h)); // another one
}

TEST_CASE("what a destination is told goes on there") {
  move_history source{2s, 3};
  move_history destination{2s, 3};
  auto r = stream(1);
  source.begin(r, true, begin);
  auto told = source.begin(r, true, begin + 2s);
  CHECK(told == 2);
  destination.arrived(r, told, begin + 3s);
  CHECK(!destination.may_move(r, begin + 4999ms));
  CHECK(destination.may_move(r, begin + 5s));
  CHECK(destination.begin(r, true, begin + 5s) == 3);
  CHECK(!destination.may_move(r, begin + 1h));
}

TEST_CASE("moves by hand, drains and failovers do not count, and what has come by one cools down") {
  move_history source{2s, 3};
  move_history destination{2s, 3};
  auto r = stream(1);
  CHECK(source.begin(r, false, begin) == 0);
  CHECK(source.may_move(r, begin)); // it did not leave after all
  CHECK(source.begin(r, true, begin) == 1);
  CHECK(source.begin(r, false, begin) == 1);
  destination.arrived(r, 1, begin);
  CHECK(!destination.may_move(r, begin + 1s));
  CHECK(destination.may_move(r, begin + 2s));
}

TEST_CASE("limits of 0: no move by load; no cool-down") {
  CHECK(!move_history{2s, 0}.may_move(stream(1), begin));
  move_history past{0s, 2};
  past.begin(stream(1), true, begin);
  CHECK(past.may_move(stream(1), begin));
}

TEST_CASE(
  "requests that are here no more are forgotten, and of very many the one longest at rest") {
  move_history past{2s, 1};
  for (std::uint64_t i = 0; i < 4; ++i)
    past.begin(stream(i), true, begin);
  past.keep_only({stream(3), stream(1), stream(9)});
  CHECK(past.size() == 2);
  CHECK(past.may_move(stream(0), begin));
  CHECK(!past.may_move(stream(1), begin));
  past.forget(stream(1));
  CHECK(past.may_move(stream(1), begin));

  move_history full{2s, 1};
  for (std::uint64_t i = 0; i <= move_history::known_max; ++i)
    full.arrived(stream(i), 1, begin + i * 1us);
  CHECK(full.size() == move_history::known_max);
  CHECK(full.may_move(stream(0), begin + 1h));
  CHECK(!full.may_move(stream(1), begin + 1h));
}
