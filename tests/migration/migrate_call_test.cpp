#include "runtime/migration/migrate_call.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using namespace llumnix;

namespace {

using enum selection_rule;
using enum selection_order;

migrate_call asked() {
  migrate_call call;
  call.source = "engine-0";
  call.destination = "engine-1";
  call.type = "NUM_REQ";
  call.order = "SR";
  call.wanted = {{requests, 3}};
  return call;
}

instance_metadata instance(std::string id, std::string ip, std::int32_t port) {
  instance_metadata x;
  x.instance_id = std::move(id);
  x.ip = x.ip_kvs = std::move(ip);
  x.llumlet_port = x.kvt_port = port;
  return x;
}

const std::vector<instance_metadata> cluster{
  instance("engine-0", "10.0.0.1", 7000), instance("engine-1", "10.0.0.2", 7000),
  instance("pair.0", "10.0.0.3", 7000), instance("pair.1", "10.0.0.3", 7000),
  instance("closed", "10.0.0.4", 0)};

template <class T>
errc code_of(const result<T>& x) {
  return x ? errc::ok : x.error().code;
}

} // namespace

TEST_CASE("a call says which requests, in the reference's words") {
  struct row {
    const char* type;
    const char* order;
    migrate_call::amount wanted;
    request_selection means;
  };
  for (const auto& [type, order, wanted, means] : {
         row{"NUM_REQ", "SR", {requests, 3}, {requests, shortest_running, 3}},
         row{"NUM_REQ", "LR", {requests, -1}, {requests, longest_running, -1}},
         row{"TOKEN", "LCR", {tokens, 1024}, {tokens, latest_running, 1024}},
         row{"TOKEN", "FCR", {tokens, 0}, {tokens, earliest_running, 0}},
         row{"RATIO", "FCW", {kv_ratio, 0.25}, {kv_ratio, earliest_waiting, 0.25}},
         row{"RATIO", "FCWSR", {kv_ratio, 2}, {kv_ratio, waiting_then_shortest, 2}},
         row{"NUM_REQ", "FCR", {requests, 1}, {requests, earliest_running, 1}},
         row{"NUM_REQ", "LPSR", {requests, 1}, {requests, low_priority_shortest, 1}},
       }) {
    CAPTURE(type);
    CAPTURE(order);
    auto call = asked();
    call.type = type;
    call.order = order;
    call.wanted = wanted;
    auto selection = selection_of(call);
    REQUIRE(selection);
    CHECK(*selection == means);
  }
}

TEST_CASE("what a call lacks, or has wrong, is named") {
  struct row {
    void (*change)(migrate_call&);
    const char* sentence;
  };
  for (const auto& [change, sentence] : {
         row{
           [](auto& x) { x.type = "num_req"; },
           R"(migration_type "num_req" is none of NUM_REQ, TOKEN, RATIO)"},
         row{[](auto& x) { x.type = ""; }, R"(migration_type "" is none of NUM_REQ, TOKEN, RATIO)"},
         row{
           [](auto& x) { x.type = "A\n\"B"; },
           R"(migration_type "A??B" is none of NUM_REQ, TOKEN, RATIO)"},
         row{
           [](auto& x) { x.order = "BOGUS"; },
           R"(migration_req_policy "BOGUS" is none of LCR, FCR, LR, SR, FCW, FCWSR, LPSR)"},
         row{
           [](auto& x) { x.order = ""; },
           R"(migration_req_policy "" is none of LCR, FCR, LR, SR, FCW, FCWSR, LPSR)"},
         row{
           [](auto& x) { x.order = "sr"; },
           R"(migration_req_policy "sr" is none of LCR, FCR, LR, SR, FCW, FCWSR, LPSR)"},
         row{[](auto& x) { x.wanted.reset(); }, "migration_type NUM_REQ wants num_reqs"},
         row{[](auto& x) { x.wanted->of = tokens; }, "migration_type NUM_REQ wants num_reqs"},
         row{[](auto& x) { x.type = "TOKEN"; }, "migration_type TOKEN wants num_tokens"},
         row{[](auto& x) { x.type = "RATIO"; }, "migration_type RATIO wants kv_cache_usage_ratio"},
         row{
           [](auto& x) {
             x.type = "RATIO";
             x.wanted = {{kv_ratio, std::nan("")}};
           },
           "kv_cache_usage_ratio is no finite number"},
         row{
           [](auto& x) {
             x.type = "RATIO";
             x.wanted = {{kv_ratio, -std::numeric_limits<double>::infinity()}};
           },
           "kv_cache_usage_ratio is no finite number"},
         row{[](auto& x) { x.destination_port = -1; }, "dst_engine_port -1 is no port"},
         row{[](auto& x) { x.destination_port = 65536; }, "dst_engine_port 65536 is no port"},
         row{
           [](auto& x) { x.trigger.assign(257, 'x'); },
           "trigger_policy has 257 bytes; 256 are the most"},
       }) {
    auto call = asked();
    change(call);
    auto selection = selection_of(call);
    REQUIRE_FALSE(selection);
    CHECK(selection.error() == error{errc::invalid_argument, sentence});
  }
}

TEST_CASE("the source is an instance of this llumlet") {
  const std::vector one{cluster[0]};
  const std::vector two{cluster[2], cluster[3]};
  struct row {
    const char* named;
    const std::vector<instance_metadata>& here;
    const char* means; ///< empty: nobody
  };
  for (const auto& [named, here, means] :
       {row{"engine-0", one, "engine-0"}, row{"", one, "engine-0"}, row{"engine-1", one, ""},
        row{"pair.1", two, "pair.1"}, row{"", two, ""}, row{"pair", two, ""}}) {
    CAPTURE(named);
    auto call = asked();
    call.source = named;
    auto found = source_of(call, here);
    CHECK(code_of(found) == (*means ? errc::ok : errc::invalid_argument));
    if (found)
      CHECK(*found == means);
  }
}

TEST_CASE("the destination is named, or known by its address, and one does not belie the other") {
  struct row {
    const char* name;
    const char* ip;
    std::int32_t port;
    errc code;
    const char* means;
  };
  for (const auto& [name, ip, port, code, means] : {
         row{"engine-1", "", 0, errc::ok, "engine-1"},
         row{"engine-1", "10.0.0.2", 7000, errc::ok, "engine-1"},
         row{"pair.1", "10.0.0.3", 7000, errc::ok, "pair.1"},
         row{"", "10.0.0.2", 7000, errc::ok, "engine-1"},
         // An address that nobody has any more: the instance was started again elsewhere.
         row{"engine-1", "10.0.0.2", 7001, errc::ok, "engine-1"},
         row{"engine-1", "10.0.0.9", 7000, errc::ok, "engine-1"},
         row{"engine-1", "10.0.0.1", 7000, errc::invalid_argument, ""},
         row{"", "10.0.0.3", 7000, errc::invalid_argument, ""},
         row{"", "", 0, errc::invalid_argument, ""},
         row{"", "10.0.0.2", 0, errc::invalid_argument, ""},
         row{"", "10.0.0.4", 0, errc::invalid_argument, ""},
         row{"", "", 7000, errc::invalid_argument, ""},
         row{"", "10.0.0.9", 7000, errc::not_found, ""},
         row{"engine-9", "", 0, errc::not_found, ""},
         // Who was at this address is another one now.
         row{"engine-9", "10.0.0.2", 7000, errc::not_found, ""},
       }) {
    CAPTURE(name);
    CAPTURE(ip);
    CAPTURE(port);
    auto call = asked();
    call.destination = name;
    call.destination_ip = ip;
    call.destination_port = port;
    auto found = destination_of(call, cluster);
    CHECK(code_of(found) == code);
    if (found)
      CHECK(*found == means);
  }
}

// Mends weakness 21 of spec/rescheduling.md.
TEST_CASE("a trigger policy is anything, in whatever case") {
  using row = std::pair<const char*, const char*>;
  for (auto [trigger, policy] :
       {row{"", "grpc"}, row{"neutral_load", "neutral_load"}, row{"NEUTRAL_LOAD", "neutral_load"},
        row{"Prefill_Failover", "prefill_failover"}, row{"what\never", "what?ever"}}) {
    auto call = asked();
    call.trigger = trigger;
    CHECK(policy_of(call) == policy);
  }
}

// Mends weakness 14 of spec/rescheduling.md.
TEST_CASE("a caller is told what became of its requests, by code, truth and numbers") {
  struct row {
    result<moves_begun> outcome;
    call_reply reply;
  };
  auto refused = [](errc code, const char* why) { return result<moves_begun>{error{code, why}}; };
  using enum call_code;
  for (const auto& [outcome, reply] : {
         row{
           moves_begun{.accepted = 2},
           {ok, true, "migrate requests from a to b; accepted=2 rejected=0 failed=0"}},
         row{
           moves_begun{.accepted = 1, .rejected = 2, .failed = 1, .reason = "no slot"},
           {ok, true, "migrate requests from a to b: no slot; accepted=1 rejected=2 failed=1"}},
         row{
           moves_begun{.accepted = 1, .waiting = 3},
           {ok, true, "migrate requests from a to b; accepted=1 rejected=0 failed=0 waiting=3"}},
         row{
           moves_begun{.rejected = 1, .reason = "no slot"},
           {ok, false, "b took none of the requests: no slot; accepted=0 rejected=1 failed=0"}},
         row{
           moves_begun{},
           {ok, false,
            "the engine core of a cannot find expected requests; accepted=0 rejected=0 failed=0"}},
         row{
           moves_begun{.finished = 1},
           {ok, false,
            "what was chosen ended before it could move; accepted=0 rejected=0 failed=0 "
            "finished=1"}},
         row{
           moves_begun{.waiting = 1},
           {deadline_exceeded, false,
            "b has not answered yet, and what was chosen still may move; accepted=0 rejected=0 "
            "failed=0 waiting=1"}},
         row{
           moves_begun{.joined = 4, .merged = true},
           {ok, true, "a is being emptied already; accepted=0 rejected=0 failed=0 joined=4"}},
         row{
           refused(errc::queue_full, "2 may have to leave, slots for 1 are free"),
           {resource_exhausted, false,
            "2 may have to leave, slots for 1 are free; accepted=0 rejected=0 failed=0"}},
         row{
           refused(errc::timeout, "late"),
           {deadline_exceeded, false, "late; accepted=0 rejected=0 failed=0"}},
         row{
           refused(errc::cancelled, "gone"),
           {cancelled, false, "gone; accepted=0 rejected=0 failed=0"}},
         row{
           refused(errc::unreachable, "b is not connected"),
           {ok, false, "b is not connected; accepted=0 rejected=0 failed=0"}},
         row{
           refused(errc::invalid_argument, "it is there already"),
           {invalid_argument, false, "it is there already; accepted=0 rejected=0 failed=0"}},
         row{
           refused(errc::bad_message, "?"), {internal, false, "?; accepted=0 rejected=0 failed=0"}},
       }) {
    auto told = reply_of("a", "b", outcome);
    CHECK(told.code == reply.code);
    CHECK(told.success == reply.success);
    CHECK(told.message == reply.message);
  }
}
