#include "runtime/scheduling/step_model.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

using namespace llumnix;

namespace {

using sample = std::pair<double, double>; // tokens, ms
constexpr auto not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr auto infinite = std::numeric_limits<double>::infinity();

step_model model_of(const std::vector<sample>& samples, std::size_t warmup = 0) {
  step_model model{warmup};
  for (auto [tokens, ms] : samples)
    REQUIRE(model.add(tokens, ms));
  model.fit();
  return model;
}

/// Least squares from all samples at once: centred, scaled, by elimination in long double.
std::vector<long double>
literal_fit(const std::vector<sample>& samples, long double middle, long double scale) {
  std::set<double> sizes;
  for (auto [x, y] : samples)
    sizes.insert(x);
  auto n = std::min<std::size_t>(3, sizes.size());
  std::vector<std::vector<long double>> rows(n, std::vector<long double>(n + 1));
  for (auto [x, y] : samples)
    for (std::size_t i = 0; i < n; ++i) {
      auto u = (x - middle) / scale;
      for (std::size_t j = 0; j < n; ++j)
        rows[i][j] += std::pow(u, static_cast<long double>(i + j));
      rows[i][n] += std::pow(u, static_cast<long double>(i)) * y;
    }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t k = 0; k < n; ++k)
      if (k != i) {
        auto share = rows[k][i] / rows[i][i];
        for (std::size_t j = i; j <= n; ++j)
          rows[k][j] -= share * rows[i][j];
      }
  std::vector<long double> weights(3);
  for (std::size_t i = 0; i < n; ++i)
    weights[i] = rows[i][n] / rows[i][i];
  return weights;
}

/// The loop of spec/scheduling.md 9.1 with "wanted: min(done, initial work)".
std::int64_t literal_progress(
  const step_coefficients& m, double elapsed, std::int64_t work, std::int64_t run,
  std::int64_t most) {
  auto initial = work;
  std::int64_t done = 0;
  if (elapsed <= 0)
    return 0;
  while (elapsed > 0 && work > 0) {
    std::int64_t step;
    if (0 < run && run < most) {
      step = run;
      run = 0;
    } else {
      step = work < most ? work : most;
    }
    auto x = static_cast<double>(step);
    auto t = m.a * x * x + m.b * x + m.c;
    if (std::isnan(t) || std::isinf(t) || t <= 0 || t < 0.001 || t > 1e6) {
      done = 0;
      break;
    }
    if (elapsed >= t) {
      done += step;
      elapsed -= t;
      work -= step;
    } else {
      done += static_cast<std::int64_t>(std::round(x * elapsed / t));
      elapsed = 0;
      work = 0;
    }
  }
  return done < initial ? done : initial;
}

} // namespace

TEST_CASE("what is no sample changes nothing") {
  auto model = model_of({{10, 5}});
  REQUIRE(model.fitted());
  for (auto [tokens, ms] :
       {sample{0, 5}, sample{-3, 5}, sample{10, 0}, sample{10, -1}, sample{not_a_number, 5},
        sample{10, not_a_number}, sample{infinite, 5}, sample{10, infinite}, sample{1e300, 5},
        sample{10, 1e300}}) {
    CAPTURE(tokens);
    CAPTURE(ms);
    CHECK_FALSE(model.add(tokens, ms));
  }
  CHECK(model.samples() == 1);
  CHECK(model.fitted() == step_coefficients{0, 0, 5});
}

TEST_CASE("a model is there from the warmup on, except between a sample and the next fit") {
  step_model model{3};
  model.fit();
  CHECK_FALSE(model.fitted());
  for (double x : {1.0, 2.0}) {
    REQUIRE(model.add(x, 2 * x));
    model.fit();
    CHECK_FALSE(model.fitted());
  }
  REQUIRE(model.add(3, 6));
  CHECK_FALSE(model.fitted());
  model.fit();
  REQUIRE(model.fitted());
  auto before = *model.fitted();
  model.fit();
  CHECK(model.fitted() == before);
  REQUIRE(model.add(4, 9));
  CHECK_FALSE(model.fitted());
  model.fit();
  CHECK(model.fitted());
  step_model empty{0};
  empty.fit();
  CHECK_FALSE(empty.fitted());
}

// Mends weakness 4 of spec/scheduling.md.
TEST_CASE("the curve has as many terms as different sizes were seen") {
  struct row {
    const char* why;
    std::vector<sample> samples;
    step_coefficients wanted;
  };
  for (auto& [why, samples, wanted] : {
         row{"one sample", {{7, 2}}, {0, 0, 2}},
         row{"one size: the mean", {{7, 2}, {7, 4}, {7, 6}}, {0, 0, 4}},
         row{"two samples", {{300, 11}, {900, 23.5}}, {0, 12.5 / 600, 4.75}},
         row{"two sizes: a line through the means", {{10, 5}, {20, 16}, {10, 7}}, {0, 1, -4}},
         row{"three sizes", {{1, 6}, {2, 11}, {3, 18}}, {1, 2, 3}},
         row{"more than needed, on a line", {{4, 5}, {1, 1}, {3, 3}, {2, 3}}, {0, 1.2, 0}},
         row{"more than needed, bent", {{4, 6}, {1, 2}, {3, 3}, {2, 3}}, {0.5, -1.3, 3}},
       }) {
    CAPTURE(why);
    auto model = model_of(samples);
    REQUIRE(model.fitted());
    CHECK(model.fitted()->a == doctest::Approx(wanted.a).epsilon(1e-12));
    CHECK(model.fitted()->b == doctest::Approx(wanted.b).epsilon(1e-12));
    CHECK(model.fitted()->c == doctest::Approx(wanted.c).epsilon(1e-12));
  }
}

TEST_CASE("the fit stays sound where powers of sizes would not") {
  struct row {
    const char* why;
    std::vector<double> sizes;
    int times;
  };
  for (auto& [why, sizes, times] : {
         row{"neighbours far out", {1e6, 1e6 + 1, 1e6 + 2}, 1},
         row{"an outlier", {100, 101, 65536}, 1},
         row{"the outlier first", {65536, 100, 101}, 1},
         row{"all sizes there are", {1, 2, 4'294'967'296.0}, 1},
         row{"very often the same two", {1000, 2000}, 50'000},
         row{"very often the same", {65536}, 50'000},
       }) {
    CAPTURE(why);
    step_model model{0};
    auto y = [](double x) { return 3 + x / 1024; };
    for (int i = 0; i < times; ++i)
      for (auto x : sizes)
        REQUIRE(model.add(x, y(x)));
    model.fit();
    REQUIRE(model.fitted());
    if (sizes.size() < 3)
      CHECK(model.fitted()->a == 0);
    for (auto x : sizes)
      if (y(x) < 1e6)
        CHECK(
          model.fitted()->step_ms(static_cast<std::int64_t>(x)).value_or(-1)
          == doctest::Approx(y(x)).epsilon(1e-6));
  }
}

TEST_CASE("a random fit is that of all samples at once") {
  std::mt19937_64 random{3};
  for (int round = 0; round < 100; ++round) {
    auto spread = 1 + random() % (round % 2 ? 4 : 8000);
    std::vector<sample> samples;
    for (auto left = 1 + random() % 60; left > 0; --left) {
      auto x = static_cast<double>(1 + random() % spread);
      samples.emplace_back(x, 0.5 + x / 64 + static_cast<double>(random() % 1000) / 100);
    }
    CAPTURE(round);
    auto model = model_of(samples);
    REQUIRE(model.fitted());
    auto middle = static_cast<long double>(spread) / 2, scale = middle + 1;
    auto weights = literal_fit(samples, middle, scale);
    for (auto [x, y] : samples) {
      auto u = (static_cast<long double>(x) - middle) / scale;
      auto wanted = static_cast<double>(weights[0] + u * (weights[1] + u * weights[2]));
      auto& fit = *model.fitted();
      REQUIRE(fit.a * x * x + fit.b * x + fit.c == doctest::Approx(wanted).epsilon(1e-7));
    }
  }
}

TEST_CASE("no step takes less than a microsecond or more than a thousand seconds") {
  using row = std::pair<step_coefficients, std::optional<double>>;
  for (auto& [curve, ms] :
       {row{{0, 0.5, 1}, 6}, row{{1, 0, 0}, 100}, row{{0, 0, 0}, {}}, row{{0, 0, -5}, {}},
        row{{0, 0, 0.001}, 0.001}, row{{0, 0, 0.0009}, {}}, row{{0, 0, 1e6}, 1e6},
        row{{0, 0, 1'000'001}, {}}, row{{not_a_number, 0, 1}, {}}, row{{infinite, 0, 1}, {}}})
    CHECK(curve.step_ms(10) == ms);
}

// Mends weakness 3 of spec/scheduling.md.
TEST_CASE("progress is what the steps since the report have computed") {
  struct row {
    const char* why;
    step_coefficients model;
    prefill_backlog backlog;
    std::int64_t tokens;
  };
  const step_coefficients tenth{0, 0.1, 0}, two{0, 2, 0}, uneven{0, 1, -10};
  for (auto& [why, model, backlog, tokens] : {
         row{"half of a step", tenth, {50, 1000, 0, 1000}, 500},
         row{"exactly a step", {0, 0.125, 0}, {125, 1000, 0, 1000}, 1000},
         row{"a step and a half", {0, 0.125, 0}, {186, 2000, 0, 1000}, 1488},
         row{"never more than there was", tenth, {100'000, 2500, 0, 1000}, 2500},
         row{"the running prefill goes first", tenth, {50, 1000, 200, 1000}, 500},
         row{"a running prefill beyond a step", tenth, {50, 1000, 1000, 1000}, 500},
         row{"a running prefill below 0", tenth, {50, 1000, -7, 1000}, 500},
         row{"a running prefill beyond the work", tenth, {60, 100, 500, 1000}, 100},
         row{"a fraction of a token", tenth, {50, 1000.9f, 0, 1000}, 500},
         row{"halves away from zero", two, {1, 1, 0, 5}, 1},
         row{"halves away from zero", two, {3, 5, 0, 5}, 2},
         row{"halves away from zero", two, {5, 5, 0, 5}, 3},
         row{"no time", tenth, {0, 1000, 0, 1000}, 0},
         row{"a clock ahead", tenth, {-5, 1000, 0, 1000}, 0},
         row{"no work", tenth, {50, 0, 200, 1000}, 0},
         row{"work below 0, as the rule has it", tenth, {50, -5, 200, 1000}, -5},
         row{"steps of nothing", tenth, {50, 1000, 200, 0}, 0},
         row{"a step that cannot be", {0, 0, 0}, {50, 1000, 0, 1000}, 0},
         row{"a later step that cannot be", uneven, {95, 105, 0, 100}, 0},
         row{"the same, not reached", uneven, {90, 105, 0, 100}, 100},
         row{"an endless step", {0, 0, 1e7}, {50, 1000, 0, 1000}, 0},
         row{"bounded looking", {0, 0, 0.001}, {1'000'000'000, 0x1p31f, 0, 1}, 65536},
         row{"no number", tenth, {50, std::numeric_limits<float>::quiet_NaN(), 0, 1000}, 0},
         row{
           "all the work there can be",
           tenth,
           {std::numeric_limits<std::int64_t>::max(), 0x1p31f, 0, 4'294'967'295u},
           0},
       }) {
    CAPTURE(why);
    CHECK(predicted_progress(model, backlog) == tokens);
  }
}

TEST_CASE("progress on random backlogs is that of the rule read literally") {
  std::mt19937_64 random{5};
  auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 20'000; ++round) {
    step_coefficients model{
      (below(21) - 5) * 1e-6, (below(40) - 4) * 0.01, static_cast<double>(below(30) - 5)};
    auto elapsed = below(3000) - 10, work = below(20'000) - 50, run = below(2000) - 100;
    auto most = 1 + below(3000);
    CAPTURE(round);
    REQUIRE(
      predicted_progress(
        model, {elapsed, static_cast<float>(work), run, static_cast<std::uint32_t>(most)})
      == literal_progress(model, elapsed, work, run, most));
  }
}
