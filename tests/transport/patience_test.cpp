#include "transport/ucx/patience.hpp"

#include <doctest/doctest.h>

using namespace llumnix;
using namespace std::chrono_literals;

TEST_CASE(
  "a peer is borne with until the first of its limits, and nobody is woken for a closed one") {
  ucx_settings settings;
  settings.connect_within = 1s;
  settings.silence_max = 2s;
  constexpr auto never = time_point::max();
  auto at = [](nanoseconds x) { return time_point{x}; };
  struct row {
    const char* name;
    ucx::peer_times peer; // closing, proven, reads, opened, heard, cut_at
    time_point cut_off;
  };
  for (const auto& [name, peer, cut_off] : {
         row{"a stranger", {false, false, false, at(10s), at(10s), never}, at(11s)},
         row{"a stranger that talks", {false, false, false, at(10s), at(10900ms), never}, at(11s)},
         row{"a peer at rest", {false, true, false, at(10s), at(10s), never}, never},
         row{"at rest, with an old limit", {false, true, false, at(10s), at(10s), at(5s)}, never},
         row{"one that reads", {false, true, true, at(10s), at(50s), never}, at(52s)},
         row{
           "whose window closes", {false, true, true, at(10s), at(50s), at(50500ms)}, at(50500ms)},
         row{"that took nothing for long", {false, true, true, at(10s), at(50s), at(40s)}, at(40s)},
         row{"that will be silent first", {false, true, true, at(10s), at(50s), at(60s)}, at(52s)},
         row{"a stranger being closed", {true, false, false, at(10s), at(10s), never}, never},
         row{"a reader being closed", {true, true, true, at(10s), at(50s), at(40s)}, never},
       }) {
    CAPTURE(name);
    CHECK(cut_off_at(peer, settings) == cut_off);
  }
}
