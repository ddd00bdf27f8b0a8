#pragma once

#include "runtime/engine/moving.hpp"
#include "tests/engine/engine_fixture.hpp"

namespace llumnix::testing {

/// Two engines, and the bytes between them copied by hand.
struct moving_fixture {
  explicit moving_fixture(
    engine_config from = engine_fixture::small(), engine_config to = engine_fixture::small());

  /// Pins the stream at the source, and takes room for it at the destination.
  errc begin(std::uint64_t number, std::uint32_t headroom = 40);
  /// Copies the bytes of what was written since, whole blocks, and says that it landed.
  errc round();
  /// Only the bytes, from the block of position `from` to that of the last before `to`.
  void copy(std::uint32_t from, std::uint32_t to);
  /// Stops it at the source, moves the rest, and starts it at the destination under the next epoch.
  /// Tokens from `sent` on count as not told. `tail`: the rest is copied, not computed.
  errc finish(std::uint32_t sent, bool tail = true);
  errc finish() { return finish(told()); }
  /// All ids of the request moved, as of the last look.
  std::vector<token_id> ids() const;
  /// Output tokens the source has told.
  std::uint32_t told() { return static_cast<std::uint32_t>(source.streams[number].tokens.size()); }
  /// What the client of the moved stream has received from both.
  engine_fixture::received client();
  /// Both engines free of requests, pins and rooms.
  bool idle() const;

  engine_fixture source, destination;
  moving_requests& out;
  moving_requests& in;
  handover_id id{7, 1};
  std::uint64_t number = 0;
  leaving_request leaving; ///< as last looked at
  arriving_room room;
};

/// One engine and its moves.
struct engine_with_moves : engine_fixture {
  explicit engine_with_moves(engine_config how = small());
  /// An engine of so many blocks.
  static engine_config few_blocks(std::uint32_t blocks, bool poison = false);
  /// Submits a prompt of so many letters.
  void start(std::uint64_t number, std::size_t length, std::uint32_t max_tokens = 30);
  /// Whether that stream received what it must.
  bool right(std::uint64_t number, std::size_t length, std::uint32_t max_tokens = 30);
  /// Whether the bytes of all positions written are those of the ids.
  bool readable(const leaving_request& leaving);
  std::uint32_t free() const { return engine->blocks().free(); }

  moving_requests& moves;
  handover_id id{1, 1};
};

/// `errc::ok`, or what went wrong.
template <class T>
errc code_of(const result<T>& answer) {
  return answer ? errc::ok : answer.error().code;
}

} // namespace llumnix::testing
