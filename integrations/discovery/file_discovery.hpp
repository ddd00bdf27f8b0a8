#pragma once

#include "integrations/discovery/merge_lists.hpp"
#include "runtime/base/executor.hpp"
#include "runtime/base/result.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/discovery.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace llumnix {

inline constexpr std::size_t list_bytes_max = 1024 * 1024;

/// By what a file that was written or replaced differs from what it was.
struct file_stamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;      ///< bytes
  std::int64_t written_ns = 0; ///< Unix time, of its content
  std::int64_t changed_ns = 0; ///< of anything about it
  bool operator==(const file_stamp&) const = default;
};

/// When to read a file that is looked at again and again: not before two looks in a row found the
/// same stamp, so that it is not read while somebody writes it, and what is written after that
/// shows in another stamp. Only the first reading is not waited for.
class file_watch {
public:
  enum class step { rest, look_soon, read };
  /// The file has this stamp now.
  step look(const file_stamp& now);
  /// It was read, and had that stamp before and after.
  void on_read(const file_stamp& under);
  /// It is not there: whatever comes is new.
  void on_trouble();

private:
  std::optional<file_stamp> seen_;
  std::optional<file_stamp> read_; // for good
  bool first_ = true;
};

/// Engines in files (`read_engine_list`), looked at every `interval`. A file that is missing, too
/// long or has a mistake leaves its last good list in force, and says so once. Symbolic links are
/// followed, so that a mounted ConfigMap shows its changes.
class file_discovery final : public discovery {
public:
  file_discovery(
    std::vector<std::string> paths, std::chrono::milliseconds interval, executor& loop);

  void start(listener told) override { told_ = std::move(told); }
  void tick() override;
  discovery_health health() const override;

private:
  struct file {
    std::string path;
    file_watch watch;
    bool in_doubt = true; ///< look again with the next tick
    bool well = false;    ///< the list is what the file says
    std::string trouble;  ///< as was said; empty: none
  };
  void look(std::size_t which);
  void read(std::size_t which, const file_stamp& stamp);
  void take_trouble(file& of, std::string what); ///< with reaching it
  void take_mistake(file& of, std::string what);
  void tell();

  std::chrono::milliseconds interval_;
  executor& loop_;
  listener told_;
  std::vector<file> files_;
  std::vector<std::vector<discovered_engine>> lists_; ///< by file, the last good ones
  std::vector<discovered_engine> engines_;
  bool changed_ = false; ///< any file, since last told
  bool told_once_ = false;
  time_point due_{};
  std::optional<time_point> well_at_; ///< all files
  std::uint64_t errors_ = 0;
};

} // namespace llumnix
