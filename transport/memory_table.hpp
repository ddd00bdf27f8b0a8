#pragma once

#include "transport/kv_transport.hpp"

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <vector>

namespace llumnix {

/// What a transport may touch: the regions of its process, and the windows through which peers read
/// them. Used from any thread.
class memory_table {
public:
  using region_id = kv_transport::region_id;
  /// The right to read under a window; while one is held the window does not count as closed. The
  /// last one to go after `close` calls what `close` was given, wherever that happens: let go of it
  /// outside of locks.
  using permit = std::shared_ptr<const void>;
  struct readable {
    kv_memory memory;
    permit under;
  };

  /// `invalid_argument` for no bytes, or for what is not its device's: that is no region.
  static result<void> check(const kv_memory& memory);
  /// Likewise.
  result<region_id> add(kv_memory memory);
  std::optional<kv_memory> find(region_id region) const;
  /// No read of it begins any more.
  void remove(region_id region);

  void open(region_id region, const handover_id& key);
  void close(const handover_id& key, std::function<void()> closed);
  /// Nothing without a window of that key on that region.
  std::optional<readable> begin_read(region_id region, const handover_id& key) const;

private:
  struct window {
    ~window() {
      for (auto& call : closed)
        call();
    }
    std::set<region_id> regions;
    std::vector<std::function<void()>> closed;
  };
  struct entry {
    std::shared_ptr<window> open;    ///< none once closed
    std::weak_ptr<window> under_way; ///< the same, as long as somebody reads
  };

  mutable std::mutex mutex_;
  region_id last_region_ = 0;
  std::map<region_id, kv_memory> regions_;
  std::map<handover_id, entry> windows_;
};

} // namespace llumnix
