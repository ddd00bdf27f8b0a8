#pragma once

#include "actors/protocol/kv_messages.hpp"
#include "runtime/base/time.hpp"
#include "runtime/scheduling/prefix_hits.hpp"
#include "runtime/scheduling/prefix_index.hpp"

#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace llumnix {

/// What GATEWAY knows of the prefixes that instances hold, from their engines' own words: whom it
/// has asked, how far each has told, and the index that all of it goes into.
///
/// A word that is missing or makes no sense voids what its instance said before; it is asked anew.
/// A plain value: who sends the questions, and when, is GATEWAY's.
class prefix_watch {
public:
  /// `seed` of the index's hashes.
  explicit prefix_watch(std::uint64_t seed);

  /// These instances run on a node now, and no others do. Those new or started again are asked.
  void on_node(const node_life& life, const std::map<instance_id, llumlet_actor>& instances);
  /// The node's instances are gone, and their caches with them.
  void lose(const node_life& life);

  struct question {
    llumlet_actor to;
    std::uint64_t watch = 0;
  };
  /// Whom to ask now. One whose answer was void is asked again some time after.
  std::vector<question> due(time_point now);
  /// Whom to tell how far it was heard, once in a while.
  struct receipt {
    llumlet_actor to;
    std::uint64_t watch = 0;
    std::uint64_t heard = 0; ///< messages
  };
  std::optional<receipt> hear(const kv_changes_msg& msg);

  /// Who holds how much of a prompt's beginning.
  prefix_hits find(std::span<const token_id> prompt);

  struct counts {
    std::size_t watched = 0;   ///< instances asked
    std::size_t blocks = 0;    ///< known, all instances together
    std::uint64_t evicted = 0; ///< blocks forgotten to make room
    std::uint64_t gaps = 0;    ///< times that what an instance had said became void
  };
  counts count() const;

private:
  struct source {
    node_life life;
    llumlet_actor llumlet;
    std::uint64_t watch = 0;             // of the last question; 0: it is to be asked
    std::uint64_t heard = 0;             // messages of this watch
    time_point asked_next{};             // not before
    std::optional<std::uint32_t> number; // its place in what `match` writes
  };
  void find_places();
  void apply(const instance_id& instance, const kv_changes& changes);
  void forget(std::map<instance_id, source>::iterator at);

  prefix_index index_;
  std::map<instance_id, source> sources_;
  // Sources that have a place in what `match` writes, by id, and which.
  instance_hits::names who_;
  std::vector<std::uint32_t> places_;
  bool places_stale_ = false;
  bool anyone_due_ = false; // may be
  std::uint64_t watches_ = 0;
  std::uint64_t gaps_ = 0;
  std::vector<std::uint32_t> held_; // by number; kept for its memory
};

} // namespace llumnix
