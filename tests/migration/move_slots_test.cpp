#include "runtime/migration/move_slots.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace llumnix;

// Mends weakness 13 of spec/rescheduling.md.
TEST_CASE("so many requests leave at a time, and so many over one link") {
  struct row {
    std::uint32_t slots;
    std::uint32_t per_link;
    std::vector<std::string> leaving;
    std::string to;
    bool free;
  };
  for (const auto& [slots, per_link, leaving, to, free] : {
         row{4, 2, {}, "a", true},
         row{4, 2, {"a"}, "a", true},
         row{4, 2, {"a", "a"}, "a", false},
         row{4, 2, {"a", "a"}, "b", true}, // another link
         row{4, 2, {"a", "a", "b", "b"}, "c", false},
         row{1, 2, {"a"}, "b", false},
         row{0, 2, {}, "a", false},
         row{4, 0, {}, "a", false},
       }) {
    move_slots left{slots, per_link};
    for (const auto& node : leaving)
      left.take(node);
    CHECK(left.free_to(to) == free);
    CHECK(left.any_free() == (leaving.size() < slots));
  }
}

TEST_CASE("what is given back can be taken again") {
  move_slots left{2, 1};
  left.take("a");
  left.take("b");
  CHECK(!left.any_free());
  left.give_back("a");
  CHECK(left.taken() == 1);
  CHECK(left.free_to("a"));
  CHECK(!left.free_to("b"));
  left.take("a");
  left.give_back("a");
  left.give_back("b");
  CHECK(left.taken() == 0);
  CHECK(left.free_to("b"));
}
