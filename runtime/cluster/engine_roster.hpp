#pragma once

#include "runtime/cluster/discovery.hpp"

#include <cstddef>
#include <map>
#include <vector>

namespace llumnix {

/// An engine of which only the address, HOST:PORT, is known. It is its id too.
discovered_engine engine_at(std::string address);

/// What another list of engines changes. One whose record differs from the known one is gone, and
/// came: it is another engine under the same name.
struct engine_changes {
  std::vector<instance_id> gone;
  std::vector<discovered_engine> came;
  std::size_t left_out = 0; ///< of the list, for there are enough others
};

/// The engines behind HTTP that a gateway serves from, as its discovery told last.
class engine_roster {
public:
  explicit engine_roster(std::size_t engines_max = 1024) : engines_max_{engines_max} {}

  /// Takes the whole list over, ids once. Where it is too long those known already stay.
  engine_changes take(const std::vector<discovered_engine>& list);
  std::size_t size() const { return engines_.size(); }

private:
  std::size_t engines_max_;
  std::map<instance_id, discovered_engine> engines_;
};

} // namespace llumnix
