#include "integrations/redis/cms_codec.hpp"
#include "runtime/cluster/foreign_instances.hpp"
#include "tests/redis/redis_server.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <future>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace llumnix::testing {

namespace {

using namespace std::chrono_literals;
using ids = std::vector<instance_id>;

const std::string metadata_key{metadata_key_prefix};
const std::string status_key{status_key_prefix};

result<std::vector<instance_metadata>> read_metadata(redis_cms_store& store) {
  auto answer = std::make_shared<std::promise<result<std::vector<instance_metadata>>>>();
  store.read_metadata([answer](auto found) { answer->set_value(std::move(found)); });
  return answer->get_future().get();
}

result<stored_statuses> read_statuses(redis_cms_store& store, ids instances) {
  auto answer = std::make_shared<std::promise<result<stored_statuses>>>();
  store.read_statuses(
    std::move(instances), [answer](auto found) { answer->set_value(std::move(found)); });
  return answer->get_future().get();
}

template <class Records>
ids ids_of(const Records& records) {
  ids all;
  for (const auto& one : records)
    all.push_back(one.instance_id);
  return all;
}

std::uint64_t observations(const loop_histogram& observed) {
  std::uint64_t all = 0;
  for (std::size_t i = 0; i <= observed.bounds().size(); ++i)
    all += observed.count(i);
  return all;
}

struct recorded {
  std::string key;
  std::string bytes;
  nlohmann::json fields;
};

/// What the reference's llumlets wrote.
std::vector<recorded> recordings() {
  std::ifstream file{LLUMNIX_CMS_RECORDS};
  const auto document = nlohmann::json::parse(file);
  std::vector<recorded> all;
  for (const auto& item : document["items"]) {
    std::string bytes, hex = item["hex"];
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    all.push_back({item["key"], bytes, item["fields"]});
  }
  return all;
}

} // namespace

TEST_CASE("the records of the reference's llumlets are read into the view") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server);
  cluster_view view;
  foreign_instances foreign;
  auto pull = [&] {
    auto all = read_metadata(*store);
    REQUIRE(all);
    foreign.take_metadata(std::move(*all), view);
    auto statuses = read_statuses(*store, foreign.ids(view));
    REQUIRE(statuses);
    return foreign.take_statuses(std::move(*statuses), view, 1700000060000);
  };
  std::map<std::string, nlohmann::json> expected;
  auto set = [&](const recorded& one) {
    server.ask({"SET", one.key, one.bytes, "EX", "100"});
    expected[one.key] = one.fields;
  };
  auto check = [&] {
    for (const auto& [id, known] : view.instances()) {
      CAPTURE(id);
      auto& metadata = expected.at(metadata_key + id);
      CHECK(known.metadata.instance_id == id);
      CHECK(known.metadata.instance_type == metadata["instance_type"]);
      CHECK(
        http_endpoint(known.metadata)
        == "127.0.0.1:" + std::to_string(metadata["api_server_port"].get<int>()));
      CHECK(known.metadata.utc_create == metadata["utc_create"]);
      auto& status = expected.at(status_key + id);
      CHECK(known.has_status);
      CHECK(known.status.timestamp_ms == status["timestamp_ms"]);
      CHECK(known.status.update_id == status["update_id"]);
      CHECK(known.status.schedulable == status["schedulable"]);
      CHECK(known.status.num_running_requests == status.value("num_running_requests", 0));
      CHECK(known.status.profiling_id == status.value("profiling_id", 0));
      CHECK(
        known.status.num_available_migrate_in_slots
        == status.value("num_available_migrate_in_slots", 0));
      CHECK(known.state == instance_state::ready);
    }
  };
  std::vector<recorded> later; // a second record of the same key
  for (const auto& one : recordings())
    if (expected.contains(one.key))
      later.push_back(one);
    else
      set(one);
  auto changes = pull();
  // Of these the recordings hold metadata and a status; of others one of the two.
  CHECK(changes.put == ids{"inst-0000", "inst-0001", "inst-0002", "inst-0004"});
  CHECK(foreign.ids(view).size() == 6);
  CHECK(
    view.find("inst-0001")->status.recent_waiting_requests == ids{"chatcmpl-r1-0", "cmpl-r2+0+x"});
  check();

  REQUIRE(later.size() == 1); // a heartbeat
  set(later[0]);
  changes = pull();
  CHECK(changes.put.empty());
  CHECK(changes.statuses == ids{"inst-0001"});
  CHECK_FALSE(view.find("inst-0001")->status.schedulable);
  check();

  for (const auto& one : recordings()) { // and each of the others with what it lacks
    auto id = one.key.substr(one.key.find(':', 8) + 1);
    server.ask({"SET", metadata_key + id, encode(metadata_of(id)), "NX"});
    server.ask({"SET", status_key + id, encode(status_of(id, 1)), "NX"});
  }
  pull();
  CHECK(view.instances().size() == 9);
  CHECK(view.find("inst-0006")->status.num_available_migrate_in_slots == -2147483648);
  CHECK(view.find("inst-0003")->status.step_duration == 18.75);
  CHECK(view.find("llumnix:a:b \xc3\xa9")->metadata.api_server_port == 21015);

  server.ask({"FLUSHALL"});
  changes = pull();
  CHECK(view.instances().empty());
}

TEST_CASE("hostile records are left out whole, and cost the others nothing") {
  if (!redis_server::available())
    return;
  redis_server server;
  const auto good = status_of("good", 3);
  struct row {
    const char* id;
    std::string value; ///< of its status; empty: no string
  };
  auto with_numbers = [](std::int64_t at, double duration) {
    auto x = status_of("odd", 3);
    x.timestamp_ms = at;
    x.step_duration = duration;
    return encode(x);
  };
  auto long_list = status_of("odd", 3);
  long_list.waiting_requests.resize(70000);
  const std::vector<row> rows{
    {"cut", encode(good).substr(0, encode(good).size() - 1)},
    {"varint", std::string{"\x20"} + std::string(11, '\xff')},
    {"wire-type", std::string{"\x0a\x01"} + "a" + "\x0f"},
    {"not-utf8", "\x0a\x02\xc3\x28"},
    {"huge", "\x0a" + std::string{"\x80\x80\x80\x01"} + std::string(2u << 20, 'a')},
    {"before-1970", with_numbers(-5, 1)},
    {"no-number", with_numbers(5, std::numeric_limits<double>::quiet_NaN())},
    {"long-list", encode(long_list)}};
  ids asked{"good"};
  server.ask({"SET", status_key + "good", encode(good)});
  for (const auto& [id, value] : rows) {
    server.ask({"SET", metadata_key + id, encode(metadata_of(id))});
    server.ask({"SET", status_key + id, value});
    asked.push_back(id);
  }
  for (const auto* id : {"a-list", "nobody"})
    asked.push_back(id);
  server.ask({"LPUSH", status_key + "a-list", "x"});
  asked.push_back("good too");
  auto wrapped = encode(status_of("good too", 4)) + "\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
  server.ask({"SET", status_key + "good too", wrapped}); // step_id = -1, and last wins

  server.ask({"SET", metadata_key + "good", encode(metadata_of("good"))});
  server.ask({"SET", metadata_key + std::string(600, 'n'), encode(metadata_of("n"))});
  auto long_type = metadata_of("long");
  long_type.backend_type = std::string(20000, 'b');
  server.ask({"SET", metadata_key + "long", encode(long_type)});
  server.ask({"SET", metadata_key + "\xff\xfe", encode(metadata_of("bytes"))});
  server.ask({"SET", metadata_key + "\x7f", encode(metadata_of("control"))});
  auto no_time = metadata_of("no-time");
  no_time.utc_create = std::numeric_limits<double>::infinity();
  server.ask({"SET", metadata_key + "no-time", encode(no_time)});

  captured_log logged;
  auto store = make_store(server);
  for (int again = 0; again < 3; ++again) {
    auto found = read_statuses(*store, asked);
    REQUIRE(found);
    CHECK(ids_of(found->found) == ids{"good", "good too"});
    CHECK(found->found[0] == good);
    CHECK(found->found[1].step_id == -1);
    CHECK(found->missing == ids{"a-list", "nobody"});
    auto all = read_metadata(*store);
    REQUIRE(all);
    CHECK(all->size() == rows.size() + 1);
  }
  CHECK(logged.count("odd-record") == rows.size() + 5); // each once
  CHECK(logged.count("\n") == rows.size() + 5 + 1);     // and one for the link
  CHECK(store->metrics().odd_records == 3 * (rows.size() + 5));
  CHECK(store->metrics().readings == 6);
  CHECK(observations(store->metrics().metadata_ms) == 3);
  CHECK(observations(store->metrics().statuses_ms) == 3);
  CHECK(store->metrics().statuses_ms.sum() > 0);
  CHECK(store->metrics().connected);
}

TEST_CASE("more instances than anybody has are read up to a bound, and the log says so once") {
  if (!redis_server::available())
    return;
  redis_server server;
  server.ask(
    {"EVAL", "for i = 1, 20000 do redis.call('SET', KEYS[1] .. i, ARGV[1]) end", "1", metadata_key,
     encode(metadata_of("x"))});
  captured_log logged;
  auto store = make_store(server);
  for (int again = 0; again < 2; ++again) {
    auto found = read_metadata(*store);
    REQUIRE(found);
    CHECK(found->size() == 16384);
    CHECK(std::is_sorted(found->begin(), found->end(), [](const auto& a, const auto& b) {
      return a.instance_id < b.instance_id;
    }));
  }
  CHECK(logged.count("more than 16384 instances") == 1);
}

TEST_CASE("two readings and the mirror do not wait for each other") {
  if (!redis_server::available())
    return;
  redis_server server;
  ids all;
  for (int i = 0; i < 1200; ++i)
    all.push_back("i" + std::to_string(i));
  server.ask(
    {"EVAL", "for i = 0, 1199 do redis.call('SET', KEYS[1] .. 'i' .. i, ARGV[1]) end", "1",
     status_key, encode(status_of("x", 4))});
  auto store = make_store(server, {.status_interval = 1ms});
  store->put_metadata(metadata_of("own"));
  std::vector<std::future<result<stored_statuses>>> answers;
  for (int i = 0; i < 5; ++i) {
    auto answer = std::make_shared<std::promise<result<stored_statuses>>>();
    answers.push_back(answer->get_future());
    store->read_statuses(all, [answer](auto found) { answer->set_value(std::move(found)); });
    store->put_status(status_of("own", i + 1));
  }
  for (auto& answer : answers) {
    auto found = answer.get();
    REQUIRE(found);
    CHECK(ids_of(found->found) == all);
    CHECK(found->missing.empty());
  }
  CHECK(eventually([&] { return stored_update(server, "own") == 5; }));
  auto none = read_statuses(*store, {});
  REQUIRE(none);
  CHECK(none->found.empty());
}

TEST_CASE("a reading that is refused or has no server says why, and the next one works") {
  if (!redis_server::available())
    return;
  redis_server server;
  server.ask({"SET", metadata_key + "a", encode(metadata_of("a"))});
  server.ask({"SET", status_key + "a", encode(status_of("a", 1))});
  auto store
    = make_store(server, {}, {.address = {}, .username = {}, .password = {}, .timeout = 1000ms});
  REQUIRE(read_metadata(*store));
  for (const char* command : {"getrange", "scan"}) {
    CAPTURE(command);
    server.ask({"ACL", "SETUSER", "default", "-" + std::string{command}});
    auto found = read_metadata(*store);
    REQUIRE_FALSE(found);
    CHECK(found.error().context.find("NOPERM") != std::string::npos);
    server.ask({"ACL", "SETUSER", "default", "+" + std::string{command}});
  }
  server.signal(SIGSTOP);
  for (errc expected : {errc::timeout, errc::unreachable}) {
    auto hung = read_statuses(*store, {"a"});
    REQUIRE_FALSE(hung);
    CHECK(hung.error().code == expected);
  }
  server.signal(SIGCONT);
  const auto& took = store->metrics().statuses_ms; // what came to nothing is measured, too
  CHECK(took.count(took.bounds().size()) == 2);
  CHECK(took.sum() > 1000);
  CHECK(eventually([&] { return read_statuses(*store, {"a"}).has_value(); }));
  CHECK(store->metrics().reading_failures >= 4);
}

TEST_CASE("a store that ends with writes on their way ends cleanly") {
  if (!redis_server::available())
    return;
  redis_server server;
  auto store = make_store(server, {.status_interval = 1ms});
  REQUIRE(read_metadata(*store));
  server.signal(SIGSTOP);
  for (int i = 0; i < 50; ++i)
    store->put_metadata(metadata_of("i" + std::to_string(i)));
  auto before = std::chrono::steady_clock::now();
  store.reset();
  CHECK(std::chrono::steady_clock::now() - before < 10s);
  server.signal(SIGCONT);
}

} // namespace llumnix::testing
