#pragma once

#include "integrations/discovery/discovery_log.hpp"
#include "integrations/discovery/network_filter.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/discovery.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// Which records a store of them is believed.
struct record_rules {
  std::chrono::milliseconds expiry{60000}; ///< a record not renewed for this long is dead
  std::string role = "neutral";            ///< of the engines that are used; "all": any
  network_filter networks;                 ///< that engines lie in
};

/// Bounds of one reading of a store; what is beyond them, in the order of names, is left out.
inline constexpr std::size_t records_max = 4096;
inline constexpr std::size_t records_bytes_max = 32u << 20;

/// The records of a store by the names of their pods, and which of them are alive. Knows no clock:
/// it is told how time passed while the store answered.
///
/// A record is alive until it was left unchanged for `expiry`. Renewed is what changes, whatever
/// time its writer thinks it is. The writers' clocks are believed once only, for the records of the
/// first reading, of which nothing else tells how old they are. So clocks that are apart kill
/// nobody (a record whose writer is behind by more than `expiry` shows with its first renewal), and
/// a record that somebody keeps from vanishing but nobody renews dies. No record dies of an outage
/// of the store, during which it cannot be renewed.
class pod_ledger {
public:
  explicit pod_ledger(record_rules rules) : rules_{std::move(rules)} {}

  /// All records of the store, by pod. A pod without one is gone; but a store without any that had
  /// some has lost them, and its pods live on until they expire or are written again.
  void read(const std::map<std::string, std::string>& records, unix_ms utc_now);
  /// One record was written.
  void put(const std::string& pod, std::string_view bytes);
  /// One record was removed by somebody, or by the end of its lease.
  void remove(const std::string& pod);
  /// So much time passed in which the store answered.
  void pass(nanoseconds time);

  /// The engines of the living, ordered by id. Where two pods have the same address, the one that
  /// came last has it.
  std::vector<discovered_engine> alive() const;
  /// Pods whose record the store holds.
  std::size_t held() const;
  /// Something is wrong with a record: said and counted, once.
  void object(std::string sentence);
  /// How much was.
  std::uint64_t problems() const { return problems_; }

private:
  struct entry {
    std::uint64_t digest = 0; // of its bytes
    nanoseconds unchanged{0}; // while the store answered
    bool lost = false;        // with all the others
    std::uint64_t came = 0;   // when its engines became what they are: a count
    unix_ms timestamp = 0;    // then
    std::vector<discovered_engine> engines;
  };
  void take(const std::string& pod, std::string_view bytes, std::optional<unix_ms> first_seen);
  std::vector<discovered_engine>
  read_engines(const std::string& pod, std::string_view bytes, unix_ms& timestamp);
  bool wanted(const std::string& pod, const discovered_engine& engine);

  record_rules rules_;
  std::map<std::string, entry> entries_;
  bool has_read_ = false;
  std::uint64_t changes_ = 0;
  once_only objected_;
  std::uint64_t problems_ = 0;
};

} // namespace llumnix
