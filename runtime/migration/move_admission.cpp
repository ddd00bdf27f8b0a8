#include "runtime/migration/move_admission.hpp"

#include "runtime/migration/destination_machine.hpp"

namespace llumnix {

result<void> may_arrive(const handover::offer& offer, const arrival_facts& there) {
  if (!there.geometry || offer.destination != there.self)
    return {errc::stale, "that life of the instance is over"};
  if (there.draining)
    return {errc::draining, "it is being drained"};
  if (!offer.to_decode && there.arriving >= there.in_slots)
    return {
      errc::queue_full,
      "all " + std::to_string(there.in_slots) + " of migration.in_slots are taken there"};
  if (offer.path == move_path::kv && !there.copies_kv)
    return {errc::unsupported, "no KV can be copied there"};
  if (!there.knows_gateway)
    return {errc::unreachable, "the stream's gateway is not connected there"};
  return compatible(offer, *there.geometry);
}

} // namespace llumnix
