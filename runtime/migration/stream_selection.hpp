#pragma once

#include "runtime/base/result.hpp"
#include "runtime/migration/request_selection.hpp"
#include "runtime/serving/stream_table.hpp"

#include <vector>

namespace llumnix {

/// Those of `streams` at an engine behind HTTP that a selection means, in its order. Such an engine
/// tells of its requests in numbers alone; what all gateways together have there tells which. How
/// much KV it holds is not known: a selection by RATIO is `unsupported`.
result<std::vector<stream_info>> select_streams(
  const instance_id& from, const request_selection& wanted, std::vector<stream_info> streams);

} // namespace llumnix
