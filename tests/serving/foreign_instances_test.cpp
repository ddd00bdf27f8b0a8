#include "runtime/cluster/foreign_instances.hpp"

#include <doctest/doctest.h>

#include <limits>

namespace llumnix {

namespace {

using ids = std::vector<instance_id>;

constexpr std::int32_t least = std::numeric_limits<std::int32_t>::min();

instance_metadata metadata(const instance_id& id, double created = 1) {
  instance_metadata x;
  x.instance_id = id;
  x.instance_type = "neutral";
  x.backend_type = "BackendType.VLLM_V1";
  x.ip = "10.0.0.1";
  x.api_server_port = 8000;
  x.utc_create = created;
  return x;
}

instance_status
status(const instance_id& id, std::int64_t at, std::int32_t update, std::int32_t running = 0) {
  instance_status x;
  x.instance_id = id;
  x.schedulable = true;
  x.timestamp_ms = at;
  x.update_id = update;
  x.num_running_requests = running;
  return x;
}

/// A view and what a store says, with the changes of the last reading.
struct reader {
  void all(std::vector<instance_metadata> found) {
    changes = foreign.take_metadata(std::move(found), view);
  }
  void statuses(std::vector<instance_status> found, ids missing = {}) {
    changes = foreign.take_statuses({std::move(found), std::move(missing)}, view, now);
  }
  /// "i" as it is known at first: version 50, three requests.
  void begin() {
    all({metadata("i")});
    statuses({status("i", 1000, 50, 3)});
  }
  const instance_view& shown(const instance_id& id = "i") const {
    REQUIRE(view.find(id) != nullptr);
    return *view.find(id);
  }

  cluster_view view;
  foreign_instances foreign;
  pull_changes changes;
  unix_ms now = 5000;
};

} // namespace

TEST_CASE("a foreign instance is in the view once it has metadata and a status") {
  reader x;
  x.statuses({status("i", 1000, 50)}); // of nobody known
  CHECK(x.changes.empty());
  x.all({metadata("i"), metadata("j")});
  CHECK(x.changes.empty());
  CHECK(x.foreign.ids(x.view) == ids{"i", "j"});
  x.statuses({status("i", 1000, 50, 3)}, {"j"});
  CHECK(x.changes.put == ids{"i"});
  CHECK(x.changes.statuses == ids{"i"});
  CHECK(x.shown().foreign());
  CHECK(x.shown().state == instance_state::ready);
  CHECK(x.shown().status.num_running_requests == 3);
  CHECK(x.shown().engine == "BackendType.VLLM_V1");
  CHECK(x.view.find("j") == nullptr);
  x.all({metadata("j")});
  CHECK(x.changes.removed == ids{"i"});
  CHECK(x.view.find("i") == nullptr);
  x.statuses({status("i", 2000, 60), status("j", 1, 1)}); // asked for before
  CHECK(x.changes.put == ids{"j"});
  CHECK(x.view.find("i") == nullptr);
  x.all({});
  CHECK(x.changes.removed == ids{"j"});
  CHECK(x.foreign.ids(x.view).empty());
}

TEST_CASE("a status of a foreign instance passes the gates of time and version") {
  struct row {
    const char* what;
    std::int64_t at;
    std::int32_t update;
    std::int64_t at_then; ///< time, version and load that the view shows then
    std::int32_t update_then;
    std::int32_t running_then;
  };
  for (const auto& [what, at, update, at_then, update_then, running_then] :
       {row{"newer", 1001, 51, 1001, 51, 9}, row{"the same time", 1000, 51, 1000, 50, 3},
        row{"older", 999, 51, 1000, 50, 3}, row{"the same version", 1001, 50, 1001, 50, 3},
        row{"an older version", 1001, 49, 1001, 50, 3},
        row{"a version just within the jump", 1001, 50 - 15, 1001, 50, 3},
        row{"a version far below", 1001, 50 - 16, 1001, 50 - 16, 9},
        row{"the first version", 1001, 1, 1001, 1, 9},
        row{"a version not set", 1001, 0, 1001, 0, 9},
        row{"the least version", 1001, least, 1001, least, 9},
        row{"an old record of a writer that started again", 999, least, 1000, 50, 3}}) {
    CAPTURE(what);
    reader x;
    x.begin();
    x.statuses({status("i", at, update, 9)});
    CHECK(x.changes.put.empty());
    CHECK(x.shown().status.timestamp_ms == at_then);
    CHECK(x.shown().status.update_id == update_then);
    CHECK(x.shown().status.num_running_requests == running_then);
    CHECK(x.shown().life.incarnation == 5000); // nothing of this drops an account
  }
}

TEST_CASE("a writer whose clock is ahead is heard, and seems alive no longer than it writes (cms "
          "weakness 9)") {
  reader x;
  x.begin();
  constexpr std::int64_t ahead = 3'600'000;
  x.statuses({status("i", ahead, 51, 4)});
  CHECK(x.changes.statuses == ids{"i"});
  CHECK(x.shown().status.timestamp_ms == 5'000);
  x.now = 5'300;
  x.statuses({status("i", ahead, 51, 4)}); // read again, not written again
  CHECK(x.changes.empty());
  CHECK(x.shown().status.timestamp_ms == 5'000);
  x.statuses({status("i", 5'300, 52, 5)}); // by a clock that was mended
  CHECK(x.changes.statuses == ids{"i"});
  CHECK(x.shown().status.num_running_requests == 5);
}

TEST_CASE("what changes in the metadata takes effect, but for its heartbeat") {
  struct row {
    const char* what;
    void (*change)(instance_metadata&);
    bool is_told;
    instance_state then;
  };
  using enum instance_state;
  for (const auto& [what, change, is_told, then] :
       {row{"nothing", [](instance_metadata&) {}, false, ready},
        row{"heartbeat", [](instance_metadata& x) { x.utc_update = 99; }, false, ready},
        row{"role", [](instance_metadata& x) { x.instance_type = "decode"; }, true, ready},
        row{"address", [](instance_metadata& x) { x.ip = "10.0.0.2"; }, true, ready},
        row{"port", [](instance_metadata& x) { x.api_server_port = 8001; }, true, ready},
        row{"transfer port", [](instance_metadata& x) { x.kvt_port = 1; }, true, ready},
        row{"no port", [](instance_metadata& x) { x.api_server_port = 0; }, true, lost},
        row{
          "a port below all", [](instance_metadata& x) { x.api_server_port = least; }, true, lost},
        row{
          "a port beyond all", [](instance_metadata& x) { x.api_server_port = 65536; }, true, lost},
        row{"no address", [](instance_metadata& x) { x.ip.clear(); }, true, lost}}) {
    CAPTURE(what);
    reader x;
    x.begin();
    auto changed = metadata("i");
    change(changed);
    x.all({changed});
    CHECK(x.changes.put == (is_told ? ids{"i"} : ids{}));
    CHECK(x.changes.removed.empty());
    CHECK(x.shown().state == then);
    CHECK(x.shown().status.num_running_requests == 3);
    auto shown = x.shown().metadata;
    shown.utc_update = changed.utc_update;
    CHECK(shown == changed);
  }
}

TEST_CASE(
  "an instance without a status is no candidate, and what was sent there is not forgotten") {
  reader x;
  x.begin();
  x.statuses({}, {"i"});
  CHECK(x.changes.put == ids{"i"});
  CHECK(x.changes.removed.empty());
  CHECK(x.shown().state == instance_state::stopped);
  x.statuses({}, {"i"}); // nothing new
  CHECK(x.changes.empty());
  x.all({metadata("i")});
  CHECK(x.changes.empty());
  CHECK(x.shown().state == instance_state::stopped);

  struct row {
    const char* what;
    std::int64_t at;
    std::int32_t update;
    bool is_born_again;
    bool is_taken;
  };
  for (const auto& [what, at, update, is_born_again, is_taken] :
       {row{"goes on", 1001, 51, false, true}, row{"the same again", 1000, 50, false, false},
        row{"a heartbeat", 1001, 50, false, true}, row{"counts from one", 1001, 1, true, true},
        row{"its clock went back", 3, 60, true, true}}) {
    CAPTURE(what);
    auto y = x;
    y.now = 5001;
    y.statuses({status("i", at, update, 9)});
    CHECK(y.changes.put == ids{"i"});
    CHECK(y.changes.statuses == (is_taken ? ids{"i"} : ids{}));
    CHECK(y.shown().state == instance_state::ready);
    CHECK(y.shown().life.incarnation == (is_born_again ? 5001u : 5000u));
    CHECK(y.shown().status.timestamp_ms == at);
    CHECK(y.shown().status.update_id == update);
  }
  x.now = 4000; // our own clock went back: lives are told apart nevertheless
  x.statuses({status("i", 3, 1)});
  CHECK(x.shown().life.incarnation == 5001);
}

TEST_CASE("a new start of a writer begins anew, but not with the last status of the one before") {
  reader x;
  x.begin();
  x.all({metadata("i", 2)});
  CHECK(x.changes.put == ids{"i"});
  CHECK(x.shown().state == instance_state::stopped); // nothing is known of it
  x.statuses({status("i", 1000, 50, 3)});            // still in the store
  CHECK(x.changes.empty());
  CHECK(x.shown().state == instance_state::stopped);
  x.statuses({status("i", 900, 1, 1)});
  CHECK(x.changes.put == ids{"i"});
  CHECK(x.changes.statuses == ids{"i"});
  CHECK(x.shown().state == instance_state::ready);
  CHECK(x.shown().status.update_id == 1);
  x.statuses({status("i", 901, 2, 2)});
  CHECK(x.shown().status.num_running_requests == 2);
}

TEST_CASE("a status that cannot be read leaves the one before") {
  reader x;
  x.begin();
  x.statuses({}); // neither found nor missing
  CHECK(x.changes.empty());
  CHECK(x.shown().state == instance_state::ready);
  CHECK(x.shown().status.num_running_requests == 3);
}

TEST_CASE("instances of our own nodes are not taken from the store") {
  reader x;
  x.begin();
  const node_life ours{"engine-0", 1};
  auto own = metadata("i");
  x.view.put(own, ours); // its node connects
  x.view.update(status("i", 10, 1, 7));
  x.statuses({status("i", 2000, 60, 9)}, {});
  CHECK(x.changes.empty());
  x.statuses({}, {"i"});
  CHECK(x.changes.empty());
  CHECK(x.foreign.ids(x.view).empty());
  auto changed = own;
  changed.instance_type = "decode";
  x.all({changed});
  CHECK(x.changes.empty());
  x.all({});
  CHECK(x.changes.empty());
  CHECK(x.shown().life == ours);
  CHECK(x.shown().status.num_running_requests == 7);

  // It goes, and what is left of its record does not bring it back; a newer one does.
  x.foreign.disown(own);
  x.view.remove("i");
  for (int again = 0; again < 2; ++again) {
    x.all({own});
    CHECK(x.foreign.ids(x.view).empty());
  }
  x.all({metadata("i", 9)});
  CHECK(x.foreign.ids(x.view) == ids{"i"});
  x.all({});
  x.foreign.disown(own);
  x.all({}); // the record is gone
  x.all({own});
  CHECK(x.foreign.ids(x.view) == ids{"i"});
}

TEST_CASE("what people are shown of a record is plain text, and not long") {
  reader x;
  auto odd = metadata("i");
  odd.backend_type = "\x1b[2J\xc3\xa9" + std::string(100000, 'a');
  x.all({odd});
  x.statuses({status("i", 1, 1)});
  CHECK(x.shown().engine == "?[2J??" + std::string(58, 'a'));
  CHECK(x.shown().metadata.backend_type == odd.backend_type);
}

TEST_CASE("an endpoint is an address and a port") {
  auto at = [](std::string ip, std::int32_t port) {
    auto x = metadata("i");
    x.ip = std::move(ip);
    x.api_server_port = port;
    return http_endpoint(x);
  };
  CHECK(at("10.0.0.1", 1) == "10.0.0.1:1");
  CHECK(at("fd00::1", 65535) == "[fd00::1]:65535");
  CHECK_FALSE(at("10.0.0.1", 0));
  CHECK_FALSE(at("10.0.0.1", -1));
  CHECK_FALSE(at("10.0.0.1", 65536));
  CHECK_FALSE(at("", 8000));
}

TEST_CASE("records that cannot be relied on are told apart") {
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto infinite = std::numeric_limits<double>::infinity();
  using metadata_change = void (*)(instance_metadata&, double);
  for (metadata_change change :
       {metadata_change{[](instance_metadata&x, double) { x.instance_id.clear(); }},
        metadata_change{[](instance_metadata&x, double) { x.instance_id = "\xff\xfe"; }},
        metadata_change{[](instance_metadata&x, double) { x.instance_type.clear(); }},
        metadata_change{[](instance_metadata&x, double) { x.instance_type = "Neutral"; }},
        metadata_change{[](instance_metadata&x, double number) { x.utc_create = number; }},
        metadata_change{[](instance_metadata&x, double number) { x.utc_update = -number; }}})
    for (double number : {nan, infinite}) {
      auto x = metadata("i");
      CHECK(flaw_of(x).empty());
      change(x, number);
      CHECK_FALSE(flaw_of(x).empty());
    }
  using status_change = void (*)(instance_status&, double);
  for (status_change change :
       {status_change{[](instance_status&x, double) { x.timestamp_ms = -1; }},
        status_change{[](instance_status&x, double) { x.waiting_requests.resize(65537); }},
        status_change{[](instance_status&x, double number) { x.step_duration = number; }},
        status_change{
          [](instance_status&x, double number) { x.kv_cache_usage_ratio_migrate_in = number; }}})
    for (double number : {nan, infinite}) {
      auto x = status("i", 0, least, least); // negative numbers are no flaw
      x.waiting_requests.resize(65536);
      CHECK(flaw_of(x).empty());
      change(x, number);
      CHECK_FALSE(flaw_of(x).empty());
    }
}

} // namespace llumnix
