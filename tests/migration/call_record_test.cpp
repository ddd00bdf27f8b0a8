#include "runtime/migration/call_record.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace std::chrono_literals;

namespace {

migrate_call call_to(const char* destination) {
  migrate_call x;
  x.destination = destination;
  return x;
}

} // namespace

TEST_CASE("calls are known by their key for ten minutes") {
  call_record calls;
  time_point now{};
  CHECK(calls.find("k", now) == nullptr);
  calls.begin("k", call_to("a"), now);
  REQUIRE(calls.find("k", now));
  CHECK(calls.find("k", now)->call == call_to("a"));
  CHECK_FALSE(calls.find("k", now)->reply);
  calls.end("k", {call_code::ok, true, "done"});
  calls.end("other", {call_code::ok, true, "never begun"});
  CHECK(calls.find("k", now + 599s)->reply == call_reply{call_code::ok, true, "done"});
  CHECK(calls.find("k", now + 600s) == nullptr);
  CHECK(calls.size() == 0);
}

TEST_CASE("a call that came to nothing may be tried again") {
  call_record calls;
  time_point now{};
  calls.begin("k", call_to("a"), now);
  calls.forget("k");
  calls.forget("nobody");
  CHECK(calls.find("k", now) == nullptr);
  calls.begin("k", call_to("b"), now + 300s);
  CHECK(calls.find("k", now + 700s)->call == call_to("b"));
  CHECK(calls.find("k", now + 900s) == nullptr);
}

TEST_CASE("no more than a bounded number of calls is kept, the latest ones") {
  call_record calls;
  time_point now{};
  for (std::size_t i = 0; i <= call_record::calls_max; ++i)
    calls.begin(std::to_string(i), call_to("a"), now);
  CHECK(calls.size() == call_record::calls_max);
  CHECK(calls.find("0", now) == nullptr);
  CHECK(calls.find("1", now));
}
