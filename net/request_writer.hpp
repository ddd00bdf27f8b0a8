#pragma once

#include "net/upstream_pool.hpp"
#include "runtime/base/result.hpp"

#include <string>

namespace llumnix::net {

/// Appends the head of a request to `out`, up to its body. `host`, `connection`, `content-length`
/// and `transfer-encoding` among the headers are replaced by what is true. Fails with
/// `invalid_argument`, and may leave a part in `out`, if the method, the target or a header holds
/// what would end it early: whoever chose it could write a request of his own. The address is the
/// caller's to check.
result<void> append_head(std::string& out, const upstream_request& request, bool keep_alive);

} // namespace llumnix::net
