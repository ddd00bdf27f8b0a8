#pragma once

#include "gateway/openai/generation_request.hpp"
#include "gateway/openai/json_fields.hpp"

namespace llumnix::openai {

/// Reads `messages` of a chat: roles known, content a string, null or an array of text parts.
void read_messages(json_fields& body, generation_request& request);

/// Reads `prompt` of a completion: a string, token ids, or an array of either; none of them empty.
void read_prompts(json_fields& body, generation_request& request);

/// Reads an array of token ids; fails as the field `name`.
std::vector<token_id>
read_token_ids(json_fields& body, std::string_view name, simdjson::dom::array values);

} // namespace llumnix::openai
