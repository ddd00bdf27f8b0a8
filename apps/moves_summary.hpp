#pragma once

#include "apps/admin_client.hpp"

#include <cstddef>

namespace llumnix {

/// What became of the requests of one `migrate`, counted.
struct moves_summary {
  std::size_t moved = 0;
  std::size_t there = 0; ///< already, when others of them were not
  std::size_t finished = 0;
  std::size_t refused = 0;
  std::size_t failed = 0;
  friend bool operator==(const moves_summary&, const moves_summary&) = default;
};

/// Whether nothing was tried because the request was at its destination already.
bool was_there(const admin_document& move);
/// `answer`: the document with all the moves (spec/surface.md 3).
moves_summary summary_of(const admin_document& answer);
/// A script wants to know whether what it asked for has come about. It has where the last of
/// several choices joined the others; that all were there already is none of what was asked for.
int exit_code_for(const moves_summary& moves);

} // namespace llumnix
