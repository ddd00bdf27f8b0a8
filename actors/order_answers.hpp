#pragma once

#include "actors/protocol/migration_messages.hpp"

#include <nlohmann/json_fwd.hpp>

#include <string>

/// What an order from people is answered with: a document, and a status of HTTP.
namespace llumnix {

/// Text that is not UTF-8 is replaced.
ordered_msg document(int status, const nlohmann::json& content);
/// `{"error": {"code": ..., "message": ...}}` (spec/surface.md 4).
ordered_msg refusal(int status, const char* code, const std::string& message);

} // namespace llumnix
