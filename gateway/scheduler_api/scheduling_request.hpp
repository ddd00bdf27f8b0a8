#pragma once

#include "runtime/scheduling/scheduling_desk.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// The scheduler's HTTP API towards gateways of other makes (spec/scheduling.md 2), to the byte.
namespace llumnix::scheduler_api {

/// What a gateway sends to `/schedule` and `/release`, as it says it. Names are the reference's.
struct scheduling_request {
  std::string id;
  std::string model;
  std::string gateway_id;
  std::string mode;  ///< `scheduling_mode`
  std::string stage; ///< `scheduling_stage`
  std::int64_t prompt_num_tokens = 0;
  /// `prompt_token_ids` as they were written: an array of whole numbers below 2^32. Empty for null
  /// or none. Part of the body.
  std::string_view token_ids;
  std::vector<request_place> result; ///< of `scheduling_result`, for `/release`
};

inline constexpr std::size_t id_bytes_max = 4096; ///< of a request or gateway; they are kept
inline constexpr std::size_t places_max = 1024;   ///< in a `scheduling_result`
inline constexpr std::size_t news_max = 100'000;  ///< in one report

/// Reads as the reference does: strictly by type, but null stands for nothing, unknown fields are
/// passed over, and names may be written in any case. Nothing if the body is no such object, an id
/// is longer than `id_bytes_max`, or there are more than `places_max` instances. The body must
/// outlive what is returned.
std::optional<scheduling_request> read_scheduling_request(std::string_view body);

/// Reads the body of `/report`, an array (spec/cms.md 7.3); nothing if it is none, or longer
/// than `news_max`.
std::optional<std::vector<request_progress>> read_report(std::string_view body);

/// Reads what a gateway says of itself on its keepalive connection, {"host": …, "port": …}:
/// its id, `host:port`. Nothing if it is something else, or no name for a gateway.
std::optional<std::string> read_gateway_id(std::string_view text);

/// What is asked for. An unknown mode, and an unknown stage where there are stages, asks for no
/// role at all: in stages and for none of them.
placement_query to_query(const scheduling_request& request);

} // namespace llumnix::scheduler_api
