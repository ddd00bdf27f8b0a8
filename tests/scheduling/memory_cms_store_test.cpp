#include "runtime/cluster/memory_cms_store.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

instance_metadata metadata_of(const instance_id& id, std::int32_t port) {
  instance_metadata metadata;
  metadata.instance_id = id;
  metadata.api_server_port = port;
  return metadata;
}

instance_status status_of(const instance_id& id, std::int32_t update) {
  instance_status status;
  status.instance_id = id;
  status.update_id = update;
  return status;
}

/// What the store answers; it must answer once, before `read_all` returns.
std::vector<stored_instance> read(cms_store& store) {
  std::vector<stored_instance> records;
  int answers = 0;
  store.read_all([&](auto outcome) {
    ++answers;
    REQUIRE(outcome.has_value());
    records = *std::move(outcome);
  });
  REQUIRE(answers == 1);
  return records;
}

} // namespace

TEST_CASE("a store in memory returns what was written last, by ascending id") {
  memory_cms_store store;
  CHECK(read(store).empty());
  store.put_metadata(metadata_of("b", 1));
  store.put_metadata(metadata_of("a", 2));
  store.put_metadata(metadata_of("b", 3));
  store.put_status(status_of("b", 7));
  store.put_status(status_of("b", 8));
  auto records = read(store);
  REQUIRE(records.size() == 2);
  CHECK(records[0].metadata == metadata_of("a", 2));
  CHECK_FALSE(records[0].has_status);
  CHECK(records[1].metadata == metadata_of("b", 3));
  CHECK(records[1].has_status);
  CHECK(records[1].status == status_of("b", 8));
}

TEST_CASE("a status without metadata is kept but names no instance until the metadata comes") {
  memory_cms_store store;
  store.put_status(status_of("a", 1));
  CHECK(read(store).empty());
  store.put_metadata(metadata_of("a", 1));
  auto records = read(store);
  REQUIRE(records.size() == 1);
  CHECK(records[0].has_status);
}

TEST_CASE("removing an instance deletes both records") {
  memory_cms_store store;
  store.put_metadata(metadata_of("a", 1));
  store.put_status(status_of("a", 1));
  store.remove("a");
  store.remove("unknown");
  CHECK(read(store).empty());
  store.put_metadata(metadata_of("a", 1));
  CHECK_FALSE(read(store).at(0).has_status);
}
