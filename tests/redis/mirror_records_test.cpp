#include "integrations/redis/cms_codec.hpp"
#include "integrations/redis/mirror_records.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace llumnix {

namespace {

using namespace std::chrono_literals;

const time_point start{};

instance_metadata metadata_of(const instance_id& id) {
  instance_metadata metadata;
  metadata.instance_id = id;
  metadata.instance_type = "neutral";
  metadata.utc_update = 5;
  return metadata;
}

instance_status status_of(const instance_id& id, std::int32_t update) {
  instance_status status;
  status.instance_id = id;
  status.update_id = update;
  return status;
}

/// Runs one batch against a store that confirms, or refuses, everything; tells the commands
/// briefly.
std::vector<std::string> batch(mirror_records& records, bool confirms = true) {
  std::vector<std::string> told;
  records.begin_batch();
  while (auto write = records.next(9.0)) {
    auto line = write->words[0] + " " + write->words[1];
    if (write->kind == mirror_write::type::status)
      line += " #" + std::to_string(decode_status(write->words[2])->update_id);
    if (write->kind == mirror_write::type::metadata)
      line += " @" + std::to_string(static_cast<int>(decode_metadata(write->words[2])->utc_update));
    told.push_back(line);
    confirms ? records.confirmed(*write) : records.failed(*write);
    if (told.size() > 20)
      break;
  }
  return told;
}

using lines = std::vector<std::string>;

const std::string metadata_a = "llumnix:instance_metadata:a";
const std::string status_a = "llumnix:instance_status:a";

} // namespace

TEST_CASE("a status waits for its metadata, and then comes behind it with its newest value") {
  mirror_records records{100s};
  records.apply("a", {false, {}, status_of("a", 1)}, start);
  CHECK(batch(records).empty());
  records.apply("a", {false, {}, status_of("a", 2)}, start);
  records.apply("a", {false, metadata_of("a"), {}}, start);
  CHECK(batch(records) == lines{"SET " + metadata_a + " @5", "SET " + status_a + " #2"});
  CHECK(batch(records).empty());
  CHECK(records.pending() == 0);
}

TEST_CASE("a key is written once per batch, and again when it changes meanwhile") {
  mirror_records records{100s};
  records.apply("a", {false, metadata_of("a"), status_of("a", 1)}, start);
  batch(records);
  records.apply("a", {false, {}, status_of("a", 2)}, start);
  records.begin_batch();
  auto first = records.next(9.0);
  REQUIRE(first);
  records.apply("a", {false, {}, status_of("a", 3)}, start);
  records.confirmed(*first);
  CHECK(batch(records) == lines{"SET " + status_a + " #3"});
}

TEST_CASE("what failed is written again, with the next batch and not before") {
  mirror_records records{100s};
  records.apply("a", {true, metadata_of("a"), status_of("a", 1)}, start);
  const lines everything{
    "DEL " + metadata_a, "SET " + metadata_a + " @5", "SET " + status_a + " #1"};
  CHECK(batch(records, false) == everything);
  CHECK(records.dirty());
  CHECK(batch(records) == everything);
  CHECK_FALSE(records.dirty());
}

TEST_CASE("a removal overtakes what failed before it") {
  mirror_records records{100s};
  records.apply("a", {false, metadata_of("a"), status_of("a", 1)}, start);
  batch(records, false);
  records.apply("a", {true, {}, {}}, start);
  CHECK(batch(records) == lines{"DEL " + metadata_a});
}

TEST_CASE("a record lists who waited within ten seconds, whichever status told it") {
  using ids = std::vector<std::string>;
  mirror_records records{100s};
  auto written = [&](ids seen, time_point now) {
    auto status = status_of("a", 1);
    status.recent_waiting_requests = std::move(seen);
    records.apply("a", {false, metadata_of("a"), status}, now);
    records.begin_batch();
    ids listed;
    while (auto write = records.next(9.0))
      if (write->kind == mirror_write::type::status)
        listed = decode_status(write->words[2])->recent_waiting_requests;
    return listed;
  };
  CHECK(written({"x"}, start) == ids{"x"});
  CHECK(written({"y", "z"}, start + 4s) == ids{"x", "y", "z"});
  CHECK(written({}, start + 10s) == ids{"x", "y", "z"});
  CHECK(written({}, start + 11s) == ids{"y", "z"});
  records.apply("a", {true, {}, {}}, start + 12s);
  CHECK(written({}, start + 12s).empty());
}

TEST_CASE("a heartbeat rewrites metadata alone, under a new time") {
  mirror_records records{100s};
  records.apply("a", {false, metadata_of("a"), status_of("a", 1)}, start);
  batch(records);
  records.mark_metadata();
  CHECK(batch(records) == lines{"SET " + metadata_a + " @9"});
}

TEST_CASE("an instance that comes back right after its removal keeps nothing of its earlier life") {
  mirror_records records{100s};
  records.apply("a", {false, metadata_of("a"), status_of("a", 7)}, start);
  batch(records);
  records.apply("a", {true, metadata_of("a"), {}}, start);
  CHECK(batch(records) == lines{"DEL " + metadata_a, "SET " + metadata_a + " @5"});
}

TEST_CASE("a second removal is not confirmed by the answer to the first") {
  mirror_records records{100s};
  records.apply("a", {true, {}, {}}, start);
  records.begin_batch();
  auto first = records.next(9.0);
  REQUIRE(first);
  records.apply("a", {true, {}, {}}, start);
  records.confirmed(*first);
  CHECK(batch(records) == lines{"DEL " + metadata_a});
  records.mark_all();
  CHECK(batch(records).empty()); // forgotten once confirmed
}

TEST_CASE(
  "a new link writes everything again, removals included, and once more when it has settled") {
  mirror_records records{100s};
  records.apply("a", {false, metadata_of("a"), status_of("a", 1)}, start);
  batch(records);
  records.apply("b", {true, {}, {}}, start);
  records.begin_batch();
  records.next(9.0); // the answer never comes
  const lines everything{
    "SET " + metadata_a + " @9", "SET " + status_a + " #1", "DEL llumnix:instance_metadata:b"};
  records.mark_all();
  CHECK(batch(records) == everything);
  CHECK(batch(records).empty());
  records.settle();
  CHECK(batch(records) == everything);
  records.mark_all();
  CHECK(batch(records).size() == 2); // the removal is forgotten
}

TEST_CASE("without a link memory ends with the keys' lifetime") {
  mirror_records records{100s};
  for (int i = 0; i < 50; ++i)
    records.apply("gone-" + std::to_string(i), {true, {}, {}}, start);
  records.apply("late", {false, {}, status_of("late", 1)}, start);
  records.apply("a", {false, metadata_of("a"), {}}, start);
  records.sweep(start + 100s);
  CHECK(records.pending() == 52);
  records.sweep(start + 101s);
  CHECK(records.pending() == 1);
  CHECK(batch(records) == lines{"SET " + metadata_a + " @5"});
}

} // namespace llumnix
