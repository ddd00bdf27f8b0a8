#pragma once

#include "actors/protocol/migration_messages.hpp"
#include "runtime/base/result.hpp"

#include <chrono>
#include <string>
#include <string_view>

/// Changing calls of the operators' HTTP surface, read strictly: what is not known, or is not what
/// it should be, is an `invalid_argument` that begins with its path, so that no typo moves what
/// nobody meant.
namespace llumnix {

/// The longest id of a request or an instance that is taken.
inline constexpr std::size_t admin_id_length_max = 256;
/// How long a drain may be waited for, and how long it is where nothing is said.
inline constexpr std::chrono::milliseconds drain_timeout_max{std::chrono::hours{24}};
inline constexpr std::chrono::milliseconds drain_timeout_usual{std::chrono::seconds{60}};

/// The body of POST /admin/v1/migrate:
///
///     {"request": ID, "to": INSTANCE}
///     {"from": INSTANCE, "to": INSTANCE, "policy": "SR", "num_requests": 1}
///
/// with `num_tokens` or `kv_ratio` in the place of `num_requests`, whose -1 stands for all. Where
/// they are left out: SR, one request.
result<order_msg> read_migrate_body(std::string_view body);

/// The query of POST /admin/v1/instances/ID/drain: nothing, or timeout=DURATION.
result<std::chrono::milliseconds> read_drain_query(std::string_view query);

/// A body of a call that wants none: nothing, or an empty object.
result<void> read_no_body(std::string_view body);

/// Whether a Host header may name the address that is listened on. On loopback: its port and a name
/// of loopback; a web page that had a name of its own point here would carry that one. Off loopback
/// the address has names we do not know, and whoever calls has shown a key, which no page has.
bool names_address(std::string_view host, std::string_view address);

/// Whether a Content-Type is JSON's.
bool is_json(std::string_view content_type);

} // namespace llumnix
