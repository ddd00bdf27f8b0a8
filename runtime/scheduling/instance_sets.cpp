#include "runtime/scheduling/instance_sets.hpp"

#include <bit>

namespace llumnix {
namespace {

constexpr std::uint64_t bit_of(std::uint32_t number) {
  return std::uint64_t{1} << (number % 64);
}

std::size_t number_of(std::size_t word, std::uint64_t bits) {
  return 64 * word + static_cast<std::size_t>(std::countr_zero(bits));
}

void credit(std::size_t number, std::uint32_t distance, std::vector<std::uint32_t>& best) {
  best[number] = std::max(best[number], distance);
}

void credit_word(
  std::uint64_t bits, std::size_t word, std::uint32_t distance, std::vector<std::uint32_t>& best) {
  for (; bits != 0; bits &= bits - 1)
    credit(number_of(word, bits), distance, best);
}

/// Whether so many words have no bit that `set` has not. The compiler makes vectors of it.
template <std::size_t Count>
bool within(const std::uint64_t* words, const std::uint64_t* set) {
  std::uint64_t beyond = 0;
  for (std::size_t i = 0; i < Count; ++i)
    beyond |= words[i] & ~set[i];
  return beyond == 0;
}

} // namespace

void instance_sets::add(instance_set& set, std::uint32_t number) {
  if (contains(set, number))
    return;
  words_ = std::max(words_, (number / (64 * stride) + 1) * stride);
  if (!set.many && set.count == instance_set::few_max) {
    auto few = set.few;
    set.many = true;
    if (free_.empty()) {
      set.bits = static_cast<std::uint32_t>(bits_.size() / words_max_);
      bits_.resize(bits_.size() + words_max_);
    } else {
      set.bits = free_.back();
      free_.pop_back();
    }
    for (auto each : few)
      bits_of(set)[each / 64] |= bit_of(each);
  }
  if (set.many)
    bits_of(set)[number / 64] |= bit_of(number);
  else
    set.few[set.count] = static_cast<std::uint16_t>(number);
  ++set.count;
}

void instance_sets::remove(instance_set& set, std::uint32_t number) {
  if (!contains(set, number))
    return;
  --set.count;
  if (!set.many) {
    *std::find(set.few.begin(), set.few.end(), number) = set.few[set.count];
    return;
  }
  auto* bits = bits_of(set);
  bits[number / 64] &= ~bit_of(number);
  if (set.count > instance_set::few_max / 2) // or one that comes and goes would cost much
    return;
  std::array<std::uint16_t, instance_set::few_max> few{};
  for (std::size_t word = 0, found = 0; word < words_; ++word)
    for (; bits[word] != 0; bits[word] &= bits[word] - 1) // which leaves them empty for others
      few[found++] = static_cast<std::uint16_t>(number_of(word, bits[word]));
  free_.push_back(set.bits);
  set.many = false;
  set.few = few;
}

bool prefix_survivors::begin(const instance_set& first) {
  are_few_ = !first.many;
  few_count_ = 0;
  if (first.many) {
    std::copy_n(sets_.bits_of(first), sets_.words_, live_.begin());
  } else {
    few_ = first.few;
    few_count_ = first.count;
  }
  return first.count > 0;
}

bool prefix_survivors::narrow(
  const instance_set& next, std::uint32_t distance, std::vector<std::uint32_t>& best) {
  if (are_few_)
    return narrow_few(next, distance, best);
  if (next.many)
    return narrow_many(sets_.bits_of(next), distance, best);
  return become_few(next, distance, best);
}

bool prefix_survivors::become_few(
  const instance_set& next, std::uint32_t distance, std::vector<std::uint32_t>& best) {
  few_count_ = 0;
  for (std::size_t i = 0; i < next.count; ++i) {
    auto& word = live_[next.few[i] / 64];
    if ((word & bit_of(next.few[i])) != 0)
      few_[few_count_++] = next.few[i];
    word &= ~bit_of(next.few[i]);
  }
  end(distance, best); // of the others
  are_few_ = true;
  return few_count_ > 0;
}

bool prefix_survivors::narrow_few(
  const instance_set& next, std::uint32_t distance, std::vector<std::uint32_t>& best) {
  for (std::size_t i = 0; i < few_count_;) {
    if (sets_.contains(next, few_[i])) {
      ++i;
    } else {
      credit(few_[i], distance, best);
      few_[i] = few_[--few_count_];
    }
  }
  return few_count_ > 0;
}

bool prefix_survivors::narrow_many(
  const std::uint64_t* next, std::uint32_t distance, std::vector<std::uint32_t>& best) {
  constexpr auto stride = instance_sets::stride;
  bool all = true;
  for (std::size_t word = 0; word < sets_.words_ && all; word += stride)
    all = within<stride>(&live_[word], next + word);
  if (all)
    return true;
  std::uint64_t any = 0;
  std::size_t count = 0; // of words with losers, without a branch: no one could foretell it
  for (std::size_t word = 0; word < sets_.words_; ++word) {
    losers_[count] = {live_[word] & ~next[word], word};
    count += losers_[count].bits != 0;
    any |= live_[word] &= next[word];
  }
  for (std::size_t i = 0; i < count; ++i)
    credit_word(losers_[i].bits, losers_[i].word, distance, best);
  return any != 0;
}

void prefix_survivors::end(std::uint32_t distance, std::vector<std::uint32_t>& best) const {
  if (are_few_)
    for (std::size_t i = 0; i < few_count_; ++i)
      credit(few_[i], distance, best);
  else
    for (std::size_t word = 0; word < sets_.words_; ++word)
      credit_word(live_[word], word, distance, best);
}

} // namespace llumnix
