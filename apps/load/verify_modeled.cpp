#include "apps/load/verify_modeled.hpp"

#include <algorithm>
#include <array>

namespace llumnix::load {

namespace {

constexpr std::uint32_t bos = 256;
constexpr std::uint32_t eos = 257;
constexpr std::uint32_t user_role = 260;
constexpr std::uint32_t assistant_role = 261;
constexpr std::uint32_t message_end = 263;
constexpr std::uint32_t first_word = 512;
constexpr std::uint32_t words = 512;
constexpr std::size_t shown_bytes = 24; ///< of wrong text, in a report

std::uint64_t mix(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27U)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31U);
}

void append(expected_output& prompt, std::uint32_t id) {
  prompt.digest = mix(prompt.digest ^ mix(id));
  ++prompt.length;
}

void append(expected_output& prompt, std::string_view bytes) {
  for (char byte : bytes)
    append(prompt, static_cast<std::uint32_t>(static_cast<unsigned char>(byte)));
}

std::string word_text(std::uint32_t id) {
  constexpr std::string_view first_consonants = "bdfgklmn";
  constexpr std::string_view first_vowels = "aeio";
  constexpr std::string_view last_consonants = "rstv";
  constexpr std::string_view last_vowels = "aeiu";
  auto word = id - first_word;
  auto first = word >> 4U;
  auto last = word & 15U;
  return {
    ' ', first_consonants[first / 4], first_vowels[first % 4], last_consonants[last / 4],
    last_vowels[last % 4]};
}

/// The first bytes of `text`, cut before a character would be split.
std::string shown(std::string_view text) {
  if (text.size() <= shown_bytes)
    return std::string{text};
  auto end = shown_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U)
    --end;
  return std::string{text.substr(0, end)} + "...";
}

} // namespace

expected_output expect_completion(std::string_view prompt) {
  expected_output expected;
  append(expected, prompt);
  return expected;
}

expected_output expect_chat(std::string_view content) {
  expected_output expected;
  append(expected, bos);
  append(expected, user_role);
  append(expected, content);
  append(expected, message_end);
  append(expected, assistant_role);
  return expected;
}

std::uint64_t sampling_key(std::optional<std::uint64_t> seed, std::uint32_t choice) {
  if (seed)
    return mix(*seed ^ mix(choice));
  return choice == 0 ? 0 : mix(choice);
}

output_checker::output_checker(const expected_output& expected)
  : expected_{expected}, digest_{expected.digest} {}

std::optional<mismatch> output_checker::feed(std::string_view text) {
  while (!text.empty()) {
    if (matched_ == word_.size())
      advance();
    if (!reason_.empty())
      return mismatch{produced_, "end (" + std::string{reason_} + ")", shown(text)};
    auto common = std::min(word_.size() - matched_, text.size());
    if (text.substr(0, common) != std::string_view{word_}.substr(matched_, common))
      return mismatch{produced_ - 1, word_, shown(word_.substr(0, matched_) + std::string{text})};
    matched_ += common;
    text.remove_prefix(common);
  }
  return std::nullopt;
}

std::optional<mismatch> output_checker::finish(std::string_view reason) {
  auto came = "end (" + std::string{reason} + ")";
  if (matched_ < word_.size())
    return mismatch{produced_ - 1, word_, word_.substr(0, matched_) + came};
  advance();
  if (reason_.empty())
    return mismatch{produced_ - 1, word_, came};
  if (reason_ != reason)
    return mismatch{produced_, "end (" + std::string{reason_} + ")", came};
  return std::nullopt;
}

void output_checker::advance() {
  word_.clear();
  matched_ = 0;
  if (!reason_.empty())
    return;
  if (produced_ == expected_.max_tokens) {
    reason_ = "length";
    return;
  }
  // The key is added to the number of the position that the token takes, which counts prompt and
  // output.
  auto value = mix(digest_ ^ mix(expected_.key + expected_.length + produced_));
  bool may_end = !expected_.ignore_eos && produced_ >= expected_.min_tokens;
  auto id = value % 256 == 0 && may_end
              ? eos
              : first_word + static_cast<std::uint32_t>((value >> 8U) % words);
  digest_ = mix(digest_ ^ mix(id));
  ++produced_;
  if (id == eos)
    reason_ = "stop";
  else
    word_ = word_text(id);
}

} // namespace llumnix::load
