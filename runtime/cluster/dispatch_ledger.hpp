#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/instance.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace llumnix {

/// The role group an instance belongs to, and what a request is dispatched there for.
enum class infer_type : std::uint8_t {
  neutral, ///< both stages
  prefill,
  decode,
};

std::string_view to_string(infer_type role);
/// By their numbers.
inline constexpr std::array all_roles{infer_type::neutral, infer_type::prefill, infer_type::decode};
/// The role of that name (`instance_metadata::instance_type`), or nothing.
std::optional<infer_type> parse_infer_type(std::string_view name);

/// A count as the 32 bits in which the reference has it; one that does not fit stays at the limit.
constexpr std::int32_t saturated(std::int64_t count) {
  using limits = std::numeric_limits<std::int32_t>;
  return static_cast<std::int32_t>(std::clamp<std::int64_t>(count, limits::min(), limits::max()));
}

/// What was sent to an instance and has not shown in its status yet (spec/cms.md 4.1). Each counter
/// stays at the limit of its type where there is more.
struct inflight_load {
  std::int32_t requests = 0;         ///< "all": each request once
  std::int32_t prefill_requests = 0; ///< "p"
  std::int32_t decode_requests = 0;  ///< "d"
  std::int32_t prefill_tokens = 0;   ///< "pt": tokens still to be computed
  std::int32_t decode_tokens = 0;    ///< "dt"
  // Of all these, those of a priority below 0, and above it. Of a neutral request the tokens count
  // once.
  std::int32_t urgent_requests = 0;
  std::int32_t urgent_tokens = 0;
  std::int32_t low_requests = 0;
  std::int32_t low_tokens = 0;
  friend bool operator==(const inflight_load&, const inflight_load&) = default;
};

/// One dispatch to be counted.
struct dispatched_request {
  std::string request_id; ///< as the scheduler knows it, unmodified
  infer_type stage = infer_type::neutral;
  std::int32_t num_tokens = 0;     ///< prompt tokens
  std::int32_t num_uncomputed = 0; ///< those without a known prefix hit
  std::int32_t priority = 0;       ///< lower goes first
  friend bool operator==(const dispatched_request&, const dispatched_request&) = default;
};

/// The ids a request may have been dispatched under, from the id an engine reports for it, the
/// first that is known being it.
///
/// Whole; without the kind of API in front (`cmpl-`, `chatcmpl-`, `generate-tokens-`); up to the
/// first `+`; without what follows the last `-`, which is all that the reference tries (spec/cms.md
/// 3, weakness 18); and where that is a random suffix behind the number of a prompt, without both:
/// vLLM makes `cmpl-ID-0-1a2b3c4d` of ID. They point into `engine_id`.
struct request_id_forms {
  explicit request_id_forms(std::string_view engine_id);

  std::array<std::string_view, 5> ids;
  std::size_t count = 0;
  auto begin() const { return ids.begin(); }
  auto end() const { return ids.begin() + static_cast<std::ptrdiff_t>(count); }
};

/// Local account of in-flight dispatches: between a dispatch and the status that shows it, the
/// scheduler adds the request to the load itself (spec/cms.md 4).
///
/// In lite mode (spec/cms.md 7) statuses tell no load, and the account is all that is known of it:
/// there an entry counts from its booking until its release, however long that is.
///
/// Each entry remembers what it adds to its instance's counters right now, so the counters are the
/// sum of the entries at any time: nothing is taken back twice, and nothing stays behind. They are
/// kept in 64 bits, so that this holds beyond what `inflight` can say.
class dispatch_ledger {
public:
  /// Counts a dispatch until a status shows it. `staleness_s`: seconds after which one that no
  /// status has shown is no longer counted.
  explicit dispatch_ledger(std::uint32_t staleness_s) : staleness_s_{staleness_s} {}
  dispatch_ledger(dispatch_ledger&&) = default;
  dispatch_ledger& operator=(dispatch_ledger&&) = default;
  /// Counts a dispatch until it is released: no status and no time ends it.
  static dispatch_ledger until_released() { return {}; }

  /// Counts a dispatch. The other stage of a request that is already counted here makes its entry
  /// neutral; the same stage again is a duplicate, changes nothing and returns false. `found`: a
  /// status has shown it already, so that nothing is counted, unless entries count until they are
  /// released.
  bool book(
    const instance_id& instance, const dispatched_request& request, unix_ms now,
    bool found = false);
  /// Takes back, on every instance, what is still counted for the request, and forgets it. Returns
  /// the instances whose account had an entry.
  std::vector<instance_id> release(const std::string& request_id);
  /// A status replaced the one before it: what it shows is no longer counted here. Changes nothing
  /// where entries count until they are released.
  void reconcile(const instance_status& status, unix_ms now);
  /// Time passed: what no status has shown for too long is no longer counted, also where no status
  /// comes any more (spec/cms.md, weakness 15), but for what the last one has as waiting. Returns
  /// the instances whose account changed; where there are none this is a comparison.
  std::vector<instance_id> expire(unix_ms now);
  /// Tokens that the requests waiting at an instance have to compute, as far as they were
  /// dispatched here: the engine does not know of prefix hits in a KV store, the account does.
  /// Nothing if none waits (spec/cms.md 4.4).
  std::optional<std::int32_t> waiting_prefills(const instance_status& status) const;
  /// What is counted now, by instance and request: booked elsewhere it counts the same.
  std::vector<std::pair<instance_id, dispatched_request>> counted() const;
  /// Drops the account of an instance that is gone or was born again.
  void forget(const instance_id& instance);

  /// What is counted for the instance; zero for one without an account.
  inflight_load inflight(const instance_id& instance) const;

private:
  struct text_hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>{}(text);
    }
  };
  template <class T>
  using by_text = std::unordered_map<std::string, T, text_hash, std::equal_to<>>;

  struct account;
  struct entry {
    const std::string* request = nullptr; ///< its key
    account* where = nullptr;
    entry* before = nullptr; ///< the one that expires before it, if it is among those that may
    entry* after = nullptr;
    bool may_expire = false;
    infer_type stage = infer_type::neutral;
    unix_ms dispatched = 0;
    std::int32_t num_uncomputed = 0;
    std::int32_t priority = 0;
    bool found = false;              ///< a status has shown it
    inflight_load counted;           ///< its share of the account's counters now
    std::uint64_t recent_round = 0;  ///< last reconcile whose recent list had it
    std::uint64_t waiting_round = 0; ///< the last reconcile, if its waiting list had it; else 0
  };
  /// The counters of `inflight_load` in their order, as large as they come.
  using totals = std::array<std::int64_t, 9>;
  struct account {
    const instance_id* instance = nullptr; ///< its key
    totals load{};
    by_text<entry> entries;
    std::uint64_t lengths = 0; ///< a bit for each length, modulo 64, that an id here has had
  };

  dispatch_ledger() = default;
  template <class Account>
  static auto find(Account& where, std::string_view engine_id);
  static void add(totals& to, const inflight_load& share, int times);
  static void count(account& where, entry& what, inflight_load share);
  static void take_back(account& where, entry& what);
  bool is_stale(const entry& what, unix_ms now) const;
  void let_expire(entry& what);
  void keep(entry& what);
  void unindex(const std::string& request_id, const instance_id& instance);

  std::optional<std::uint32_t> staleness_s_; ///< nothing: until released
  std::uint64_t round_ = 0;
  entry* oldest_ = nullptr; ///< of those that may expire; they are in the accounts
  entry* newest_ = nullptr;
  by_text<account> accounts_;                      ///< by instance id
  by_text<std::vector<instance_id>> instances_of_; ///< by request id
};

} // namespace llumnix
