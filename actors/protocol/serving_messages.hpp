#pragma once

#include "actors/protocol/serving_inspect.hpp"
#include "runtime/scheduling/decision.hpp"

namespace llumnix {

/// A stream asks for an instance (loop to GATEWAY, same process).
struct admit_msg {
  inference_request request;
  bool replay = false;              ///< it lost its instance
  std::vector<instance_id> exclude; ///< just failed it
  /// The loop sends it to its engine itself: `request` is identity alone, and this its load.
  std::optional<relayed_request> relayed{};
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, admit_msg& x) {
  optional_field<relayed_request> relayed{&x.relayed};
  return f(caf::meta::type_name("admit_msg"), x.request, x.replay, x.exclude, relayed);
}

/// A placement asked for is wanted no longer.
struct withdraw_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, withdraw_msg& x) {
  return f(caf::meta::type_name("withdraw_msg"), x.stream, x.epoch);
}

/// Run this request (GATEWAY to LLUMLET, LLUMLET to ENGINE).
struct submit_msg {
  inference_request request;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, submit_msg& x) {
  return f(caf::meta::type_name("submit_msg"), x.request);
}

/// Forget what runs for the stream under this epoch or a lower one.
struct abort_msg {
  stream_owner owner; ///< who is meant
  stream_ref stream;
  std::uint32_t epoch = 0;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, abort_msg& x) {
  return f(caf::meta::type_name("abort_msg"), x.owner, x.stream, x.epoch);
}

/// The stream's request may produce output tokens with index below `credit`.
struct grant_msg {
  stream_owner owner;
  stream_ref stream;
  std::uint32_t epoch = 0;
  std::uint32_t credit = 0;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, grant_msg& x) {
  return f(caf::meta::type_name("grant_msg"), x.owner, x.stream, x.epoch, x.credit);
}

/// HOLDS of spec/migration.md 12.2: is the stream with you under this epoch?
struct holds_msg {
  stream_owner owner;
  stream_ref stream;
  std::uint32_t epoch = 0;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, holds_msg& x) {
  return f(caf::meta::type_name("holds_msg"), x.owner, x.stream, x.epoch);
}

struct holds_answer_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  bool holds = false;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, holds_answer_msg& x) {
  return f(caf::meta::type_name("holds_answer_msg"), x.stream, x.epoch, x.holds);
}

/// What one engine step produced for the streams of one hub.
struct tokens_msg {
  node_life from;
  instance_id instance;
  std::vector<char> batch; ///< `step_batch` bytes
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, tokens_msg& x) {
  return f(caf::meta::type_name("tokens_msg"), x.from, x.instance, x.batch);
}

/// The instance does not take the request.
struct refused_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  instance_id instance;
  error why;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, refused_msg& x) {
  return f(caf::meta::type_name("refused_msg"), x.stream, x.epoch, x.instance, x.why);
}

/// Which instance for this request? (GATEWAY to SCHEDULER)
struct place_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  placement_query query;
  std::vector<std::string> released; ///< as `release_msg`, heard first
};

/// The request goes to this owner: SCHEDULER's answer, and GATEWAY's word to the hub that it was
/// sent.
struct placed_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  stream_owner owner;
  placement_reasons reasons; ///< from SCHEDULER; empty towards the hub
};

/// No instance for the request.
struct unplaceable_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  error why;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, unplaceable_msg& x) {
  return f(caf::meta::type_name("unplaceable_msg"), x.stream, x.epoch, x.why);
}

/// These requests ended or were refused: their share of the account is taken back.
struct release_msg {
  std::vector<std::string> request_ids;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, release_msg& x) {
  return f(caf::meta::type_name("release_msg"), x.request_ids);
}

struct stream_closed_msg {
  stream_end end;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stream_closed_msg& x) {
  return f(caf::meta::type_name("stream_closed_msg"), x.end);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placement_query& x) {
  return f(caf::meta::type_name("placement_query"), x.request_id, x.prompt_tokens, x.exclude);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, dropped_candidate& x) {
  return f(
    caf::meta::type_name("dropped_candidate"), x.instance, x.pass, x.filter, x.metric, x.value,
    x.threshold);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placement_reasons& x) {
  return f(
    caf::meta::type_name("placement_reasons"), x.policy, x.view_version, x.fallback, x.considered,
    x.considered_total, x.dropped, x.dropped_total, x.metrics, x.note);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, place_msg& x) {
  return f(caf::meta::type_name("place_msg"), x.stream, x.epoch, x.query, x.released);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placed_msg& x) {
  return f(caf::meta::type_name("placed_msg"), x.stream, x.epoch, x.owner, x.reasons);
}

} // namespace llumnix
