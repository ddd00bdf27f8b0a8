#pragma once

#include "gateway/scheduler_api/scheduling_request.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::scheduler_api {

/// An instance as replies tell of it.
struct told_instance {
  chosen_instance chosen;
  std::string model;        ///< in lite mode, as its record says; empty in full mode
  std::int64_t version = 0; ///< of its record; 0 in full mode
};

/// The reply of `/schedule`: the request again, its token ids too, and the instances. Fields stand
/// in the reference's order.
std::string
render_scheduled(const scheduling_request& request, const std::vector<told_instance>& instances);

/// Appends a JSON string with its quotes, escaped as Go does it: `<`, `>`, `&` and the two line
/// ends of Unicode too.
void append_go_string(std::string& out, std::string_view text);

} // namespace llumnix::scheduler_api
