#pragma once

#include "runtime/cluster/cluster_view.hpp"
#include "runtime/serving/stream_table.hpp"

#include <cstddef>
#include <map>
#include <set>
#include <vector>

namespace llumnix {

/// A request that is to go to another instance.
struct drain_move {
  stream_ref stream;
  stream_owner to;
  friend bool operator==(const drain_move&, const drain_move&) = default;
};

/// Which requests of an instance go where while it is emptied (spec/migration.md 11): a plain value
/// that is told what runs, what the cluster looks like and how moves ended.
///
/// The longest request goes first, to the instance of the same role that takes work and has the
/// least of its KV in use. Requests that a prefill instance computes leave it by themselves; those
/// that decode there all the same go to decode instances. Never more at a time than have free slots
/// at both ends, as far as those are told. What an instance did not take is offered to another one,
/// after a pause that doubles from 50 ms to 1 s with each failure.
class drain_plan {
public:
  explicit drain_plan(instance_id source) : source_{std::move(source)} {}

  /// What is to be sent now; it counts as under way until `on_ended`. `streams`: all that is known
  /// of; those of other instances are passed over, and what is not listed any more is forgotten.
  std::vector<drain_move>
  next(const cluster_view& view, const std::vector<stream_info>& streams, time_point now);
  /// A move has ended: the request is elsewhere or nowhere now, or (`succeeded` false) still here;
  /// then it is tried again, elsewhere if possible.
  void on_ended(const stream_ref& stream, bool succeeded, time_point now);
  /// A move was refused, and nobody else could take the request either: it ends where it is.
  void on_stays(const stream_ref& stream);
  /// Moves that were sent and have not ended.
  std::size_t under_way() const { return under_way_; }

private:
  struct destination;
  struct request {
    std::uint32_t tokens = 0; ///< prompt and output
    stream_owner to;          ///< while it is under way
    bool under_way = false;
    bool stays = false;
    std::set<instance_id> refused; ///< by whom, since everybody has had a turn
    std::uint32_t failures = 0;
    time_point due{};
  };

  void take_in(const std::vector<stream_info>& streams, bool prefills);
  std::vector<destination> destinations(const cluster_view& view, const std::string& role) const;
  destination* choose(std::vector<destination>& all, request& wanted) const;

  instance_id source_;
  std::map<stream_ref, request> requests_;
  std::size_t under_way_ = 0;
};

} // namespace llumnix
