#include "gateway/relay/asking.hpp"

#include "gateway/relay/text_bodies.hpp"

#include <algorithm>
#include <utility>

namespace llumnix::relay {
namespace {

constexpr std::uint32_t assumed_reply_tokens = 4096;  // of a reply that names no limit
constexpr std::size_t counted_body_max = 1024 * 1024; // above it a copy costs more than it is worth

asked_body
begin_with(std::string_view body, const relay_request& request, const engine_endpoint& engine) {
  bool asks_ids = engine.token_ids && request.stream;
  auto made = first_body(body, request, asks_ids);
  bool counts = request.stream && !engine.token_ids && engine.continues_text
                && !request.continuous_usage && relay_stream::suits_text(request)
                && body.size() <= counted_body_max;
  if (!counts)
    return {std::move(made), false, asks_ids && !request.wants_token_ids};
  return {{0, counted_body(std::string{body.substr(0, made.kept)} + made.rest)}, true, false};
}

} // namespace

std::uint32_t whole_reply_tokens(const relay_request& request, std::uint32_t context_tokens) {
  auto wished = request.max_tokens.value_or(assumed_reply_tokens);
  if (context_tokens == 0)
    return wished;
  return std::min(wished, context_tokens - std::min(context_tokens, request.prompt_tokens));
}

std::string_view
cannot_go_on(const relay_request& request, const resumption& from, const engine_endpoint& engine) {
  bool chat = request.kind == openai::endpoint::chat;
  bool open_end = request.kind != openai::endpoint::completions && !request.max_tokens;
  bool tokens = request.kind == openai::endpoint::tokens;
  if (from.where == resumption::from::ids && !tokens && !engine.token_ids)
    return "it tells no token ids";
  if (from.where == resumption::from::ids && open_end && engine.context_tokens == 0)
    return "it is not known how long its outputs may be";
  if (from.where == resumption::from::text && chat && !engine.continues_text)
    return "it is not known whether it goes on with a text";
  return {};
}

openai::api_error no_engine_takes_tokens() {
  return {
    404,
    "not_found",
    "No engine here has '/inference/v1/generate': vLLM has it when it is started with "
    "--enable-scale-out.",
    {}};
}

result<asked_body> ask_for(
  std::string_view body, const relay_request& request, const resumption& from,
  const engine_endpoint& engine) {
  if (from.where == resumption::from::scratch)
    return begin_with(body, request, engine);
  if (from.where == resumption::from::ids)
    return asked_body{
      {0,
       continuation_body(
         body, request, from.ids, from.kept, engine.context_tokens, from.shows_stops)},
      false,
      !request.wants_token_ids};
  bool counts = engine.continues_text && !request.continuous_usage;
  auto made = text_continuation_body(body, request, from.text, from.kept, counts);
  if (!made)
    return std::move(made).error();
  return asked_body{{0, std::move(*made)}, counts, false};
}

} // namespace llumnix::relay
