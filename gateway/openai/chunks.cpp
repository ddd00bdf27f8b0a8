#include "gateway/openai/chunks.hpp"

#include "gateway/openai/json_text.hpp"

namespace llumnix::openai {

void append_usage(std::string& out, const usage& counts) {
  out += R"({"prompt_tokens":)";
  append_number(out, counts.prompt_tokens);
  out += R"(,"completion_tokens":)";
  append_number(out, counts.completion_tokens);
  out += R"(,"total_tokens":)";
  append_number(out, counts.prompt_tokens + counts.completion_tokens);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  append_number(out, counts.cached_tokens);
  out += R"(},"completion_tokens_details":{"reasoning_tokens":0}})";
}

std::string_view to_string(finish_reason reason) {
  switch (reason) {
    case finish_reason::none: break;
    case finish_reason::stop: return "stop";
    case finish_reason::length: return "length";
    case finish_reason::abort: return "abort";
  }
  return "null";
}

std::string reply_id(const reply_head& head) {
  return (head.kind == endpoint::chat ? "chatcmpl-" : "cmpl-") + head.request_id;
}

chunk_writer::chunk_writer(const reply_head& head, usage_field field)
  : kind_{head.kind}, field_{field} {
  prefix_ = R"(data: {"id":)";
  append_quoted(prefix_, reply_id(head));
  prefix_ += kind_ == endpoint::chat ? R"(,"object":"chat.completion.chunk","created":)"
                                     : R"(,"object":"text_completion","created":)";
  append_number(prefix_, head.created);
  prefix_ += R"(,"model":)";
  append_quoted(prefix_, head.model);
  prefix_ += R"(,"choices":[)";
}

void chunk_writer::write(std::string& out, const chunk& event, const usage& counts) const {
  out += prefix_;
  out += R"({"index":)";
  append_number(out, std::uint64_t{event.index});
  if (kind_ == endpoint::completions) {
    out += R"(,"text":")";
    append_escaped(out, event.text);
    out += R"(","logprobs":)";
  } else if (event.first || !event.text.empty() || event.finish == finish_reason::none) {
    out += event.first ? R"(,"delta":{"role":"assistant","content":")" : R"(,"delta":{"content":")";
    append_escaped(out, event.text);
    out += R"("},"logprobs":)";
  } else {
    out += R"(,"delta":{},"logprobs":)";
  }
  out += event.logprobs.empty() ? std::string_view{"null"} : event.logprobs;
  out += R"(,"finish_reason":)";
  if (event.finish == finish_reason::none) {
    out += "null";
  } else {
    append_quoted(out, to_string(event.finish));
    if (!event.stop_match.empty()) {
      out += R"(,"stop_reason":)";
      append_quoted(out, event.stop_match);
    }
  }
  out += '}';
  write_end(out, counts);
}

void chunk_writer::write_end(std::string& out, const usage& counts) const {
  out += ']';
  if (field_ == usage_field::null)
    out += R"(,"usage":null)";
  if (field_ == usage_field::counted) {
    out += R"(,"usage":)";
    append_usage(out, counts);
  }
  out += "}\n\n";
}

void chunk_writer::write_usage(std::string& out, const usage& counts) const {
  out += prefix_;
  out += R"(],"usage":)";
  append_usage(out, counts);
  out += "}\n\n";
}

void chunk_writer::write_done(std::string& out) {
  out += "data: [DONE]\n\n";
}

void chunk_writer::write_error(std::string& out, std::string_view rendered) {
  out += "data: ";
  out += rendered;
  out += "\n\n";
}

} // namespace llumnix::openai
