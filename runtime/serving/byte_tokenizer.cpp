#include "runtime/serving/byte_tokenizer.hpp"

#include <array>
#include <utility>

namespace llumnix {

namespace {

constexpr token_id first_word = 512;
constexpr token_id last_word = 1023;

using roles = std::array<std::pair<std::string_view, token_id>, 5>;
constexpr roles role_ids{{
  {"system", byte_tokenizer::system},
  {"developer", byte_tokenizer::system},
  {"user", byte_tokenizer::user},
  {"assistant", byte_tokenizer::assistant},
  {"tool", byte_tokenizer::tool},
}};

void append_bytes(std::string_view text, std::vector<token_id>& ids) {
  for (unsigned char byte : text)
    ids.push_back(byte);
}

void append_syllable(
  token_id index, std::string_view consonants, std::string_view vowels, std::string& text) {
  text += consonants[index / vowels.size()];
  text += vowels[index % vowels.size()];
}

} // namespace

result<std::vector<token_id>> byte_tokenizer::encode(std::string_view text) const {
  std::vector<token_id> ids;
  ids.reserve(text.size());
  append_bytes(text, ids);
  return ids;
}

result<std::vector<token_id>>
byte_tokenizer::encode_chat(std::span<const chat_message> messages) const {
  std::vector<token_id> ids{bos};
  for (const auto& message : messages) {
    token_id role = 0;
    for (const auto& [name, id] : role_ids)
      if (name == message.role)
        role = id;
    if (role == 0)
      return {
        errc::invalid_argument,
        "role \"" + message.role + "\" is none of system, developer, user, assistant, tool"};
    ids.push_back(role);
    append_bytes(message.content, ids);
    ids.push_back(end);
  }
  ids.push_back(assistant);
  return ids;
}

bool byte_tokenizer::valid(token_id id) const {
  return id <= end || (id >= first_word && id <= last_word);
}

void byte_tokenizer::append_text(token_id id, std::string& text) const {
  if (id < bos) {
    text += static_cast<char>(id);
  } else if (id == broken) {
    text += "\u27C2";
  } else if (id >= first_word && id <= last_word) {
    auto word = id - first_word;
    text += ' ';
    append_syllable(word >> 4, "bdfgklmn", "aeio", text);
    append_syllable(word & 15, "rstv", "aeiu", text);
  }
}

} // namespace llumnix
