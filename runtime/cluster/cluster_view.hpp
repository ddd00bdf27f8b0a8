#pragma once

#include "runtime/cluster/instance.hpp"
#include "runtime/cluster/request_lists.hpp"

#include <map>
#include <memory>
#include <string>

namespace llumnix {

/// One instance as a view knows it.
struct instance_view {
  instance_metadata metadata;
  instance_status status;
  node_life life; ///< of the node its llumlet lives on; that of a foreign instance names no node
  std::string engine; ///< what runs it, for people: "modeled a10.llama-7b.tp1.osdi24"
  instance_state state = instance_state::ready;
  bool has_status = false;                       ///< a status has been taken over at least once
  std::shared_ptr<const request_lists> requests; ///< null: only their number is known

  /// Whether only a store tells of it: no node of ours has a llumlet for it, so that nothing but
  /// its HTTP endpoint can be given work. Its life counts how often it was born, as far as that
  /// shows.
  bool foreign() const { return life.node.empty(); }
};

/// How far back the version of a newer status jumps at least when its writer has started again:
/// more than reports that overtake each other explain, which are a few. A writer whose first life
/// was shorter has passed its old version after as many updates (spec/cms.md, weakness 1).
inline constexpr std::int32_t restart_jump = 16;

/// How far back the time of a newer version jumps at least when its writer's clock was set back:
/// until it caught up, every status of it would be ignored (spec/cms.md, weakness 9).
inline constexpr unix_ms clock_jump_ms = 10'000;

/// How far a writer's clock may be ahead. What says it was written later than that counts as written
/// now: else its writer would seem alive for as long as its clock is ahead, and its next status, by
/// a clock that was mended, would be ignored.
inline constexpr unix_ms clock_ahead_ms = 1'000;

/// What a status did to the view (spec/cms.md 2.2, gates 1 and 2).
enum class status_effect : std::uint8_t {
  ignored,   ///< unknown instance, or not newer than what is stored
  heartbeat, ///< only time and schedulability were taken over
  replaced,  ///< the whole body was
};

/// What is known of every instance: a plain value, ordered by id, fed by whoever hears of changes.
/// Each process that places requests or serves inspection keeps a replica of its own.
class cluster_view {
public:
  /// Adds or refreshes an instance. A new life of its node, or a new start of its llumlet
  /// (utc_create), forgets the status of the earlier one, so that the next status is taken over
  /// whatever its numbers; a lower incarnation than known is ignored (false).
  bool put(const instance_metadata& metadata, const node_life& life, std::string engine = {});
  /// Takes a status over through the gates of spec/cms.md 2.2. A version that is `restart_jump` or
  /// more below the one known, written later, is that of a writer that has started again under the
  /// same name: its body replaces the other. So does that of a writer that counts no versions (0).
  /// A newer version that says it is older by `clock_jump_ms` or more is taken, too.
  status_effect update(const instance_status& status);
  /// When a status that is heard now was written, by this clock: after the one before it, where its
  /// writer says so.
  unix_ms written_at(const instance_status& status, unix_ms now) const;
  /// Marks the instance; unknown ids are ignored. Anything but `ready` keeps it from being chosen.
  void set_state(const instance_id& id, instance_state state);
  /// Marks every instance of this node life (and of earlier lives) `lost`, but for those that have
  /// stopped.
  void lose(const node_life& life);
  void remove(const instance_id& id);

  const instance_view* find(const instance_id& id) const;
  instance_view* find(const instance_id& id);
  const std::map<instance_id, instance_view>& instances() const { return instances_; }
  /// Grows with every change; decisions say which version they saw.
  std::uint64_t version() const { return version_; }

private:
  std::map<instance_id, instance_view> instances_;
  std::uint64_t version_ = 0;
};

} // namespace llumnix
