#include "apps/node_metrics.hpp"

#include <doctest/doctest.h>

namespace llumnix {

namespace {

bool has(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

std::size_t lines_with(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at)
    ++count;
  return count;
}

} // namespace

TEST_CASE("errors of predictions are told by what was predicted and by the side they are on") {
  node_counters counters;
  auto before = node_metrics_text(counters, nullptr, 1);
  CHECK(has(before, "# TYPE llumnix_prediction_error_milliseconds histogram"));
  CHECK(lines_with(before, "llumnix_prediction_error_milliseconds_count") == 0);
  counters.ttft_error.observe(15);
  counters.ttft_error.observe(0);
  counters.ttft_error.observe(-70'000);
  counters.tpot_error.observe(2.5);
  auto text = node_metrics_text(counters, nullptr, 1);
  const std::string name = "llumnix_prediction_error_milliseconds";
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="late",le="10"} 1)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="late",le="20"} 2)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="late",le="+Inf"} 2)"));
  CHECK(has(text, name + R"(_sum{kind="ttft",side="late"} 15)"));
  CHECK(has(text, name + R"(_count{kind="ttft",side="late"} 2)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="early",le="60000"} 0)"));
  CHECK(has(text, name + R"(_bucket{kind="ttft",side="early",le="+Inf"} 1)"));
  CHECK(has(text, name + R"(_sum{kind="ttft",side="early"} 70000)"));
  CHECK(has(text, name + R"(_bucket{kind="tpot",side="late",le="2"} 0)"));
  CHECK(has(text, name + R"(_bucket{kind="tpot",side="late",le="5"} 1)"));
  CHECK(lines_with(text, R"(kind="tpot",side="early")") == 0);
}

} // namespace llumnix
