#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace llumnix {

/// Indexes by hash, with open addressing: 32 bits of the hash beside each, so that a wrong index is
/// rarely looked at.
class hash_table {
public:
  static constexpr auto none = static_cast<std::uint32_t>(-1);

  void prefetch(std::uint64_t hash) const {
    if (!slots_.empty())
      __builtin_prefetch(&slots_[home(static_cast<std::uint32_t>(hash))]);
  }
  /// The first index with these 32 bits: nearly always the one under `hash`, if there is any.
  std::uint32_t guess(std::uint64_t hash) const {
    return find(hash, [](std::uint32_t) { return true; });
  }
  /// The index under `hash` for which `same` holds, else `none`.
  template <class Same>
  std::uint32_t find(std::uint64_t hash, Same same) const {
    auto tag = static_cast<std::uint32_t>(hash);
    if (!slots_.empty())
      for (auto at = home(tag); slots_[at].index != none; at = next(at))
        if (slots_[at].tag == tag && same(slots_[at].index))
          return slots_[at].index;
    return none;
  }
  void insert(std::uint64_t hash, std::uint32_t index) {
    if (2 * (used_ + 1) > slots_.size())
      grow();
    place({static_cast<std::uint32_t>(hash), index});
    ++used_;
  }
  /// `index` must be there, under `hash`.
  void erase(std::uint64_t hash, std::uint32_t index) {
    auto hole = home(static_cast<std::uint32_t>(hash));
    while (slots_[hole].index != index)
      hole = next(hole);
    // What follows moves up, unless it would come to stand before its home.
    for (auto at = next(hole); slots_[at].index != none; at = next(at)) {
      auto from_home = (at - home(slots_[at].tag)) & (slots_.size() - 1);
      auto from_hole = (at - hole) & (slots_.size() - 1);
      if (from_home >= from_hole) {
        slots_[hole] = slots_[at];
        hole = at;
      }
    }
    slots_[hole].index = none;
    --used_;
  }
  std::size_t size() const { return used_; }

private:
  struct slot {
    std::uint32_t tag = 0;
    std::uint32_t index = none;
  };
  std::size_t home(std::uint32_t tag) const { return tag & (slots_.size() - 1); }
  std::size_t next(std::size_t at) const { return (at + 1) & (slots_.size() - 1); }
  void place(slot filled) {
    auto at = home(filled.tag);
    while (slots_[at].index != none)
      at = next(at);
    slots_[at] = filled;
  }
  void grow() {
    std::vector<slot> old(std::max<std::size_t>(16, 2 * slots_.size()));
    old.swap(slots_);
    for (const auto& it : old)
      if (it.index != none)
        place(it);
  }

  std::vector<slot> slots_; ///< a power of two, at most half of them used
  std::size_t used_ = 0;
};

/// Values named by their position, which others take over after them.
template <class T>
class slot_pool {
public:
  std::uint32_t take() {
    if (free_.empty()) {
      values_.emplace_back();
      return static_cast<std::uint32_t>(values_.size() - 1);
    }
    auto at = free_.back();
    free_.pop_back();
    values_[at] = T{};
    return at;
  }
  void give_back(std::uint32_t at) { free_.push_back(at); }
  T& operator[](std::uint32_t at) { return values_[at]; }
  const T& operator[](std::uint32_t at) const { return values_[at]; }
  std::size_t used() const { return values_.size() - free_.size(); }

private:
  std::vector<T> values_;
  std::vector<std::uint32_t> free_;
};

} // namespace llumnix
