#pragma once

#include "config/cluster_config.hpp"
#include "runtime/base/error.hpp"
#include "runtime/base/time.hpp"
#include "runtime/serving/request.hpp"
#include "runtime/serving/response_sink.hpp"
#include "runtime/serving/stream_times.hpp"
#include "runtime/serving/tokenizer.hpp"

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace llumnix {

namespace handover {
struct abandon;
struct claim;
struct claim_answer;
struct reclaim;
} // namespace handover
class stream_claims;

/// The instance that runs a stream's request now.
struct stream_owner {
  node_life life;
  instance_id instance;
  friend bool operator==(const stream_owner&, const stream_owner&) = default;
};

/// How a stream ended, for accounts, metrics and the flight record.
struct stream_end {
  stream_ref stream;
  std::string text_id;
  std::string outcome; ///< stop, length, cancelled, failed
  error failure;       ///< when failed
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::uint32_t placements = 0;
  stream_times times{};
};

/// Where a stream stands, for people.
struct stream_info {
  std::string text_id;
  stream_ref stream;
  instance_id instance; ///< empty while it waits for one
  std::string state;    ///< queued, prefilling, running, moving, replaying
  std::uint32_t epoch = 0;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::int64_t age_ms = 0;
  std::string client; ///< address of the client, for people
};

/// What GATEWAY must know of a request whose body the loop itself sends to its engine over HTTP:
/// how much load it is, as far as the loop can tell.
struct relayed_request {
  std::uint32_t prompt_tokens = 0;    ///< an estimate where the engine makes the tokens
  std::uint32_t delivered_tokens = 0; ///< of earlier placements; the next engine reads them again
  std::string why{};                  ///< why the engine before it was left, for the flight record
  bool planned = false; ///< that engine is well: the request is moved from it, and nothing failed
  friend bool operator==(const relayed_request&, const relayed_request&) = default;
};

/// What the streams of a loop ask of the world. A port: messages to the GATEWAY actor in
/// production.
class stream_port {
public:
  virtual ~stream_port() = default;
  /// Find an instance for it and send it there; answered by `placed` or `unplaceable`.
  /// `replay` is true after a loss; `exclude`: instances that just failed it.
  virtual void place(inference_request request, bool replay, std::vector<instance_id> exclude) = 0;
  /// Find an instance for it, and send nothing there: whoever asks does that, once he is told.
  /// `head` carries identity alone: stream, epoch, text id and model; its placement's wishes; and
  /// the prompt, where that is known and a placement may want it.
  /// Only ports that serve a `relay_desk` have it; calling it elsewhere is a bug.
  virtual void place_relayed(
    inference_request head, relayed_request load, bool replay, std::vector<instance_id> exclude);
  /// The stream's request under `epoch` is wanted no longer at `owner`.
  virtual void abort(const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch) = 0;
  /// A placement asked for is wanted no longer.
  virtual void withdraw(std::uint64_t stream, std::uint32_t epoch) = 0;
  /// The owner may produce output tokens below `credit`.
  virtual void
  grant(const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch, std::uint32_t credit)
    = 0;
  /// Does the owner still hold it under `epoch`? Answered by `holds_answer`.
  virtual void ask_holds(const stream_owner& owner, std::uint64_t stream, std::uint32_t epoch) = 0;
  virtual void closed(const stream_end& end) = 0;
};

/// Further wishes for a stream.
struct stream_options {
  std::vector<std::string> stop; ///< stop strings
  bool include_stop = false;     ///< show the stop string that ended it
  bool bounded = true; ///< credit follows `consumed`; false: the whole output is collected anyway
  std::string client;  ///< address of the client, for people
};

/// The streams of one I/O loop: plain values beside their HTTP sessions, confined to the loop's
/// thread. Keeps each in order by epoch and index (spec/migration.md 12.2), replays what lost its
/// owner, and grants credit.
class stream_table {
public:
  /// `self` gives node, incarnation and hub of every stream; `words` and `port` outlive the table.
  stream_table(
    const gateway_config& config, stream_ref self, const tokenizer& words, stream_port& port);
  ~stream_table();

  /// Opens a stream and asks for its first placement. Fills the request's `stream`, `epoch` and
  /// `credit`. `sink` must stay until the stream ended or `cancel` returned. Returns the stream's
  /// number.
  std::uint64_t
  open(inference_request request, stream_options options, response_sink& sink, time_point now);
  /// The client has taken `tokens` more tokens off our hands (written to its socket).
  void consumed(std::uint64_t stream, std::uint32_t tokens, time_point now);
  /// The stream is wanted no longer, `why` is for the flight record: `errc::cancelled` ends it as
  /// cancelled, any other code as failed. The sink hears nothing further. Unknown streams are
  /// ignored.
  void cancel(
    std::uint64_t stream, time_point now, error why = {errc::cancelled, "the client went away"});

  /// A batch of deltas (`step_batch` bytes) from an instance of a node life. Calls `flush` of each
  /// sink it updated, once.
  void on_batch(
    const node_life& from, const instance_id& instance, const std::vector<char>& bytes,
    time_point now);
  void
  on_placed(std::uint64_t stream, std::uint32_t epoch, const stream_owner& owner, time_point now);
  /// No instance could be had in time, or the request can never be served.
  void on_unplaceable(std::uint64_t stream, std::uint32_t epoch, const error& why, time_point now);
  /// The instance refused it; it is placed anew elsewhere unless the refusal is final.
  void on_refused(
    std::uint64_t stream, std::uint32_t epoch, const instance_id& by, const error& why,
    time_point now);
  /// Somebody wants requests ended that are at one of these instances. Their sinks hear why.
  void end_requests(
    const std::vector<std::string>& text_ids, const std::vector<instance_id>& at, const error& why);
  /// A node life ended, and those before it: their streams are replayed, and they claim none any
  /// more.
  void on_node_lost(const node_life& life, time_point now);
  /// A node life is connected, perhaps again: it may claim. Those before it stay lost.
  void on_node_back(const node_life& life);
  /// `from`: the owner that was asked. What an earlier owner says is ignored.
  void on_holds_answer(
    const stream_owner& from, std::uint64_t stream, std::uint32_t epoch, bool holds,
    time_point now);
  /// May the claimant go on with the stream? Granted, it is the owner from now on. The answer is
  /// final: asked again, the same (`stream_claims`).
  handover::claim_answer on_claim(const handover::claim& claim, time_point now);
  handover::claim_answer on_reclaim(const handover::reclaim& claim, time_point now);
  /// The claimant has let go of it and said nothing.
  void on_abandon(const handover::abandon& what, time_point now);
  /// Its owner hands it over, or has tried to and keeps it: for `list`. What is said of another
  /// epoch than the present one is ignored: whoever takes a stream over raises that.
  void on_moving(std::uint64_t stream, std::uint32_t epoch, bool on);
  /// Whoever was asked for placements has forgotten: asks again for each stream without an owner.
  void place_again(time_point now);
  /// Call about every 100 ms: asks silent owners.
  void sweep(time_point now);

  std::size_t size() const { return streams_.size(); }
  std::vector<stream_info> list(time_point now) const;

private:
  struct entry;
  /// What is known to be over of a node's lives.
  struct loss {
    std::uint64_t incarnation = 0; ///< of the last life that is over
    std::uint64_t order = 0;       ///< the later heard of, the higher
  };
  using entries = std::unordered_map<std::uint64_t, std::unique_ptr<entry>>;
  void
  request_placement(entry& stream, bool replay, std::vector<instance_id> exclude, time_point now);
  void replay(entry& stream, std::vector<instance_id> exclude, time_point now);
  entry* find(const stream_ref& stream);
  stream_claims& claims_of(entry& stream);
  template <class Claim>
  handover::claim_answer answer(const Claim& claim, time_point now);
  void hear(const stream_owner& sender, const token_delta& delta, time_point now);
  void hear_held(std::uint64_t stream, time_point now);
  void gap(entry& stream, const token_delta& delta, time_point now);
  void take_back(entry& stream, time_point now);
  void note_lost(const node_life& life);
  bool is_lost(const node_life& life) const;
  void accept(
    entry& stream, const token_delta& delta, std::size_t skip, std::size_t take, bool ends,
    time_point now);
  void grant_more(entry& stream);
  void finish(std::uint64_t stream, std::string outcome, const error& failure);
  void fail(entry& stream, const error& why);

  gateway_config config_;
  stream_ref self_;
  const tokenizer& words_;
  stream_port& port_;
  entries streams_;
  std::uint64_t next_ = 0;
  std::unordered_map<std::string, loss> lost_; ///< by node; the oldest are forgotten
  std::uint64_t losses_ = 0;
  std::vector<response_sink*> touched_; ///< sinks of the batch being read, to be flushed
};

} // namespace llumnix
