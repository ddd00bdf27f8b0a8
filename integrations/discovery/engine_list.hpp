#pragma once

#include "runtime/cluster/discovery.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

/// What is wrong with a line of a list of engines.
struct list_problem {
  std::size_t line = 0; ///< counted from 1
  std::string sentence;
  bool operator==(const list_problem&) const = default;
};

/// A list of engines as read.
struct engine_list {
  std::vector<discovered_engine> engines; ///< ordered by id, which is the address
  std::vector<list_problem> problems;     ///< a few at most
};

/// Reads engines separated by commas or ends of lines, each
///
///     [OPTION=VALUE;OPTION=VALUE...@]HOST[:PORT]
///
/// where HOST is a name, an IPv4 address or an IPv6 address in brackets, the port is 80 unless
/// told, and `http://` in front of HOST is passed over. Options: `type` (neutral, prefill, decode),
/// `model`, `aux` (HOST:PORT for KV), `dp` (RANK/SIZE). From '#' to the end of its line is a
/// comment. An address that is there twice is a problem, as is an option that is not known.
engine_list read_engine_list(std::string_view text);

} // namespace llumnix
