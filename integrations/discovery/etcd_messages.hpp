#pragma once

#include "runtime/base/result.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix {

inline constexpr std::string_view etcd_record_prefix = "llumnix/discovery/";

/// What is sent to etcd's JSON gateway, and what comes back (spec/discovery.md D): requests as
/// bodies, answers as plain values. Answers are hostile: `bad_message` for what no etcd says.
namespace etcd {

inline constexpr std::string_view authenticate_path = "/v3/auth/authenticate";
inline constexpr std::string_view range_path = "/v3/kv/range";
inline constexpr std::string_view watch_path = "/v3/watch";

std::string authenticate_request(std::string_view name, std::string_view password);
/// At most `limit` records from the key `from` on, or from the first if it is empty; as of
/// `revision`, or of now if it is 0.
std::string range_request(std::string_view from, std::size_t limit, std::int64_t revision);
/// How many records there are and when the last of those was written, but no value.
std::string probe_request();
/// All changes of records from that revision on.
std::string watch_request(std::int64_t revision);

struct record {
  std::string key;
  std::string value;
  std::int64_t revision = 0; ///< that wrote it
};

struct range_reply {
  std::int64_t revision = 0; ///< of the whole store
  std::vector<record> records;
  bool more = false;
  std::int64_t count = 0; ///< of all records that were asked for, beyond the limit too
};

struct change {
  bool removed = false;
  record what; ///< without value if removed
};

/// One line of a watch.
struct watch_reply {
  bool created = false;
  bool canceled = false;
  std::int64_t compact_revision = 0; ///< above 0: what was asked for is forgotten
  std::string reason;                ///< of the end, printable
  std::vector<change> changes;
};

/// The token to send as `authorization`.
result<std::string> read_token(std::string_view body);
result<range_reply> read_range(std::string_view body);
/// `internal` where the line says that the watch failed.
result<watch_reply> read_watch(std::string_view line);
/// Why etcd refused something, printable: its words if it has any.
std::string read_refusal(int status, std::string_view body);

} // namespace etcd
} // namespace llumnix
