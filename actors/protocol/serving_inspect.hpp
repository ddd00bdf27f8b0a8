#pragma once

#include "runtime/base/error.hpp"
#include "runtime/base/ids.hpp"
#include "runtime/serving/request.hpp"
#include "runtime/serving/stream_table.hpp"

#include <caf/all.hpp>

#include <cstring>
#include <optional>

/// How the plain values of the runtime travel.
namespace llumnix {

/// Numbers as one blob: CAF serialises a vector of them element by element.
template <class Number>
struct packed_numbers {
  std::vector<Number>* numbers;
};
using packed_ids = packed_numbers<token_id>;

template <class Inspector, class Number>
typename Inspector::result_type inspect(Inspector& f, packed_numbers<Number>& x) {
  if constexpr (Inspector::reads_state) {
    std::vector<char> bytes(x.numbers->size() * sizeof(Number));
    if (!bytes.empty())
      std::memcpy(bytes.data(), x.numbers->data(), bytes.size());
    return f(bytes);
  } else {
    std::vector<char> bytes;
    if (auto failure = f(bytes))
      return failure;
    if (bytes.size() % sizeof(Number) != 0)
      return caf::error{caf::sec::invalid_argument};
    x.numbers->resize(bytes.size() / sizeof(Number));
    if (!bytes.empty())
      std::memcpy(x.numbers->data(), bytes.data(), bytes.size());
    return caf::none;
  }
}

/// A value that may be missing, as a list of none or one.
template <class T>
struct optional_field {
  std::optional<T>* value;
};

template <class Inspector, class T>
typename Inspector::result_type inspect(Inspector& f, optional_field<T>& x) {
  std::vector<T> list;
  if constexpr (Inspector::reads_state) {
    if (*x.value)
      list.push_back(**x.value);
    return f(list);
  } else {
    if (auto failure = f(list))
      return failure;
    if (list.size() > 1)
      return caf::error{caf::sec::invalid_argument};
    x.value->reset();
    if (!list.empty())
      x.value->emplace(std::move(list.front()));
    return caf::none;
  }
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, error& x) {
  return f(caf::meta::type_name("error"), x.code, x.context);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, node_life& x) {
  return f(caf::meta::type_name("node_life"), x.node, x.incarnation);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stream_ref& x) {
  return f(caf::meta::type_name("stream_ref"), x.node, x.incarnation, x.hub, x.stream);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stream_owner& x) {
  return f(caf::meta::type_name("stream_owner"), x.life, x.instance);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, sampling_params& x) {
  return f(
    caf::meta::type_name("sampling_params"), x.temperature, x.seed, x.choice, x.max_tokens,
    x.min_tokens, x.ignore_eos, x.eos, x.stop_token_ids, x.logprobs, x.top_logprobs);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, placement_wishes& x) {
  optional_field<float> ttft{&x.ttft_slo_ms};
  optional_field<float> tpot{&x.tpot_slo_ms};
  return f(caf::meta::type_name("placement_wishes"), ttft, tpot, x.session, x.adapter, x.priority);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, inference_request& x) {
  packed_ids prompt{&x.prompt};
  packed_ids output{&x.output};
  return f(
    caf::meta::type_name("inference_request"), x.stream, x.epoch, x.text_id, x.model, prompt,
    output, x.sampling, x.priority, x.credit, x.wishes);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, relayed_request& x) {
  return f(
    caf::meta::type_name("relayed_request"), x.prompt_tokens, x.delivered_tokens, x.why, x.planned);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stream_end& x) {
  optional_field<nanoseconds> placed{&x.times.placed};
  optional_field<nanoseconds> first{&x.times.first_token};
  optional_field<nanoseconds> last{&x.times.last_token};
  return f(
    caf::meta::type_name("stream_end"), x.stream, x.text_id, x.outcome, x.failure, x.prompt_tokens,
    x.output_tokens, x.placements, placed, first, last);
}

template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stream_info& x) {
  return f(
    caf::meta::type_name("stream_info"), x.text_id, x.stream, x.instance, x.state, x.epoch,
    x.prompt_tokens, x.output_tokens, x.age_ms, x.client);
}

} // namespace llumnix
