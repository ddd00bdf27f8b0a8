#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace llumnix {

/// Whether somebody who has `held` bytes of a buffer of `all` may have `wanted` more. Half of it is
/// the most, so that one who keeps its bytes for long leaves room for others; but whoever has
/// nothing may have whatever there is, or it would never get on.
bool has_share(std::uint64_t held, std::uint64_t wanted, std::uint64_t all);

/// Which parts of a buffer are in use: the first free one that is large enough is taken, in steps
/// of 256 bytes, and free neighbours are one.
class staging_area {
public:
  explicit staging_area(std::uint64_t bytes);
  /// Where a part of so many bytes begins; nothing while there is no room. Not for no bytes.
  std::optional<std::uint64_t> take(std::uint64_t bytes);
  /// The part that begins there.
  void give_back(std::uint64_t at);
  bool unused() const { return taken_.empty(); }

private:
  std::map<std::uint64_t, std::uint64_t> free_; ///< beginning and size
  std::map<std::uint64_t, std::uint64_t> taken_;
};

} // namespace llumnix
