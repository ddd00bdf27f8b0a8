#pragma once

#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"
#include "runtime/migration/handover.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace llumnix {

class kv_device; // transport/kv_device.hpp

/// Where a region's bytes are: memory of the host, which is all a caller without GPU says, or of a
/// device.
struct kv_memory {
  std::span<std::byte> bytes; ///< of a device: not to be touched by the CPU
  std::shared_ptr<kv_device> device;

  kv_memory() = default;
  template <class Bytes>
  requires std::convertible_to<Bytes, std::span<std::byte>>
  kv_memory(Bytes&& all, std::shared_ptr<kv_device> of = nullptr)
    : bytes{std::forward<Bytes>(all)}, device{std::move(of)} {}
};

/// A stretch of bytes to pull: offsets into the source's region and into ours.
struct kv_span {
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint64_t bytes = 0;
  friend bool operator==(const kv_span&, const kv_span&) = default;
};

/// Pairs of blocks as spans, neighbours on both sides merged, each cut at `bytes_max`. Lists of one
/// length.
std::vector<kv_span> spans_of(
  std::span<const std::uint32_t> source_blocks, std::span<const std::uint32_t> own_blocks,
  std::uint64_t block_bytes, std::uint64_t bytes_max = 1 << 20);

/// The bytes of positions [from, to) of a request on both sides, neighbours merged. The block
/// tables cover them.
std::vector<kv_span> spans_of_positions(
  std::uint32_t from, std::uint32_t to, std::span<const block_index> source_blocks,
  std::span<const block_index> own_blocks, const kv_geometry& geometry);

/// Numbers, since the start.
struct kv_transport_counters {
  std::uint64_t jobs = 0;
  std::uint64_t failed = 0;
  std::uint64_t cancelled = 0;
  std::uint64_t bytes_in = 0;  ///< landed here
  std::uint64_t bytes_out = 0; ///< read from here
  std::uint64_t bad_checksums = 0;
  std::uint64_t refused = 0;      ///< requests without an open window
  std::uint64_t bytes_direct = 0; ///< of `bytes_in`: read out of another process by ourselves
};

/// KV TRANSPORT port: moves bytes between the KV memory of engines. The destination pulls
/// (spec/kv_transfer.md 12); the source only opens and closes windows.
///
/// Callbacks run on a thread of the transport's own, or inside the call; they return at once and
/// call nothing of the port. Every function may be called from any thread.
class kv_transport {
public:
  using region_id = std::uint32_t;
  using job_id = std::uint64_t; ///< never 0
  virtual ~kv_transport() = default;

  /// Memory that may be pulled from and into. It stays until `forget` returned. Bytes of a device
  /// pass through pinned memory of a bounded size, made with its first region; `invalid_argument`
  /// for what is not the device's.
  virtual result<region_id> add_region(kv_memory memory) = 0;
  /// No byte of it is touched after the return: jobs into it have ended (`cancelled`), windows on
  /// it are closed and readers gone. May wait for them, a second at most; unknown regions are
  /// ignored.
  virtual void forget(region_id region) = 0;
  /// What a peer needs to pull from the region: opaque, printable, below 1 KiB; of this life of the
  /// process alone.
  virtual std::string address(region_id region) const = 0;

  /// From now on whoever knows `key` may read the region. The key travels in the offer: it is the
  /// hand-over's id. One key may open several regions; opening twice is opening once.
  virtual void open_window(region_id region, const handover_id& key) = 0;
  /// No read under `key` begins any more, in any region; `closed` is called once none is under way,
  /// inside the call if that is now. A reader that hangs is cut off, so `closed` always comes.
  virtual void close_window(const handover_id& key, std::function<void()> closed) = 0;

  /// How a job ended; exactly one for each.
  struct outcome {
    error why; ///< `ok`; unreachable, timeout, cancelled, stale (no window), bad_message
               ///< (checksum), invalid_argument (address, region, spans), queue_full (too many
               ///< jobs), internal (a device failed)
    std::uint64_t bytes = 0; ///< landed; all of them with `ok`, of which spans is open otherwise
  };
  /// Reads `spans` from `from` (an `address` of a peer) into our region, within `deadline` from
  /// now. Spans out of either region: `invalid_argument`; where they overlap in ours, either's
  /// bytes stand. After `done` no byte lands any more, whatever the outcome; with `ok` all of them
  /// are there for whatever the device is told next. `done` may come inside the call, before its id
  /// is known.
  virtual job_id pull(
    const std::string& from, const handover_id& key, region_id into, std::vector<kv_span> spans,
    nanoseconds deadline, std::function<void(outcome)> done)
    = 0;
  /// Ends a job early: its `done` comes, with `cancelled` unless it had ended, once no byte can
  /// land. Other jobs go on. Unknown jobs are ignored.
  virtual void cancel(job_id job) = 0;

  virtual kv_transport_counters counters() const = 0;
};

} // namespace llumnix
