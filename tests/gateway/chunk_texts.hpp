#pragma once

#include "gateway/relay/relay_chunk.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

/// Events of engines, as text, and what the gateway makes of them.
namespace llumnix::relay {

using openai::endpoint;
using type = chunk_facts::type;
using id_list = std::vector<token_id>;

// As vLLM 0.32 writes them.
inline constexpr std::string_view chat_opening
  = R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
    R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
    R"("finish_reason":null}],"prompt_token_ids":[0,260,74,75,261],"prompt_text":null})";
inline constexpr std::string_view chat_token
  = R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
    R"("choices":[{"index":0,"delta":{"content":"é\n"},"logprobs":null,"finish_reason":null,)"
    R"("token_ids":[123,4294967295]}]})";
inline constexpr std::string_view chat_end
  = R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
    R"("choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop",)"
    R"("stop_reason":null,"token_ids":[1]}],"system_fingerprint":"vllm-0.32.0-5c217ed0"})";
inline constexpr std::string_view text_opening
  = R"({"id":"cmpl-r2","object":"text_completion","created":1700000009,"model":"tiny-b",)"
    R"("choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null,"stop_reason":null,)"
    R"("prompt_token_ids":[0,260,74],"token_ids":[68]}]})";
inline constexpr std::string_view text_token
  = R"({"id":"cmpl-r2","object":"text_completion","created":1700000009,"model":"tiny-b",)"
    R"("choices":[{"index":0,"text":"b","logprobs":null,"finish_reason":null,"stop_reason":null,)"
    R"("prompt_token_ids":null,"token_ids":[69]}]})";
inline constexpr std::string_view text_end
  = R"({"id":"cmpl-r2","object":"text_completion","created":1700000009,"model":"tiny-b",)"
    R"("choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length","stop_reason":null,)"
    R"("prompt_token_ids":null,"token_ids":[69]}],"system_fingerprint":"vllm-0.32.0-5c217ed0"})";
inline constexpr std::string_view usage_chunk
  = R"({"id":"cmpl-r2","object":"text_completion","created":1700000009,"model":"tiny-b","choices":[],)"
    R"("usage":{"prompt_tokens":90,"total_tokens":93,"completion_tokens":3,)"
    R"("prompt_tokens_details":{"cached_tokens":64}},"system_fingerprint":"vllm-0.32.0-5c217ed0"})";

inline relay_request asked(endpoint kind, bool ids = false, std::uint32_t top_logprobs = 0) {
  relay_request request;
  request.kind = kind;
  request.wants_token_ids = ids;
  request.top_logprobs = top_logprobs;
  return request;
}

/// The facts of an event that must be understood.
inline const chunk_facts& understood(chunk_reader& reader, std::string_view data) {
  auto facts = reader.read(data);
  if (!facts)
    FAIL(facts.error().context << " in " << data);
  return **facts;
}

inline std::string sent(std::string_view data, bool ids = false) {
  chunk_reader reader;
  understood(reader, data);
  std::string out;
  reader.append_as_sent(out, !ids);
  return out;
}

inline std::string event(std::string_view data) {
  return "data: " + std::string{data} + "\n\n";
}

/// The event `data` of a continuation shown in the stream that began with `first`.
inline std::string shown(
  const relay_request& request, std::string_view first, std::string_view data,
  std::string_view text, std::size_t repeated = 0) {
  chunk_reader reader;
  understood(reader, data);
  std::string out;
  translator{request, first}.append(out, reader, text, {5, 40, 0}, 100, repeated);
  return out;
}

/// The data of an event, its lines joined.
inline std::string data_of(std::string_view event) {
  constexpr std::string_view next = "\ndata: ";
  std::string data{event.substr(6)};
  for (auto at = data.find(next); at != std::string::npos; at = data.find(next))
    data.replace(at, next.size(), "\n");
  return data;
}

/// An event with one choice that has these members.
inline std::string with_choice(std::string_view members) {
  return R"({"choices":[{)" + std::string{members} + "}]}";
}

inline std::string repeated(std::string_view what, std::size_t times) {
  std::string all;
  for (std::size_t i = 0; i < times; ++i)
    all += what;
  return all;
}

} // namespace llumnix::relay
