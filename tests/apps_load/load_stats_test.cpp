#include "apps/load/load_stats.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace llumnix::load {

TEST_CASE("quantiles are within one percent, the maximum is exact") {
  histogram of;
  CHECK(of.quantile(0.5).count() == 0);
  for (std::int64_t i = 1; i <= 100'000; ++i)
    of.add(nanoseconds{i * 1'000});
  for (double q : {0.001, 0.5, 0.9, 0.99, 1.0}) {
    CAPTURE(q);
    auto exact = q * 100'000'000;
    auto got = static_cast<double>(of.quantile(q).count());
    CHECK(got >= exact * 0.9999);
    CHECK(got <= exact * 1.01);
  }
  CHECK(of.max() == nanoseconds{100'000'000});
  of.add(nanoseconds::max()); // the largest there is has a bucket too
  CHECK(of.quantile(1) == nanoseconds::max());
  of.add(nanoseconds{-5});
  CHECK(of.count() == 100'002);
}

TEST_CASE("a report counts failures by reason and tells wrong answers, both bounded") {
  load_stats stats;
  for (int i = 0; i < 100; ++i) {
    stats.started();
    request_outcome outcome;
    outcome.failure = "reason " + std::to_string(i);
    outcome.has_wrong = true;
    outcome.wrong
      = {"id-" + std::to_string(i), static_cast<std::uint64_t>(i), 0, {3, " dotu", "\xE2\x9F\x82"}};
    stats.ended(outcome);
  }
  stats.started();
  request_outcome fine;
  fine.output_tokens = fine.checked_tokens = 8;
  fine.end_to_end = std::chrono::milliseconds{20};
  stats.ended(fine);
  load_stats::frame about;
  about.verified = true;
  about.lasted = std::chrono::seconds{2};
  auto report = nlohmann::json::parse(stats.json(about));
  CHECK(report["requests"]["ok"] == 1);
  CHECK(report["requests"]["failed"] == 100);
  CHECK(report["requests"]["failures"].size() == 33);
  CHECK(report["requests"]["failures"]["other"] == 68);
  CHECK(report["verify"]["wrong_requests"] == 100);
  CHECK(report["verify"]["wrong"].size() == 20);
  CHECK(report["verify"]["wrong"][0]["got"] == "\xE2\x9F\x82");
  CHECK(report["throughput"]["output_tokens_per_s"] == doctest::Approx(4));
  CHECK(report["ttft_ms"].is_null());
  CHECK(report["e2e_ms"]["max"] == doctest::Approx(20));
  CHECK(
    stats.text(about).find("token 3: expected ' dotu', got '\xE2\x9F\x82'") != std::string::npos);
}

} // namespace llumnix::load
