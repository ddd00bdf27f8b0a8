#include "runtime/migration/move_admission.hpp"

#include <doctest/doctest.h>

using namespace llumnix;

namespace {

const stream_owner here{{"engine-1", 2}, "engine-1"};
const kv_geometry blocks{"modeled", "modeled-u64", 16, 2048, 4096};

handover::offer offered() {
  handover::offer offer;
  offer.of = {{1, 2}, {"head", 1, 0, 7}, 3};
  offer.destination = here;
  offer.geometry = blocks;
  offer.kv_address = "somewhere";
  offer.request.stream = offer.of.stream;
  offer.request.epoch = 3;
  offer.request.model = "modeled";
  offer.request.prompt = {1, 2, 3};
  return offer;
}

arrival_facts ready() {
  arrival_facts facts;
  facts.self = here;
  facts.geometry = blocks;
  facts.in_slots = 2;
  facts.copies_kv = true;
  facts.knows_gateway = true;
  return facts;
}

} // namespace

TEST_CASE(
  "a request may come where there is a slot, a way for its KV, and somebody for its tokens") {
  CHECK(may_arrive(offered(), ready()));
  struct row {
    const char* name;
    void (*change)(handover::offer&, arrival_facts&);
    errc why;
  };
  for (const auto& [name, change, why] : {
         row{"no engine", [](auto&, auto&x) { x.geometry.reset(); }, errc::stale},
         row{
           "an earlier life", [](auto&x, auto&) { --x.destination.life.incarnation; }, errc::stale},
         row{
           "another instance", [](auto&x, auto&) { x.destination.instance = "engine-2"; },
           errc::stale},
         row{"draining", [](auto&, auto&x) { x.draining = true; }, errc::draining},
         row{"the last slot", [](auto&, auto&x) { x.arriving = 1; }, errc::ok},
         row{"no slot", [](auto&, auto&x) { x.arriving = 2; }, errc::queue_full},
         row{
           "to decode, which takes none",
           [](auto&x, auto&y) {
             x.to_decode = true;
             y.arriving = 2;
           },
           errc::ok},
         row{"no slots at all", [](auto&, auto&x) { x.in_slots = 0; }, errc::queue_full},
         row{"no transport", [](auto&, auto&x) { x.copies_kv = false; }, errc::unsupported},
         row{
           "none needed",
           [](auto&x, auto&y) {
             x.path = move_path::recompute;
             y.copies_kv = false;
           },
           errc::ok},
         row{
           "nowhere to pull from", [](auto&x, auto&) { x.kv_address.clear(); },
           errc::invalid_argument},
         row{"no gateway", [](auto&, auto&x) { x.knows_gateway = false; }, errc::unreachable},
         row{
           "other blocks", [](auto&x, auto&) { x.geometry.block_tokens = 32; }, errc::unsupported},
       }) {
    CAPTURE(name);
    auto offer = offered();
    auto facts = ready();
    change(offer, facts);
    auto may = may_arrive(offer, facts);
    CHECK((may ? errc::ok : may.error().code) == why);
  }
}
