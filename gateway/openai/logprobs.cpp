#include "gateway/openai/logprobs.hpp"

#include "gateway/openai/json_text.hpp"
#include "runtime/base/assert.hpp"

#include <algorithm>

namespace llumnix::openai {
namespace {

/// Appends [write(0),…,write(count - 1)].
template <class Write>
void append_array(std::string& out, std::size_t count, Write write) {
  out += '[';
  for (std::size_t i = 0; i < count; ++i) {
    if (i > 0)
      out += ',';
    write(i);
  }
  out += ']';
}

} // namespace

const std::string& logprob_writer::text_of(token_id id) {
  text_.clear();
  words_->append_text(id, text_);
  return text_;
}

void logprob_writer::rank(token_id taken, const token_logprob& logprob, std::uint32_t top) {
  ranked_.assign(logprob.alternatives.begin(), logprob.alternatives.end());
  std::erase_if(ranked_, [&](const auto& x) { return x.first == taken; });
  auto worse = std::find_if(
    ranked_.begin(), ranked_.end(), [&](const auto& x) { return x.second <= logprob.logprob; });
  ranked_.emplace(worse, taken, logprob.logprob);
  if (ranked_.size() > top)
    ranked_.resize(top);
}

/// The members of one token, without the braces.
void logprob_writer::chat_entry(std::string& out, token_id id, float logprob) {
  const auto& text = text_of(id);
  out += R"("token":)";
  append_quoted(out, text);
  out += R"(,"logprob":)";
  append_logprob(out, logprob);
  out += R"(,"bytes":)";
  append_array(out, text.size(), [&](std::size_t i) {
    append_number(out, std::uint64_t{static_cast<unsigned char>(text[i])});
  });
}

void logprob_writer::chat(
  std::string& out, std::span<const token_id> tokens, std::span<const token_logprob> logprobs,
  std::uint32_t top) {
  LLUMNIX_ASSERT(tokens.size() == logprobs.size());
  out += R"({"content":)";
  append_array(out, tokens.size(), [&](std::size_t i) {
    out += '{';
    chat_entry(out, tokens[i], logprobs[i].logprob);
    out += R"(,"top_logprobs":)";
    rank(tokens[i], logprobs[i], top);
    append_array(out, ranked_.size(), [&](std::size_t j) {
      out += '{';
      chat_entry(out, ranked_[j].first, ranked_[j].second);
      out += '}';
    });
    out += '}';
  });
  out += '}';
}

void logprob_writer::completion(
  std::string& out, std::span<const token_id> tokens, std::span<const token_logprob> logprobs,
  std::uint32_t top, std::uint64_t& offset) {
  LLUMNIX_ASSERT(tokens.size() == logprobs.size());
  out += R"({"text_offset":)";
  append_array(out, tokens.size(), [&](std::size_t i) {
    append_number(out, offset);
    offset += count_characters(text_of(tokens[i]));
  });
  out += R"(,"token_logprobs":)";
  append_array(
    out, tokens.size(), [&](std::size_t i) { append_logprob(out, logprobs[i].logprob); });
  out += R"(,"tokens":)";
  append_array(out, tokens.size(), [&](std::size_t i) { append_quoted(out, text_of(tokens[i])); });
  out += R"(,"top_logprobs":)";
  if (top == 0)
    out += "null";
  else
    append_array(out, tokens.size(), [&](std::size_t i) {
      rank(tokens[i], logprobs[i], top);
      out += '{';
      for (std::size_t j = 0; j < ranked_.size(); ++j) {
        if (j > 0)
          out += ',';
        append_quoted(out, text_of(ranked_[j].first));
        out += ':';
        append_logprob(out, ranked_[j].second);
      }
      out += '}';
    });
  out += '}';
}

} // namespace llumnix::openai
