#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace llumnix {

/// A set of instances, by their numbers. Means something only to the `instance_sets` it was filled
/// by.
struct instance_set {
  static constexpr std::size_t few_max = 4;

  std::uint16_t count = 0;
  bool many = false; ///< where they stand
  union {
    std::array<std::uint16_t, few_max> few{}; ///< in no order
    std::uint32_t bits;                       ///< which set of bits, one for each instance
  };
};

/// Memory of many sets of instances, most of them small: a few numbers stand in the set itself,
/// more are bits in here.
class instance_sets {
public:
  /// Numbers are below `numbers_max`, at most 65536.
  explicit instance_sets(std::uint32_t numbers_max)
    : words_max_{(numbers_max + 64 * stride - 1) / (64 * stride) * stride} {}

  bool contains(const instance_set& set, std::uint32_t number) const {
    if (set.many)
      return (bits_of(set)[number / 64] >> (number % 64) & 1) != 0;
    auto end = set.few.begin() + set.count;
    return std::find(set.few.begin(), end, number) != end;
  }
  void add(instance_set& set, std::uint32_t number);
  /// Nothing is kept for a set from which all have been removed.
  void remove(instance_set& set, std::uint32_t number);
  /// The set will be looked at soon.
  void prefetch(const instance_set& set) const {
    if (set.many)
      for (std::size_t word = 0; word < words_; word += 8)
        __builtin_prefetch(bits_of(set) + word);
  }

private:
  friend class prefix_survivors;
  static constexpr std::size_t stride = 8; ///< words that are looked at together
  const std::uint64_t* bits_of(const instance_set& set) const {
    return &bits_[set.bits * words_max_];
  }
  std::uint64_t* bits_of(const instance_set& set) { return &bits_[set.bits * words_max_]; }

  std::size_t words_max_;           ///< of each set of bits; whole strides
  std::size_t words_ = 0;           ///< that may have bits at all; whole strides
  std::vector<std::uint64_t> bits_; ///< `words_max_` for each
  std::vector<std::uint32_t> free_; ///< sets of bits that are nobody's
};

/// Who is in all sets of a row, and how far the others came. The distance of each instance is
/// written to `best`, by its number, unless there is more already.
class prefix_survivors {
public:
  /// `sets` outlives this.
  explicit prefix_survivors(const instance_sets& sets)
    : sets_{sets}, live_(sets.words_max_), losers_(sets.words_max_) {}

  /// A new row. False when its first set is empty.
  bool begin(const instance_set& first);
  /// Those who are not in `next` came as far as `distance`. False when nobody is left.
  bool narrow(const instance_set& next, std::uint32_t distance, std::vector<std::uint32_t>& best);
  /// All who are left came as far as `distance`.
  void end(std::uint32_t distance, std::vector<std::uint32_t>& best) const;

private:
  struct part {
    std::uint64_t bits = 0;
    std::size_t word = 0;
  };
  bool
  become_few(const instance_set& next, std::uint32_t distance, std::vector<std::uint32_t>& best);
  bool
  narrow_few(const instance_set& next, std::uint32_t distance, std::vector<std::uint32_t>& best);
  bool
  narrow_many(const std::uint64_t* next, std::uint32_t distance, std::vector<std::uint32_t>& best);

  const instance_sets& sets_;
  bool are_few_ = true;
  std::size_t few_count_ = 0;
  std::array<std::uint16_t, instance_set::few_max> few_{};
  std::vector<std::uint64_t> live_; ///< as bits, unless they are few
  std::vector<part> losers_;        ///< of one step
};

} // namespace llumnix
