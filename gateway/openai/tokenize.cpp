#include "gateway/openai/tokenize.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llumnix::openai {
namespace {

result<std::vector<token_id>> ids_of(const prompt& value, const tokenizer& words) {
  if (const auto* text = std::get_if<std::string>(&value))
    return words.encode(*text);
  const auto& ids = std::get<std::vector<token_id>>(value);
  for (auto id : ids)
    if (!words.valid(id))
      return {
        errc::invalid_argument, fmt::format("Token {} is not in the model's vocabulary.", id)};
  return ids;
}

std::string text_of(const prompt& value, const tokenizer& words) {
  if (const auto* text = std::get_if<std::string>(&value))
    return *text;
  std::string text;
  for (auto id : std::get<std::vector<token_id>>(value))
    words.append_text(id, text);
  return text;
}

} // namespace

std::variant<std::vector<tokenized_prompt>, api_error>
tokenize(const generation_request& request, const tokenizer& words, std::uint32_t max_model_len) {
  auto chat = request.kind == endpoint::chat;
  auto field = chat ? "messages" : "prompt";
  std::vector<tokenized_prompt> prompts;
  for (std::size_t i = 0; i < (chat ? 1 : request.prompts.size()); ++i) {
    auto ids = chat ? words.encode_chat(request.messages) : ids_of(request.prompts[i], words);
    if (!ids)
      return api_error{400, "invalid_value", ids.error().context, field};
    if (ids->empty())
      return api_error{400, "invalid_value", fmt::format("'{}' must not be empty.", field), field};
    auto limit = request.sampling.max_tokens;
    if (max_model_len > 0) {
      if (ids->size() >= max_model_len)
        return api_error{
          400, "context_length_exceeded",
          fmt::format(
            "The model's context is {} tokens; the prompt has {} and leaves no room for an output.",
            max_model_len, ids->size()),
          field};
      limit = std::min(limit, max_model_len - static_cast<std::uint32_t>(ids->size()));
    }
    prompts.push_back(
      {std::move(*ids), limit, request.echo ? text_of(request.prompts[i], words) : std::string{}});
  }
  return prompts;
}

} // namespace llumnix::openai
