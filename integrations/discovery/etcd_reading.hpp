#pragma once

#include "integrations/discovery/etcd_messages.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// The pod whose key this is; empty if it is no key of a record.
std::string_view pod_of_etcd_key(std::string_view key);

/// A reading of all records of an etcd, page by page, all as of one revision. A page whose answer
/// would be too long, because of somebody's huge values, is asked for again in smaller ones.
class etcd_reading {
public:
  /// The body of the next request.
  std::string next() const;
  /// Takes its answer; whether that was the last. `bad_message` for an answer that does not go on
  /// where the last one ended.
  result<bool> take(etcd::range_reply page);
  /// Its answer was too long; false if it cannot be made shorter.
  bool shrink();

  std::map<std::string, std::string> bytes_of_pod;
  std::int64_t revision = 0; ///< of the store
  std::int64_t newest = 0;   ///< revision that wrote the newest of the records
  /// With what was left out: beyond `records_max` or `records_bytes_max`, or no record.
  std::vector<std::string> problems;

private:
  void keep(etcd::record record);

  std::string from_; // a key
  std::size_t page_records_ = page_records_max;
  std::size_t bytes_ = 0;
  static constexpr std::size_t page_records_max = 64;
};

/// Whether a watch still tells everything, judged by probes that ask for the same through the front
/// door: a proxy may hold back what it should pass on, or a connection be dead without a word.
class watch_doubt {
public:
  /// What a probe found, and what the watch has told by now: the newest write, and how many records
  /// there are. True if the watch must be given up.
  bool lags(
    std::int64_t newest_there, std::size_t count_there, std::int64_t newest_told,
    std::size_t count_told);

private:
  std::int64_t expected_ = 0; // to be told by the time of the next probe
  int miscounts_ = 0;         // in a row
};

} // namespace llumnix
