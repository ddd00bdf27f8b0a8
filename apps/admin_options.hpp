#pragma once

#include "apps/admin_client.hpp"

namespace CLI {
class App;
}

/// What the commands that talk to a running cluster have in common.
namespace llumnix {

struct admin_options {
  admin_endpoint endpoint;
  bool json = false; ///< the document alone, as it came
};
void add_admin_options(CLI::App& command, admin_options& options);

/// Says on stderr why there is no answer, and what can be done about it. Returns the exit code.
int explain(const admin_endpoint& endpoint, const error& failure);

} // namespace llumnix
