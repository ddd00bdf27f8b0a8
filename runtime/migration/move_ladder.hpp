#pragma once

#include "runtime/base/error.hpp"
#include "runtime/migration/handover.hpp"

#include <optional>
#include <string>
#include <string_view>

namespace llumnix {

/// The path to try after one has failed for that reason (DESIGN.md 3.6); none: another path would
/// fail as well. KV that cannot be had, or came wrong, is computed at the destination instead.
std::optional<move_path> next_path(move_path tried, errc why);

/// The same for a request that was prefilled here and is to decode there. None: it is offered to
/// another instance, which may take its KV; where there is none it decodes here. Its prompt is
/// computed a second time only where KV could go nowhere.
std::optional<move_path> next_decode_path(move_path tried, errc why);

/// Why a move did not go by `kv`, to be kept until it has ended by another path.
std::string why_no_kv(std::string_view why);
/// The reason of a move that ended: what kept it from `kv`, if anything did, then the rest.
std::string told_reason(const std::string& no_kv, std::string reason);

/// Whether there is something to decode elsewhere: more than the token that its prefill makes.
bool outlives_prefill(const inference_request& request);

} // namespace llumnix
