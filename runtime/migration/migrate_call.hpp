#pragma once

#include "runtime/base/time.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/migration/request_selection.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

/// The calls of the llumlet's RPC service (spec/llumlet.md 8) as plain values: what a caller wants,
/// and what it is told.
namespace llumnix {

/// How a call ended. The numbers are gRPC's.
enum class call_code : std::uint8_t {
  ok = 0,
  cancelled = 1,
  invalid_argument = 3,
  deadline_exceeded = 4,
  resource_exhausted = 8,
  unimplemented = 12,
  internal = 13,
  unavailable = 14,
  unauthenticated = 16,
};

struct call_reply {
  call_code code = call_code::ok;
  bool success = false; ///< with `ok` only
  std::string message;
  friend bool operator==(const call_reply&, const call_reply&) = default;
};

/// `Migrate`: move requests from an instance to another. Texts as they came.
struct migrate_call {
  struct amount {
    selection_rule of = selection_rule::requests; ///< which member of the oneof it was
    double value = 0;
    friend bool operator==(const amount&, const amount&) = default;
  };
  std::string source;
  std::string destination;
  std::string destination_ip;
  std::int32_t destination_port = 0;
  std::string type;  ///< NUM_REQ, TOKEN, RATIO
  std::string order; ///< LCR, FCR, ...
  std::optional<amount> wanted;
  std::string trigger; ///< the policy of a scheduler that wants it; anything
  friend bool operator==(const migrate_call&, const migrate_call&) = default;
};

/// `Abort`: end these requests, by their text ids.
struct abort_call {
  std::vector<std::string> requests;
  friend bool operator==(const abort_call&, const abort_call&) = default;
};

/// A call on its way in.
struct incoming_call {
  std::variant<migrate_call, abort_call> what;
  std::string operation; ///< the caller's key of it; the same key again: the same answer; or empty
  time_point due{};      ///< the answer is wanted by then; before the caller's own deadline
  /// True once the caller waits no longer: what has not begun by then is not begun.
  std::shared_ptr<const std::atomic<bool>> withdrawn{};
};

/// Longest names and keys, in bytes. Instance ids are shorter, and the rest is shown to people.
inline constexpr std::size_t call_text_max = 256;

/// The selection that a call describes. `invalid_argument`: a type or an order that is none, a type
/// without the amount it goes with, an amount that is no finite number, a port that is none, a text
/// that is too long. Engines of the reference take any order they do not know as FCR
/// (spec/migration.md 3.2).
result<request_selection> selection_of(const migrate_call& call);

/// Which of the instances here is meant: the one that is named, or the only one where none is.
/// `invalid_argument` for one that is not here.
result<instance_id> source_of(const migrate_call& call, const std::vector<instance_metadata>& here);

/// Which instance is meant: the one that is named, or where none is the one whose `ip_kvs` and
/// `kvt_port` are the address. `not_found`: no such instance is known. `invalid_argument`: neither
/// is given, the address is that of others, or of several.
result<instance_id>
destination_of(const migrate_call& call, const std::vector<instance_metadata>& known);

/// Who wants it, for people: the trigger policy in lower case, or "grpc".
std::string policy_of(const migrate_call& call);

/// How far an order has come when its caller is told. Each request chosen is in one of the first
/// five.
struct moves_begun {
  std::uint32_t accepted = 0; ///< the destination has made room for them, or has them
  std::uint32_t rejected = 0; ///< the destination, or somebody before it, said no
  std::uint32_t failed = 0;
  std::uint32_t finished = 0; ///< ended before they could move
  std::uint32_t waiting = 0;  ///< time was up before it was known; they still may move
  /// All are to leave, and these are on their way already, or somebody sees to it.
  std::uint32_t joined = 0;
  bool merged = false;  ///< there was a drain to be joined
  std::string reason{}; ///< of the first one that was rejected or failed
  friend bool operator==(const moves_begun&, const moves_begun&) = default;
};

/// What the caller of `Migrate` is told (spec/llumlet.md 8.2). Errors: nothing was chosen.
call_reply
reply_of(const instance_id& from, const instance_id& to, const result<moves_begun>& outcome);

/// What the caller is told where the call cannot be begun.
call_reply refusal_of(const error& why);

} // namespace llumnix
