#include "runtime/scheduling/session_memory.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

std::string last_of(const session_memory& memory, std::string_view session) {
  auto* instance = memory.last_of(session);
  return instance ? *instance : "nobody";
}

} // namespace

TEST_CASE("a session's last instance is remembered, until the session was quiet the longest") {
  session_memory memory{2};
  CHECK(last_of(memory, "x") == "nobody");
  memory.remember("x", "a");
  memory.remember("y", "b");
  memory.remember("x", "c"); // moved, and y is the quiet one now
  CHECK(last_of(memory, "x") == "c");
  memory.remember("z", "a");
  CHECK(memory.size() == 2);
  CHECK(last_of(memory, "x") == "c");
  CHECK(last_of(memory, "y") == "nobody");
  CHECK(last_of(memory, "z") == "a");
}

TEST_CASE("a memory of one or none holds that many") {
  session_memory one{1}, none{0};
  for (auto session : {"x", "y", "y", "x"}) {
    one.remember(session, "a");
    none.remember(session, "a");
    CHECK(one.size() == 1);
    CHECK(last_of(one, session) == "a");
    CHECK(last_of(none, session) == "nobody");
  }
}

TEST_CASE("a memory stays within its bounds, whatever comes") {
  session_memory memory{100};
  for (int i = 0; i < 10'000; ++i)
    memory.remember("session " + std::to_string(i % 777), std::to_string(i));
  CHECK(memory.size() == 100);
  CHECK(last_of(memory, "session " + std::to_string(9'999 % 777)) == "9999");
}
