#pragma once

#include "actors/protocol/serving_inspect.hpp"
#include "runtime/scheduling/decision.hpp"
#include "runtime/scheduling/prefix_hits.hpp"

#include <algorithm>
#include <variant>
#include <vector>

namespace llumnix {

/// Run this request (GATEWAY to LLUMLET, LLUMLET to ENGINE).
struct submit_msg {
  inference_request request;
  bool to_decode = false; ///< only its prefill is wanted here
  /// Then: where it decodes. Without an instance it is chosen once the prefill is done.
  stream_owner decode{};
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, submit_msg& x) {
  return f(caf::meta::type_name("submit_msg"), x.request, x.to_decode, x.decode);
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
  stream_owner from; ///< as it was asked
  stream_ref stream;
  std::uint32_t epoch = 0;
  bool holds = false;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, holds_answer_msg& x) {
  return f(caf::meta::type_name("holds_answer_msg"), x.from, x.stream, x.epoch, x.holds);
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

/// End what runs for these requests at one of these instances; their clients are told why. What is
/// not there is passed over (LLUMLET DESK to every hub).
struct end_streams_msg {
  std::vector<std::string> requests; ///< text ids
  std::vector<instance_id> at;
  std::string why; ///< for clients
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, end_streams_msg& x) {
  return f(caf::meta::type_name("end_streams_msg"), x.requests, x.at, x.why);
}

/// A request that wants an instance.
struct placement_question {
  stream_ref stream;
  std::uint32_t epoch = 0;
  placement_query query;
  prefix_hits hits{}; ///< where its prefix is cached, as far as GATEWAY knows
};

/// Which instances for these requests? (GATEWAY to SCHEDULER)
struct place_msg {
  std::vector<placement_question> questions; ///< decided in this order
  std::vector<std::string> released;         ///< as `release_msg`, heard first
};

/// The request goes to this owner: SCHEDULER's answer, and GATEWAY's word to the hub that it was
/// sent.
struct placed_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  stream_owner owner;        ///< from SCHEDULER: without an instance when nobody can take it now
  placement_reasons reasons; ///< from SCHEDULER; empty towards the hub
  // From SCHEDULER, of a request whose roles are chosen together (spec/scheduling.md 4):
  stream_owner decode{}; ///< where it decodes, `owner` being for its prefill
  placement_reasons decode_reasons{};
};

/// A request that is prefilled here wants an instance where it decodes (LLUMLET to GATEWAY).
struct decode_wanted_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  std::string request;      ///< its text id
  std::uint32_t tokens = 0; ///< prompt and output
  placement_wishes wishes{};
  stream_owner at;                  ///< where it is prefilled
  std::vector<instance_id> tried{}; ///< that did not take it
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, decode_wanted_msg& x) {
  return f(
    caf::meta::type_name("decode_wanted_msg"), x.stream, x.epoch, x.request, x.tokens, x.wishes,
    x.at, x.tried);
}

/// What is asked for a request that is prefilled at an instance.
decode_wanted_msg decode_wanted(const inference_request& request, const stream_owner& at);

/// The answer. Without an instance nobody is left: it decodes where it is.
struct decode_at_msg {
  stream_owner decode;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, decode_at_msg& x) {
  return f(caf::meta::type_name("decode_at_msg"), x.decode);
}

/// The request stands, prefilled, and no hand-over has it yet (ENGINE to its LLUMLET). Stays in its
/// process.
struct prefilled_msg {
  decode_wanted_msg wanted;
};

/// It decodes here after all (LLUMLET to its ENGINE). Stays in its process.
struct decode_here_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
};

/// SCHEDULER's answers, in the order of the questions.
struct placements_msg {
  std::vector<placed_msg> placed;
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

/// A request that runs, as its gateway counts it.
struct running_request {
  instance_id instance;
  dispatched_request sent;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, running_request& x) {
  return f(
    caf::meta::type_name("running_request"), x.instance, x.sent.request_id, x.sent.stage,
    x.sent.num_tokens, x.sent.num_uncomputed, x.sent.priority);
}

/// Some of what a gateway has running (GATEWAY to a SCHEDULER that it has not told yet, in lite
/// mode, where no status tells it).
struct running_msg {
  node_life from;
  std::vector<running_request> requests;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, running_msg& x) {
  return f(caf::meta::type_name("running_msg"), x.from, x.requests);
}

/// A stream asks for an instance.
struct admission {
  inference_request request;
  bool replay = false;              ///< it lost its instance
  std::vector<instance_id> exclude; ///< just failed it
  /// The loop sends it to its engine itself: `request` is identity alone, and this its load.
  std::optional<relayed_request> relayed{};
};

/// A placement asked for is wanted no longer.
struct withdrawal {
  stream_ref stream;
  std::uint32_t epoch = 0;
};

/// One thing that a stream asks for or tells.
using stream_word
  = std::variant<admission, withdrawal, abort_msg, grant_msg, holds_msg, stream_end>;

/// What the streams of a loop said in one turn of it, in their order (loop to GATEWAY). Stays in
/// its process.
struct stream_words_msg {
  std::vector<stream_word> words;
};

/// Who holds the beginning of a request's prompt, as far as an index could tell. Stays in its
/// process.
struct prefixes_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  result<prefix_holders> found{errc::cancelled, {}};
};

/// The address of the engine that a scheduler outside of the cluster chose for a request, or why
/// there is none. Stays in its process.
struct remote_choice_msg {
  stream_ref stream;
  std::uint32_t epoch = 0;
  result<std::string> address{errc::cancelled, {}};
};

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placement_query& x) {
  return f(
    caf::meta::type_name("placement_query"), x.request_id, x.prompt_tokens, x.exclude, x.mode,
    x.stage, x.wishes);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, filter_drops& x) {
  return f(
    caf::meta::type_name("filter_drops"), x.filter, x.pass, x.count, x.first, x.metric, x.value,
    x.threshold, x.reserved);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, ranked_candidate& x) {
  return f(
    caf::meta::type_name("ranked_candidate"), x.instance, x.values[0], x.values[1], x.values[2]);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, decisive_fact& x) {
  return f(
    caf::meta::type_name("decisive_fact"), x.cause, x.next, x.metric, x.value, x.against, x.drawn);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placement_reasons& x) {
  optional_field<float> ttft{&x.predicted_ttft_ms};
  optional_field<float> tpot{&x.predicted_tpot_ms};
  return f(
    caf::meta::type_name("placement_reasons"), x.policy, x.stage, x.view_version, x.pass,
    x.considered, x.drops, x.ranked_by[0], x.ranked_by[1], x.ranked_by[2],
    x.ranked_by_count, x.ranking, x.hit_tokens, ttft, tpot, x.decided, x.wishes, x.note);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, prefix_hit& x) {
  return f(caf::meta::type_name("prefix_hit"), x.instance, x.tokens);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, prefix_hits& x) {
  std::vector<prefix_hit> hits;
  if constexpr (Inspector::reads_state) {
    hits = x.instances.list();
    return f(caf::meta::type_name("prefix_hits"), x.asked, x.prompt_tokens, hits);
  } else {
    if (auto failure = f(x.asked, x.prompt_tokens, hits))
      return failure;
    auto unordered = [](const prefix_hit& a, const prefix_hit& b) { return a.instance >= b.instance; };
    if (std::ranges::adjacent_find(hits, unordered) != hits.end())
      return caf::error{caf::sec::invalid_argument};
    x.instances = hits;
    return caf::none;
  }
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placement_question& x) {
  return f(caf::meta::type_name("placement_question"), x.stream, x.epoch, x.query, x.hits);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, place_msg& x) {
  return f(caf::meta::type_name("place_msg"), x.questions, x.released);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placed_msg& x) {
  return f(
    caf::meta::type_name("placed_msg"), x.stream, x.epoch, x.owner, x.reasons, x.decode,
    x.decode_reasons);
}
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placements_msg& x) {
  return f(caf::meta::type_name("placements_msg"), x.placed);
}

} // namespace llumnix

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::stream_words_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::prefilled_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::decode_here_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::prefixes_msg)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::remote_choice_msg)
