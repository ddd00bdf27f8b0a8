#pragma once

#include "apps/admin_client.hpp"

#include <string>

/// The admin documents (spec/surface.md 3) as people read them. Members that are absent show as
/// "-".
namespace llumnix {

std::string status_text(const admin_document& cluster, bool colours);
std::string actors_text(const admin_document& actors, bool colours);
std::string requests_text(const admin_document& requests, bool colours);
std::string why_text(const admin_document& record, bool colours);
std::string moves_text(const admin_document& moves, bool colours);
std::string drain_text(const admin_document& drained);

/// A request's id as the cluster knows it: without the `chatcmpl-` or `cmpl-` of an OpenAI body.
std::string bare_request_id(const std::string& id);

} // namespace llumnix
