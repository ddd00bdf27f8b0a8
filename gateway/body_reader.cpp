#include "gateway/body_reader.hpp"

#include <utility>

namespace llumnix {

openai::api_error unknown_model(std::string_view name) {
  return {404, "model_not_found", "The model '" + std::string{name} + "' does not exist.", "model"};
}

body_reader::body_reader(const gateway_config& config, const tokenizer& words)
  : config_{config}, words_{words}, parser_{config.max_choices} {}

body_content body_reader::read(const body_form& form, std::string& body) {
  return form.relayed ? read_relayed(form, body) : read_tokens(form, body);
}

body_content body_reader::read_relayed(const body_form& form, const std::string& body) {
  auto read = relay_reader_.read(form.kind, body);
  if (auto* failure = std::get_if<openai::api_error>(&read))
    return std::move(*failure);
  return relayable_request{std::get<relay::relay_request>(std::move(read))};
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
