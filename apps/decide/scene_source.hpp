#pragma once

#include <cstddef>
#include <deque>
#include <istream>
#include <optional>
#include <string>

namespace llumnix {

/// The texts of scenes in a file: the whole of it, if that is one JSON value, else its lines.
///
/// Lines come as they are read, so a program may ask scene by scene over a pipe; a scene spread
/// over lines is read to the end of the file. Blank lines are no scenes. Memory is bounded by
/// `size_max`, whatever the file holds.
class scene_source {
public:
  /// What is longer than `size_max` bytes comes cut to one byte more.
  scene_source(std::istream& from, std::size_t size_max) : from_{from}, size_max_{size_max} {}

  /// The next text, or nothing at the end.
  std::optional<std::string> next();

private:
  std::optional<std::string> next_line();
  std::string first(std::string line);

  std::istream& from_;
  std::size_t size_max_;
  bool begun_ = false;
  bool ended_ = false;              ///< nothing of the rest is looked at
  std::deque<std::string> waiting_; ///< lines that were read to find out what the file is
};

} // namespace llumnix
