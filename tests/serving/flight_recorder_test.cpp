#include "runtime/serving/flight_recorder.hpp"

#include <doctest/doctest.h>

namespace llumnix {

namespace {

flight_event event(std::string kind) {
  flight_event x;
  x.kind = std::move(kind);
  return x;
}

std::vector<std::string> ids(const std::vector<flight_record>& records) {
  std::vector<std::string> names;
  for (const auto& record : records)
    names.push_back(record.text_id);
  return names;
}

} // namespace

TEST_CASE("a recorder keeps what runs and a bounded number of what ended") {
  flight_recorder records{2};
  records.note("running", event("placed"));
  for (const char* id : {"a", "b", "c"}) {
    records.note(id, event("placed"));
    records.end(id, event("finished"));
  }
  CHECK(records.find("a").empty());
  CHECK(records.find("b").size() == 1);
  CHECK(records.find("c").front().events.size() == 2);
  CHECK(records.find("running").size() == 1);
  CHECK(records.size() == 3);
}

TEST_CASE("where a running request was placed last is known until it ends") {
  flight_recorder records{2};
  CHECK(records.placed("r") == nullptr);
  records.note("r", event("waiting"));
  CHECK(records.placed("r") == nullptr);
  for (std::uint32_t epoch : {0u, 1u}) {
    auto placed = event("placed");
    placed.epoch = epoch;
    records.note("r", std::move(placed));
  }
  records.note("r", event("replayed"));
  REQUIRE(records.placed("r") != nullptr);
  CHECK(records.placed("r")->epoch == 1);
  records.end("r", event("finished"));
  CHECK(records.placed("r") == nullptr);
}

TEST_CASE("a prediction is compared with what came after the placement, where both are known") {
  using maybe = std::optional<double>;
  struct row {
    flight_times times;
    maybe ttft, tpot;
  };
  for (auto& [times, ttft, tpot] :
       {row{{3, 43, 10, 35, 12}, 5, -2}, row{{0, 20, {}, 30, 12}, -10, {}},
        row{{{}, 43, 10, 35, {}}, {}, {}}, row{{3, {}, {}, 35, 12}, {}, {}}, row{{}, {}, {}}}) {
    CHECK(times.ttft_error_ms() == ttft);
    CHECK(times.tpot_error_ms() == tpot);
  }
}

TEST_CASE("an id used again begins a new record, which outlives the old one's turn") {
  flight_recorder records{1};
  records.end("a", event("finished"));
  records.note("a", event("placed"));
  records.end("b", event("finished"));
  REQUIRE(records.find("a").size() == 1);
  CHECK(records.find("a").front().events.front().kind == "placed");
}

TEST_CASE("of several that used an id the latest is found") {
  flight_recorder records{10};
  for (const char* outcome : {"first", "second"})
    records.end("a", event(outcome));
  REQUIRE(records.find("a").size() == 1);
  CHECK(records.find("a").front().events.front().kind == "second");
  CHECK(records.find("a").front().ended);
}

TEST_CASE("choices and namesakes are found with their request, strangers are not") {
  flight_recorder records{10};
  for (const char* id : {"r", "r.1", "r-2", "r-2.1", "r2", "r.x", "s"})
    records.note(id, event("placed"));
  CHECK(ids(records.find("r")) == std::vector<std::string>{"r", "r-2", "r-2.1", "r.1"});
  CHECK(records.find("q").empty());
}

TEST_CASE("of requests whose end nobody tells a bounded number is kept, the latest") {
  recent_flights records{2};
  records.note_known("a", event("released"));
  CHECK(records.size() == 0);
  for (const char* id : {"a", "b", "a", "c"}) // whoever came first goes first
    records.note(id, event("placed"));
  CHECK(records.size() == 2);
  CHECK(records.find("a").empty());
  records.note_known("b", event("released"));
  REQUIRE(records.find("b").size() == 1);
  CHECK(records.find("b").front().text_id == "b");
  CHECK(records.find("b").front().events.back().kind == "released");
  records.note("a", event("placed")); // a request as new as any
  CHECK(records.find("b").empty());
  CHECK(records.find("a").front().events.size() == 1);
  records.note("a-1", event("placed"));
  CHECK(ids(records.find("a")) == std::vector<std::string>{"a", "a-1"});
  recent_flights none{0};
  none.note("a", event("placed"));
  CHECK(none.size() == 0);
  CHECK_FALSE(none.keeps());
}

TEST_CASE("a record of a restless request stays bounded and keeps its beginning and end") {
  flight_recorder records{10};
  for (int i = 0; i < 1000; ++i)
    records.note("r", event(std::to_string(i)));
  auto events = records.find("r").front().events;
  CHECK(events.size() == flight_record::max_events);
  CHECK(events.front().kind == "0");
  CHECK(events.back().kind == "999");
  auto& middle = events[flight_record::max_events / 2];
  CHECK(middle.kind == "left_out"); // and with it all but the 63 others
  CHECK(middle.note == "937 events are not kept");
  CHECK(events[flight_record::max_events / 2 - 1].kind == "31");
  CHECK(events[flight_record::max_events / 2 + 1].kind == "969");
}

} // namespace llumnix
