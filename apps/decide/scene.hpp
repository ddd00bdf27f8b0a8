#pragma once

#include "runtime/base/ids.hpp"
#include "runtime/base/time.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"
#include "runtime/cluster/instance.hpp"
#include "runtime/cluster/request_lists.hpp"
#include "runtime/scheduling/latency_profile.hpp"
#include "runtime/scheduling/step_model.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// A cluster written down, and a question about it: what `llumnix decide` answers. The names of its
/// JSON form are in spec/surface.md 5; `scene_reader` and `scene_writer` go there and back.
namespace llumnix {

/// What a scene asks.
enum class scene_question : std::uint8_t {
  place,   ///< where its request goes
  plan,    ///< the moves of one cycle of the rescheduler
  choose,  ///< which requests an instance would give away
  metrics, ///< the load of every instance
  predict, ///< how long prefills and decode steps take
  reserve, ///< who is kept for which role (adaptive PD)
  keys,    ///< the names of a prompt's chunks in a KV store
  scale,   ///< whether there are too few instances or too many
  config,  ///< what its flags come to
};
std::string_view to_string(scene_question question);

/// The knobs of a scene, as given; what they come to is `scene_setup`'s to say.
struct scene_config {
  nlohmann::json flags = nlohmann::json::object();    ///< of the reference, by name
  nlohmann::json settings = nlohmann::json::object(); ///< our own, by path
  std::optional<std::string> hash_seed;               ///< environment: GO_HASH_SEED
  /// Measured times, in the place of profiling files; nothing: there is no such file.
  std::optional<std::vector<profile_point>> ttft, tpot;
  std::optional<step_coefficients> step_model;
  /// Steps seen, [tokens, ms], to fit a model to; in the place of `step_model`.
  std::optional<std::vector<std::pair<double, double>>> step_samples;
  friend bool operator==(const scene_config&, const scene_config&) = default;
};

/// A request that was sent to an instance some time ago.
struct scene_dispatch {
  std::string request_id;
  infer_type stage = infer_type::neutral;
  std::int32_t num_tokens = 0;
  std::int32_t prefix_hit_tokens = 0;
  std::int64_t age_ms = 0;
  bool found = false;        ///< a status before the one given has shown it
  std::int32_t priority = 0; ///< lower goes first
  friend bool operator==(const scene_dispatch&, const scene_dispatch&) = default;
};

/// Counters of the local account that are laid down instead of following from dispatches, by the
/// names of `account_fields` and `priority_fields`.
using scene_account = std::map<std::string, std::int32_t, std::less<>>;

struct scene_instance {
  /// All zero, but that it is neutral, a single rank, and schedulable.
  scene_instance();

  instance_state state = instance_state::ready;
  instance_metadata metadata;   ///< `instance_id` is the instance's
  /// So is this one's. `timestamp_ms` holds, however it was given; `adapters`, in order, stand
  /// beside it in JSON, for they are no part of records.
  instance_status status;
  bool names_out_slots = false; ///< the status names its free migrate-out slots
  std::vector<scene_dispatch> dispatched;
  scene_account account;
  std::map<std::string, double, std::less<>> metrics; ///< given instead of computed
  std::optional<infer_type> reserved;                 ///< prefill, decode, or for neither
  std::vector<std::string> chunks;                    ///< keys the KV store holds at its address
  request_lists requests;

  const instance_id& id() const { return metadata.instance_id; }
};
bool operator==(const scene_instance& x, const scene_instance& y);

/// A SchedulingRequest (spec/scheduling.md 2), and what a KV store said about its prompt.
struct scene_request {
  std::string id;
  std::string model;
  std::string gateway_id;
  std::string scheduling_mode;  ///< as given: what it means is the decision's to say
  std::string scheduling_stage; ///< likewise
  std::uint32_t prompt_tokens = 0;
  std::vector<token_id> prompt;
  std::optional<double> ttft_slo_ms; ///< the request's own goals (docs/policies.md)
  std::optional<double> tpot_slo_ms; ///< likewise
  /// The answer of a store that was asked, by instance, or by its keys: one of them at most.
  std::optional<std::map<instance_id, std::uint32_t>> hit_tokens;
  std::optional<std::vector<std::string>> chunk_keys;
  std::string session{};                            ///< whose request it is; empty: nobody's
  std::map<infer_type, instance_id> session_last{}; ///< who took the session's last request
  std::int32_t priority = 0;                        ///< lower goes first
  std::string adapter{};                            ///< the LoRA it wants; empty: none
  std::vector<instance_id> exclude{};               ///< they just failed it
  friend bool operator==(const scene_request&, const scene_request&) = default;
};

/// Asks an instance for requests; what is not given stands in the flags
/// `rescheduling-req-select-…`.
struct scene_choice {
  instance_id instance;
  std::optional<std::string> rule;  ///< NUM_REQ, TOKEN or RATIO
  std::optional<std::string> order; ///< as given
  std::optional<double> value;      ///< finite
  friend bool operator==(const scene_choice&, const scene_choice&) = default;
};

/// Bounds of automatic scaling.
struct scene_scale {
  double low = 0;  ///< below this average freeness there are too few instances
  double high = 0; ///< above it too many
  std::uint32_t min = 0;
  std::uint32_t max = 0;
  friend bool operator==(const scene_scale&, const scene_scale&) = default;
};

/// Sizes to predict times for.
struct scene_predict {
  std::optional<std::vector<double>> prefill; ///< tokens
  std::optional<std::vector<std::pair<std::int64_t, std::int64_t>>>
    decode;                                      ///< requests, and tokens of all of them
  std::optional<std::vector<std::int64_t>> step; ///< tokens
  friend bool operator==(const scene_predict&, const scene_predict&) = default;
};

struct scene {
  std::optional<std::string> name; ///< repeated in the answer
  unix_ms now = 0;
  std::optional<std::uint64_t> seed; ///< of random picks
  scene_config config;
  std::vector<scene_instance> instances;  ///< ids are distinct
  bool reservations_given = false;        ///< `reserved` of the instances holds, also where empty
  std::map<infer_type, instance_id> last; ///< what the fixed preference chose last
  std::optional<scene_request> request;
  scene_question ask = scene_question::place;
  // The one that `ask` names, if any.
  std::optional<scene_choice> choose;
  std::optional<scene_scale> scale;
  std::optional<scene_predict> predict;
  friend bool operator==(const scene&, const scene&) = default;
};

} // namespace llumnix
