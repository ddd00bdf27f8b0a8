#include "runtime/serving/tokenizer.hpp"

#include <algorithm>

namespace llumnix {

namespace {

/// Bytes of the sequence that `lead` begins; 1 for ASCII and for bytes that begin nothing.
std::size_t sequence_length(unsigned char lead) {
  if (lead >= 0xC2 && lead <= 0xDF)
    return 2;
  if (lead >= 0xE0 && lead <= 0xEF)
    return 3;
  return lead >= 0xF0 && lead <= 0xF4 ? 4 : 1;
}

/// Whether `second` may follow `lead`: no overlong forms, no surrogates, nothing above U+10FFFF.
bool may_follow(unsigned char lead, unsigned char second) {
  auto low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  auto high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  return second >= low && second <= high;
}

} // namespace

std::size_t utf8_complete_prefix(std::string_view text) {
  auto longest = std::min<std::size_t>(3, text.size());
  for (std::size_t tail = 1; tail <= longest; ++tail) {
    auto lead = static_cast<unsigned char>(text[text.size() - tail]);
    if ((lead & 0xC0) == 0x80)
      continue; // a continuation; its lead stands further left
    auto begins = sequence_length(lead) > tail;
    auto goes_on
      = tail == 1 || may_follow(lead, static_cast<unsigned char>(text[text.size() - tail + 1]));
    return begins && goes_on ? text.size() - tail : text.size();
  }
  return text.size();
}

} // namespace llumnix
