#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace llumnix {

/// How many requests may leave an instance at a time: in all, and over one link, to the same node
/// (spec/migration.md 10). By hand, by drains or by plan, all the same.
class move_slots {
public:
  move_slots() = default;
  move_slots(std::uint32_t slots, std::uint32_t per_link) : slots_{slots}, per_link_{per_link} {}

  bool any_free() const { return taken_ < slots_; }
  bool free_to(const std::string& node) const {
    auto link = links_.find(node);
    return any_free() && (link == links_.end() ? 0 : link->second) < per_link_;
  }
  void take(const std::string& node) {
    ++taken_;
    ++links_[node];
  }
  /// One that was taken.
  void give_back(const std::string& node) {
    --taken_;
    if (auto link = links_.find(node); --link->second == 0)
      links_.erase(link);
  }
  std::uint32_t taken() const { return taken_; }

private:
  std::uint32_t slots_ = 0;
  std::uint32_t per_link_ = 0;
  std::uint32_t taken_ = 0;
  std::map<std::string, std::uint32_t> links_; ///< taken, by node
};

} // namespace llumnix
