#include "gateway/openai/replies.hpp"

#include "gateway/openai/json_text.hpp"

namespace llumnix::openai {
namespace {

void append_choice(
  std::string& out, endpoint kind, std::uint64_t index, const whole_choice& choice, bool logprobs,
  std::uint32_t top, logprob_writer& writer) {
  out += R"({"index":)";
  append_number(out, index);
  out += kind == endpoint::chat ? R"(,"message":{"role":"assistant","content":)" : R"(,"text":)";
  append_quoted(out, choice.text);
  out += kind == endpoint::chat ? R"(},"logprobs":)" : R"(,"logprobs":)";
  std::uint64_t offset = 0; // nothing is echoed where log-probabilities are shown
  if (!logprobs)
    out += "null";
  else if (kind == endpoint::chat)
    writer.chat(out, choice.tokens, choice.logprobs, top);
  else
    writer.completion(out, choice.tokens, choice.logprobs, top, offset);
  out += R"(,"finish_reason":)";
  append_quoted(out, to_string(choice.finish));
  if (!choice.stop_match.empty()) {
    out += R"(,"stop_reason":)";
    append_quoted(out, choice.stop_match);
  }
  out += '}';
}

} // namespace

std::string render_reply(
  const reply_head& head, std::span<const whole_choice> choices, const usage& counts, bool logprobs,
  std::uint32_t top, logprob_writer& writer) {
  std::string out = R"({"id":)";
  append_quoted(out, reply_id(head));
  out += head.kind == endpoint::chat ? R"(,"object":"chat.completion","created":)"
                                     : R"(,"object":"text_completion","created":)";
  append_number(out, head.created);
  out += R"(,"model":)";
  append_quoted(out, head.model);
  out += R"(,"choices":[)";
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (i > 0)
      out += ',';
    append_choice(out, head.kind, i, choices[i], logprobs, top, writer);
  }
  out += R"(],"usage":)";
  append_usage(out, counts);
  out += '}';
  return out;
}

std::string
render_model(std::string_view model, std::int64_t created, std::uint32_t max_model_len) {
  std::string out = R"({"id":)";
  append_quoted(out, model);
  out += R"(,"object":"model","created":)";
  append_number(out, created);
  out += R"(,"owned_by":"llumnix")";
  if (max_model_len > 0) {
    out += R"(,"max_model_len":)";
    append_number(out, std::uint64_t{max_model_len});
  }
  out += '}';
  return out;
}

std::string
render_models(std::string_view model, std::int64_t created, std::uint32_t max_model_len) {
  return R"({"object":"list","data":[)" + render_model(model, created, max_model_len) + "]}";
}

} // namespace llumnix::openai
