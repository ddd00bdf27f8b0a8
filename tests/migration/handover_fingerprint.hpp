#pragma once

#include "tests/migration/handover_model.hpp"

namespace llumnix {

/// Numbers that tell values apart, for a search that wants no state twice. Times count from the
/// clock of whose they are.
struct handover_fingerprint {
  std::uint64_t value = 0x9E3779B97F4A7C15ull;

  void add(std::uint64_t x) {
    value ^= x + 0x9E3779B97F4A7C15ull + (value << 6) + (value >> 2);
    value *= 0xBF58476D1CE4E5B9ull;
    value ^= value >> 31;
  }
  void add(const handover_id& id) { add(id.low); }
  void add(const stream_owner& who) {
    add(static_cast<std::uint64_t>(who.instance.empty() ? 0 : who.instance.back()));
    add(who.life.incarnation);
  }
  void add_time(time_point at, time_point clock) {
    add(static_cast<std::uint64_t>((at - clock).count()));
  }
  void add_flags(std::initializer_list<bool> flags) {
    std::uint64_t bits = 1;
    for (bool flag : flags)
      bits = bits * 2 + (flag ? 1 : 0);
    add(bits);
  }

  void add(const source_machine& x, time_point clock);
  void add(const destination_machine& x, time_point clock);
  void add(const stream_claims& x, time_point clock);
  void add(const model::payload& what);
};

} // namespace llumnix
