#pragma once

#include "runtime/serving/tokenizer.hpp"

namespace llumnix {

/// The modeled engine's vocabulary (spec/modeled_engine.md 1): 0..255 the bytes of UTF-8 text,
/// 256..263 special ids, 512..1023 words of two syllables. Everything else is refused.
class byte_tokenizer final : public tokenizer {
public:
  static constexpr token_id bos = 256, eos = 257, broken = 258, system = 259, user = 260,
                            assistant = 261, tool = 262, end = 263;
  result<std::vector<token_id>> encode(std::string_view text) const override;
  result<std::vector<token_id>> encode_chat(std::span<const chat_message> messages) const override;
  bool valid(token_id id) const override;
  void append_text(token_id id, std::string& text) const override;
};

} // namespace llumnix
