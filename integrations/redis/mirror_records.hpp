#pragma once

#include "runtime/base/time.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/cluster/recent_waiting.hpp"

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

/// What became known of one instance since it was last looked at: newest values only.
struct mirror_change {

  bool removed = false; ///< deregistered; what follows belongs to a later registration
  std::optional<instance_metadata> metadata;
  std::optional<instance_status> status;
};

/// One command that brings the store closer to what is known.
struct mirror_write {
  enum class type : std::uint8_t { erase, metadata, status };
  type kind = type::erase;
  instance_id id;
  std::uint32_t erase_number = 0; ///< which removal of the instance an `erase` stands for
  std::vector<std::string> words; ///< as Redis takes it
};

/// What the mirror should hold, and which of it the store may lack: a plain value. Memory grows
/// with the instances known, not with the changes; what was removed while there was no link is
/// remembered only as long as its keys can still exist.
///
/// Writes come in batches. A batch takes what is dirty when it begins, each instance once, so a key
/// is written at most once per batch, with the value that is newest then.
class mirror_records {
public:
  explicit mirror_records(std::chrono::seconds expiry) : expiry_{expiry} {}

  void apply(const instance_id& id, mirror_change change, time_point now);
  /// The link is there (again): nothing is certain, everything is to be written. Until `settle`,
  /// removals are remembered although confirmed.
  void mark_all();
  /// Some time after `mark_all`: writes everything once more, because a server that had only been
  /// hung may meanwhile have worked off commands of the lost link, after newer ones of this link.
  void settle();
  /// All metadata is due again, as a heartbeat.
  void mark_metadata();
  /// Forgets removals, and statuses that never had metadata, once their keys have expired.
  void sweep(time_point now);

  /// Whether a batch would find anything to write.
  bool dirty() const { return !dirty_.empty() || !batch_.empty(); }
  std::size_t pending() const { return dirty_.size() + batch_.size(); }
  void begin_batch();
  /// The next command of the batch: for an instance first the removal, then metadata, then status.
  /// A status without metadata waits. Metadata that was written before gets `utc_now` (seconds of
  /// the Unix epoch) as its `utc_update`.
  std::optional<mirror_write> next(double utc_now);
  void confirmed(const mirror_write& write);
  /// The write did not happen or may not have: it is dirty again from the next batch on.
  void failed(const mirror_write& write);

private:
  struct record {
    std::optional<instance_metadata> metadata;
    std::optional<instance_status> status;
    recent_waiting recent; ///< what its statuses told
    bool metadata_dirty = false;
    bool status_dirty = false;
    bool metadata_written = false;
    std::uint32_t erase_wanted = 0; ///< removals so far
    std::uint32_t erase_sent = 0;
    std::uint32_t erase_confirmed = 0;
    time_point touched; ///< by the last change
  };
  std::optional<mirror_write> next_of(const instance_id& id, record& known, double utc_now);

  std::chrono::seconds expiry_;
  std::map<instance_id, record> records_;
  std::set<instance_id> dirty_;
  std::vector<instance_id> batch_; ///< what is left of it, next one last
  std::vector<std::pair<instance_id, mirror_write::type>> failed_;
  bool settling_ = false;
};

} // namespace llumnix
