#include "runtime/scheduling/latency_profile.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <map>
#include <random>
#include <set>

using namespace llumnix;

namespace {

using maybe = std::optional<double>;

constexpr auto infinite = std::numeric_limits<float>::infinity();
constexpr auto not_a_number = std::numeric_limits<float>::quiet_NaN();

interpolation_table prefills(std::initializer_list<std::pair<double, double>> tokens_and_ms) {
  std::vector<profile_point> points;
  for (auto [tokens, ms] : tokens_and_ms)
    points.push_back({tokens, 0, ms});
  return interpolation_table{std::move(points)};
}

interpolation_table decodes() {
  return interpolation_table{{{4, 64, 7.5}, {4, 128, 8.5}, {8, 64, 9}, {8, 128, 12}}};
}

/// The rules of spec/scheduling.md 9.2 to 9.4, word for word and slow.
struct literal_predictor {
  using table = std::map<std::pair<double, double>, double>;
  table t, p;

  static maybe lookup(const table& known, double a, double b) {
    if (a == 0 && b == 0)
      return 0;
    maybe a1, a2, b1, b2;
    for (auto& [at, ms] : known) {
      if (at.first <= a)
        a1 = std::max(a1.value_or(at.first), at.first);
      if (at.first >= a)
        a2 = std::min(a2.value_or(at.first), at.first);
      if (at.second <= b)
        b1 = std::max(b1.value_or(at.second), at.second);
      if (at.second >= b)
        b2 = std::min(b2.value_or(at.second), at.second);
    }
    if (!a1 || !a2 || !b1 || !b2)
      return {};
    for (auto& corner :
         {std::pair{*a1, *b1}, std::pair{*a1, *b2}, std::pair{*a2, *b1}, std::pair{*a2, *b2}})
      if (!known.contains(corner))
        return {};
    auto wa = *a2 - *a1 < 1e-10 ? 0 : (a - *a1) / (*a2 - *a1);
    auto wb = *b2 - *b1 < 1e-10 ? 0 : (b - *b1) / (*b2 - *b1);
    return known.at({*a1, *b1}) * (1 - wa) * (1 - wb) + known.at({*a1, *b2}) * (1 - wa) * wb
           + known.at({*a2, *b1}) * wa * (1 - wb) + known.at({*a2, *b2}) * wa * wb;
  }

  maybe l(double batch, double tokens) const {
    if (batch <= 0 || tokens <= 0)
      return 0;
    return lookup(p, batch, std::max(8.0, tokens / batch));
  }

  maybe q(std::int64_t tokens, double batch, double decode_tokens, std::int64_t chunk) const {
    auto beside = l(batch, decode_tokens);
    if (!beside)
      return {};
    double sum = 0;
    while (tokens > 0) {
      if (chunk <= 0)
        return {};
      auto piece = std::min(tokens, chunk);
      auto prefill = lookup(t, static_cast<double>(piece), 0);
      if (!prefill)
        return {};
      sum += *prefill + *beside;
      tokens -= piece;
    }
    return sum;
  }

  double ttft(const predicted_work& x) const {
    auto batch = std::trunc(x.decode_batch), held = std::trunc(x.all_decodes_tokens);
    auto reported = q(x.reported_prefills, batch, held, x.chunk);
    if (!reported)
      return infinite;
    auto elapsed = static_cast<double>(x.elapsed_ms);
    auto later = elapsed > std::trunc(*reported);
    auto work = later ? x.inflight_prefills : static_cast<std::int64_t>(x.all_prefills_tokens);
    auto ms = q(work + x.prompt_tokens, batch, held, x.chunk);
    return ms ? *ms - (later ? 0 : elapsed) : infinite;
  }
};

} // namespace

TEST_CASE("a table predicts nothing outside its grid") {
  interpolation_table none;
  CHECK(none.at(1, 0) == maybe{});
  CHECK(none.at(0, 0) == 0);
  auto ttft = prefills({{1024, 130}, {256, 31}, {512, 60}});
  using row = std::pair<double, maybe>;
  for (auto [tokens, ms] :
       {row{0, 0}, row{1, {}}, row{255, {}}, row{256, 31}, row{384, 45.5}, row{512, 60},
        row{700, 85.703125}, row{1024, 130}, row{1025, {}}, row{-1, {}}, row{std::nan(""), {}},
        row{infinite, {}}}) {
    CAPTURE(tokens);
    CHECK(ttft.at(tokens, 0) == ms);
  }
  CHECK(ttft.at(512, 1) == maybe{});
  CHECK(decodes().at(6, 96) == 9.25); // the mean of the four
}

TEST_CASE("a table predicts nothing beside a point that was not measured") {
  interpolation_table table{{{4, 64, 7.5}, {4, 128, 8.5}, {8, 64, 9}}};
  CHECK(table.at(6, 96) == maybe{});
  CHECK(table.at(8, 96) == maybe{});
  CHECK(table.at(6, 128) == maybe{});
  CHECK(table.at(4, 96) == 8);
  CHECK(table.at(6, 64) == 8.25);
  CHECK(table.at(8, 64) == 9);
  CHECK(table.size() == 3);
  CHECK(table.missing(9) == std::vector<profile_point>{{8, 128, 0}});
  CHECK(table.missing(0).empty());
  CHECK(decodes().missing(9).empty());
  CHECK(interpolation_table{}.missing(9).empty());
}

TEST_CASE("of two points at one place the later counts, and places next to each other are one") {
  CHECK(prefills({{5, 1}, {7, 2}, {5, 3}}).at(5, 0) == 3);
  CHECK(prefills({{5, 1}, {7, 2}, {5, 3}}).size() == 2);
  const double near = 1 + 5e-11;
  interpolation_table table{{{1, 0, 10}, {1, 4, 30}, {near, 0, 70}, {near, 4, 90}}};
  CHECK(table.at(1 + 2e-11, 2) == 20); // linear in the other direction
  CHECK(table.at(1 + 2e-11, 4) == 30);
  CHECK(table.at(near, 0) == 70);
}

TEST_CASE("a decode step takes what its batch and their mean length take") {
  struct row {
    std::int64_t batch, tokens;
    maybe ms;
  };
  latency_profile profile{.ttft = {}, .tpot = decodes()};
  for (auto& [batch, tokens, ms] : {
         row{4, 256, 7.5},
         row{4, 384, 8},
         row{6, 576, 9.25},
         row{8, 600, 9.515625},
         row{3, 192, {}},
         row{9, 640, {}},
         row{4, 255, {}},
         row{4, 513, {}},
         row{0, 100, 0},
         row{-1, 100, 0},
         row{3, 0, 0},
         row{3, -1, 0},
         row{
           std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::max(), {}},
       }) {
    CAPTURE(batch);
    CAPTURE(tokens);
    CHECK(profile.decode_step_ms(batch, tokens) == ms);
  }
  // Requests shorter than eight tokens count as eight.
  latency_profile shortest{.ttft = {}, .tpot = interpolation_table{{{2, 8, 3}, {2, 16, 5}}}};
  CHECK(shortest.decode_step_ms(2, 1) == 3);
  CHECK(shortest.decode_step_ms(2, 16) == 3);
  CHECK(shortest.decode_step_ms(2, 24) == 4);
}

TEST_CASE("a prefill is the sum of its pieces, each beside a decode step") {
  struct row {
    std::int64_t tokens, batch, held, chunk;
    maybe ms;
  };
  latency_profile profile{.ttft = prefills({{256, 31}, {512, 60}, {1024, 130}}), .tpot = decodes()};
  constexpr auto largest = std::numeric_limits<std::int64_t>::max();
  for (auto& [tokens, batch, held, chunk, ms] : {
         row{1280, 6, 576, 512, 178.75}, // 2 (60 + 9.25) + 31 + 9.25
         row{1280, 0, 0, 512, 151},
         row{1024, 0, 0, 1024, 130},
         row{384, 0, 0, 4096, 45.5},
         row{700, 0, 0, 512, {}},   // the last piece is too small to be known
         row{2000, 0, 0, 2000, {}}, // the only piece is too large
         row{largest, 0, 0, largest, {}},
         row{1280, 3, 300, 512, {}},
         row{0, 3, 300, 512, {}}, // no piece, but an unknown decode step
         row{0, 6, 576, 512, 0},
         row{-5, 0, 0, 512, 0},
         row{0, 0, 0, 0, 0},
         row{-5, 0, 0, -1, 0},
         row{10, 0, 0, 0, {}},
         row{10, 0, 0, -512, {}},
       }) {
    CAPTURE(tokens);
    CAPTURE(chunk);
    CHECK(profile.prefill_ms(tokens, batch, held, chunk) == ms);
  }
}

TEST_CASE("a prefill in very many pieces is summed at once, to the last bit") {
  auto one_by_one = [](double term, int times) {
    double sum = 0;
    for (int i = 0; i < times; ++i)
      sum += term;
    return sum;
  };
  auto at_once = [](double term, std::int64_t times) {
    latency_profile profile{.ttft = prefills({{1, term}}), .tpot = {}};
    return profile.prefill_ms(times, 0, 0, 1);
  };
  CHECK(at_once(0.5, std::int64_t{1} << 31) == 0x1p30);
  CHECK(at_once(0.5, std::numeric_limits<std::int64_t>::max()) == 0x1p52); // adds no more then
  CHECK(at_once(0, std::numeric_limits<std::int64_t>::max()) == 0);
  CHECK(at_once(1e308, 10) == std::numeric_limits<double>::infinity());
  CHECK(at_once(1e300, 1'000'000'000) == std::numeric_limits<double>::infinity());
  CHECK(at_once(1e300, 150'000'000) == doctest::Approx(1.5e308));
  std::mt19937_64 random{7};
  for (double term : {1e-300, 5e-324, 0.1, 1.0, 1 + 0x1p-52, 1 + 0x1p-51, 3 + 0x1p-49, 2 - 0x1p-52})
    CHECK(at_once(term, 5000) == one_by_one(term, 5000));
  for (int i = 0; i < 400; ++i) {
    auto odd_bits = static_cast<double>(random() >> (11 + random() % 40));
    auto term = std::ldexp(odd_bits, -static_cast<int>(random() % 60));
    auto times = static_cast<int>(random() % 3000) + (i < 5 ? 200'000 : 0);
    CAPTURE(term);
    CAPTURE(times);
    REQUIRE(at_once(term, times) == one_by_one(term, times));
  }
}

TEST_CASE("the first token comes when the prefills before it are done") {
  // T(x) = x / 8 up to 2048 tokens, L = 2 for one request of 8 tokens.
  latency_profile profile{
    .ttft = prefills({{0, 0}, {1024, 128}, {2048, 256}}), .tpot = interpolation_table{{{1, 8, 2}}}};
  predicted_work base{
    .all_prefills_tokens = 768,
    .reported_prefills = 516,
    .inflight_prefills = 252,
    .chunk = 1024,
    .prompt_tokens = 512};
  struct row {
    const char* why;
    predicted_work work;
    float ms;
  };
  auto with = [&](auto change) {
    auto work = base;
    change(work);
    return work;
  };
  using w = predicted_work&;
  for (auto& [why, work, ms] : {
         row{"1280 tokens in two pieces", base, 160},
         row{"time passed counts", with([](w x) { x.elapsed_ms = 10; }), 150},
         row{"64 is not above int(64.5)", with([](w x) { x.elapsed_ms = 64; }), 96},
         row{"65 is: 252 + 512 are left", with([](w x) { x.elapsed_ms = 65; }), 95.5},
         row{"long ago", with([](w x) { x.elapsed_ms = 1'000'000'000'000; }), 95.5},
         row{"a clock ahead", with([](w x) { x.elapsed_ms = -10; }), 170},
         row{"no request", with([](w x) { x.prompt_tokens = 0; }), 96},
         row{"truncated", with([](w x) { x.all_prefills_tokens = 768.9f; }), 160},
         row{
           "overdue",
           with([](w x) { x.elapsed_ms = 64, x.all_prefills_tokens = 0, x.prompt_tokens = 0; }),
           -64},
         row{
           "a decode step beside each piece",
           with([](w x) { x.decode_batch = 1.5f, x.all_decodes_tokens = 8.9f; }), 164},
         row{
           "an unknown decode step",
           with([](w x) { x.decode_batch = 2, x.all_decodes_tokens = 8; }), infinite},
         row{"no chunk", with([](w x) { x.chunk = 0; }), infinite},
         row{
           "no chunk, and what was reported is done",
           with([](w x) { x.chunk = 0, x.reported_prefills = 0, x.elapsed_ms = 1; }), infinite},
         row{"neither chunk nor work", predicted_work{.elapsed_ms = 5}, 0},
         row{
           "too large a piece", with([](w x) { x.chunk = 4096, x.all_prefills_tokens = 3000; }),
           infinite},
         row{"infinitely much", with([](w x) { x.all_prefills_tokens = infinite; }), 0x1.p59f},
         row{"no number", with([](w x) { x.all_prefills_tokens = not_a_number; }), 64},
       }) {
    CAPTURE(why);
    CHECK(predicted_ttft(profile, work) == ms);
  }
  CHECK(predicted_ttft({}, base) == infinite);
}

TEST_CASE("a decode step is predicted with one request more") {
  latency_profile profile{.ttft = {}, .tpot = decodes()};
  struct row {
    float batch, held;
    std::uint32_t prompt;
    float ms;
  };
  for (auto& [batch, held, prompt, ms] : {
         row{3, 200, 56, 7.5},
         row{3.9f, 200.9f, 56, 7.5},
         row{5, 500, 76, 9.25},
         row{3, 256, 0, 7.5},
         row{0, 0, 0, 0},         // idle, nothing to place
         row{0, 0, 64, infinite}, // a batch of 1 was not measured
         row{8, 640, 0, infinite},
         row{-1, 100, 0, 0},
         row{infinite, 5, 5, infinite},
         row{not_a_number, 5, 5, 0},
       }) {
    CAPTURE(batch);
    CAPTURE(held);
    CHECK(
      predicted_tpot(
        profile, {.decode_batch = batch, .all_decodes_tokens = held, .prompt_tokens = prompt})
      == ms);
  }
  // More than a float holds is no prediction.
  latency_profile huge{.ttft = {}, .tpot = interpolation_table{{{1, 8, 1e300}}}};
  CHECK(predicted_tpot(huge, {.all_decodes_tokens = 8}) == infinite);
}

TEST_CASE("a metric becomes an integer whatever it is") {
  using row = std::pair<float, std::int64_t>;
  constexpr auto end = std::int64_t{1} << 62;
  for (auto [metric, integer] :
       {row{0, 0}, row{1.9f, 1}, row{-1.9f, -1}, row{16'777'216, 16'777'216}, row{not_a_number, 0},
        row{infinite, end}, row{-infinite, -end}, row{1e30f, end}, row{-1e30f, -end}})
    CHECK(whole(metric) == integer);
}

TEST_CASE("predictions on random tables are those of the rules read literally") {
  std::mt19937_64 random{11};
  auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  int known = 0;
  for (int round = 0; round < 100; ++round) {
    literal_predictor slow;
    std::vector<profile_point> ttft, tpot;
    auto put = [](auto& table, auto& points, profile_point x) {
      table[{x.row, x.column}] = x.ms;
      points.push_back(x);
    };
    for (int i = 0; i < 8; ++i)
      put(slow.t, ttft, {static_cast<double>(below(12) * 16), 0, below(1000) / 8.0});
    for (int i = below(40); i >= 0; --i)
      put(
        slow.p, tpot,
        {static_cast<double>(below(6)), static_cast<double>(8 * below(5)), below(1000) / 8.0});
    latency_profile fast{.ttft = interpolation_table{ttft}, .tpot = interpolation_table{tpot}};
    for (int i = 0; i < 100; ++i) {
      auto tokens = below(400) - 20, batch = below(7) - 1, held = below(150) - 10;
      auto chunk = below(180) - 5;
      CAPTURE(round);
      CAPTURE(i);
      auto got = fast.prefill_ms(tokens, batch, held, chunk);
      auto wanted = slow.q(tokens, batch, held, chunk);
      REQUIRE(got.has_value() == wanted.has_value());
      if (!got)
        continue;
      ++known;
      REQUIRE(*got == doctest::Approx(*wanted).epsilon(1e-12));
      predicted_work work{
        .all_prefills_tokens = static_cast<float>(below(300) - 10),
        .decode_batch = static_cast<float>(batch),
        .all_decodes_tokens = static_cast<float>(held),
        .reported_prefills = below(200),
        .inflight_prefills = below(100),
        .chunk = chunk,
        .elapsed_ms = below(300),
        .prompt_tokens = static_cast<std::uint32_t>(below(100))};
      auto ttft_wanted = slow.ttft(work);
      auto tpot_wanted = slow.l(batch + 1, held + static_cast<double>(work.prompt_tokens));
      if (std::isinf(ttft_wanted))
        REQUIRE(predicted_ttft(fast, work) == infinite);
      else
        REQUIRE(predicted_ttft(fast, work) == doctest::Approx(ttft_wanted).epsilon(1e-5));
      if (!tpot_wanted)
        REQUIRE(predicted_tpot(fast, work) == infinite);
      else
        REQUIRE(predicted_tpot(fast, work) == doctest::Approx(*tpot_wanted).epsilon(1e-5));
    }
  }
  CHECK(known > 500); // the rows above did compare something
}
