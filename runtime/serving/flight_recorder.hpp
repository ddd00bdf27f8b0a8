#pragma once

#include "runtime/base/time.hpp"
#include "runtime/scheduling/decision.hpp"

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llumnix {

/// How long a request took, ms, and what was predicted when it was placed: of one that stayed where
/// it was first sent.
struct flight_times {
  std::optional<double> placed_ms;         ///< from its arrival until it was sent to an instance
  std::optional<double> ttft_ms;           ///< from its arrival to its first token
  std::optional<double> tpot_ms;           ///< for each token after the first
  std::optional<double> predicted_ttft_ms; ///< from `placed_ms` on
  std::optional<double> predicted_tpot_ms;

  /// Measured less predicted.
  std::optional<double> ttft_error_ms() const;
  std::optional<double> tpot_error_ms() const;
};

/// Something that happened to a request.
struct flight_event {
  unix_ms at = 0;
  std::string kind; ///< placed, decode_placed, replayed, waiting, moved, finished, ...
  instance_id instance;
  std::uint32_t epoch = 0;
  placement_reasons reasons; ///< of a placement
  std::string note;          ///< outcome or error, for people
  flight_times times{};      ///< of what finished
};

/// What is remembered of one request (of one choice).
struct flight_record {
  std::string text_id;
  bool ended = false;
  /// Oldest first; at most `max_events`: in place of more, one in the middle, `left_out`, says how
  /// many.
  std::vector<flight_event> events;
  std::uint32_t left_out = 0;
  static constexpr std::size_t max_events = 64;

  void add(flight_event event);

private:
  void leave_one_out();
};

/// The last things that happened to requests, by text id: all that run, and a bounded number that
/// ended. A plain value; GATEWAY keeps one.
class flight_recorder {
public:
  explicit flight_recorder(std::size_t ended_max) : ended_max_{ended_max} {}

  /// Adds to the request's record; one that ended under the same id is another.
  void note(const std::string& text_id, flight_event event);
  /// The same, of a request that may have ended meanwhile; nothing where none is known.
  void note_late(const std::string& text_id, flight_event event);
  /// The last `placed` event of a request that has not ended; null: there is none.
  const flight_event* placed(const std::string& text_id) const { return last(text_id, "placed"); }
  /// The last event of that kind of a request that has not ended; null: there is none.
  const flight_event* last(const std::string& text_id, std::string_view kind) const;
  /// The last event; from now on the record may be dropped to make room.
  void end(const std::string& text_id, flight_event event);
  /// The latest records of a request: its own and those of its further choices ("ID.1") and
  /// namesakes ("ID-2"), by id. Looks at every record.
  std::vector<flight_record> find(const std::string& id) const;
  std::size_t size() const { return running_.size() + ended_.size(); }

private:
  std::unordered_map<std::string, flight_record> running_; ///< by text id, which they do not hold
  std::deque<flight_record> ended_;                        ///< oldest first
  std::size_t ended_max_;
};

/// The last things that happened to requests whose end may never be told: a bounded number of
/// requests, in the order in which they were first heard of. A plain value; SCHEDULER keeps one of
/// what foreign gateways have placed.
class recent_flights {
public:
  explicit recent_flights(std::size_t requests_max) : requests_max_{requests_max} {}

  /// Adds to the request's record, and begins one where there is none.
  void note(const std::string& text_id, flight_event event);
  /// The same, but nothing where no record is kept.
  void note_known(const std::string& text_id, flight_event event);
  /// As `flight_recorder::find`.
  std::vector<flight_record> find(const std::string& id) const;
  /// Whether anything would be kept.
  bool keeps() const { return requests_max_ > 0; }
  std::size_t size() const { return records_.size(); }

private:
  std::size_t requests_max_;
  std::unordered_map<std::string, flight_record> records_; ///< by text id, which they do not hold
  std::deque<std::string> order_;                          ///< oldest first
};

} // namespace llumnix
