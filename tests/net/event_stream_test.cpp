#include "net/event_stream.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace llumnix;
using namespace llumnix::net;

namespace {

// Each event as "type|data|id", fed in pieces of `step` bytes.
std::vector<std::string> events_of(std::string_view stream, std::size_t step) {
  event_stream parser;
  std::vector<std::string> seen;
  for (std::size_t i = 0; i < stream.size(); i += step)
    REQUIRE(parser
              .feed(
                stream.substr(i, step),
                [&](const stream_event& e) { seen.push_back(e.type + "|" + e.data + "|" + e.id); })
              .has_value());
  return seen;
}

} // namespace

TEST_CASE("events are read alike in pieces of any size") {
  struct row {
    std::string stream;
    std::vector<std::string> events;
  };
  for (const auto& [stream, events] : {
         row{"data: a\n\n", {"message|a|"}},
         row{"data: a\r\n\r\ndata:b\r\rdata:  c\n\n", {"message|a|", "message|b|", "message| c|"}},
         row{"data: a\rdata: b\r\ndata: c\n\r\n", {"message|a\nb\nc|"}},
         row{": comment\n\n:\ndata: a\n: inside\n\n", {"message|a|"}},
         row{"event: x\nid: 7\ndata: a\n\ndata: b\n\n", {"x|a|7", "message|b|7"}},
         row{"event: lost\n\ndata\n\n", {"message||"}},
         row{"data: a\ndata:\ndata: b\n\n", {"message|a\n\nb|"}},
         row{
           "\xef\xbb\xbf"
           "data: a\n\n",
           {"message|a|"}},
         row{"retry: 5\nunknown: 6\ndata: [DONE]\n\n", {"message|[DONE]|"}},
         row{"data: a\n\ndata: cut off\n", {"message|a|"}},
       })
    for (std::size_t step = 1; step <= stream.size(); ++step) {
      CAPTURE(stream);
      CAPTURE(step);
      CHECK(events_of(stream, step) == events);
    }
}

TEST_CASE("an event is bounded, a stream is not") {
  event_stream parser{64};
  auto ignore = [](const stream_event&) {};
  for (int i = 0; i < 100; ++i)
    REQUIRE(parser.feed(": keep-alive, again and again\ndata: small\n\n", ignore).has_value());
  auto endless = parser.feed("data: " + std::string(60, 'x'), ignore);
  REQUIRE(!endless.has_value());
  CHECK(endless.error().code == errc::too_long);

  for (const char* warm : {": x\n\n", "\n", "\r\n", ":\n", "id: 1\n\n", "event: x\n\n"}) {
    CAPTURE(warm); // some between two events are good, without end they are not
    event_stream keeps{64};
    for (int i = 0; i < 100; ++i)
      REQUIRE(keeps.feed(std::string{warm} + "data: small\n\n", ignore).has_value());
    result<void> outcome;
    for (int i = 0; i < 100 && outcome; ++i)
      outcome = keeps.feed(warm, ignore);
    CHECK(!outcome.has_value());
  }

  event_stream lines{64};
  result<void> outcome;
  for (int i = 0; i < 100 && outcome; ++i)
    outcome = lines.feed("data: xxxx\n", ignore);
  CHECK(!outcome.has_value());
}
