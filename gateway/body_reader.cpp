#include "gateway/body_reader.hpp"

#include <utility>

namespace llumnix {
namespace {

template <class Value>
body_content content(Value&& value) {
  return std::forward<Value>(value);
}

} // namespace

openai::api_error unknown_model(std::string_view name) {
  return {404, "model_not_found", "The model '" + std::string{name} + "' does not exist.", "model"};
}

body_reader::body_reader(const gateway_config& config, const tokenizer& words)
  : config_{config}, words_{words}, parser_{config.max_choices} {}

body_content body_reader::read(const body_form& form, std::string& body) {
  if (!form.relayed)
    return read_tokens(form, body);
  return std::visit(
    [](auto&& value) { return content(std::move(value)); }, relay_reader_.read(form.kind, body));
}

body_content body_reader::read_tokens(const body_form& form, std::string& body) {
  auto parsed = parser_.parse(form.kind, body);
  if (auto* failure = std::get_if<openai::api_error>(&parsed))
    return std::move(*failure);
  auto& wish = std::get<openai::generation_request>(parsed);
  if (wish.model != config_.model)
    return unknown_model(wish.model);
  auto prompts = openai::tokenize(wish, words_, form.max_model_len);
  if (auto* failure = std::get_if<openai::api_error>(&prompts))
    return std::move(*failure);
  wish.messages = {};
  wish.prompts = {};
  return checked_request{
    std::move(wish), std::get<std::vector<openai::tokenized_prompt>>(std::move(prompts))};
}

} // namespace llumnix
