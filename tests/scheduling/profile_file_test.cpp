#include "runtime/scheduling/latency_observer.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>
#include <unistd.h>

using namespace llumnix;

namespace {

namespace fs = std::filesystem;
using nlohmann::json;
constexpr auto ttft = profile_kind::ttft;
constexpr auto tpot = profile_kind::tpot;

/// A folder of the test's own, gone at the end.
struct scratch_folder {
  scratch_folder() {
    std::string pattern = fs::temp_directory_path() / "llumnix-profiles-XXXXXX";
    path = ::mkdtemp(pattern.data());
  }
  ~scratch_folder() { fs::remove_all(path); }
  std::string file(const std::string& name) const { return path / name; }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream{path / name, std::ios::binary} << text;
    return file(name);
  }
  fs::path path;
};

std::string failure_of(const result<profile_table>& read) {
  REQUIRE_FALSE(read.has_value());
  return read.error().context;
}

constexpr auto good_ttft = R"({"metadata": {"model": "m", "results": [{"tokens_num": 9}]},
 "results": [
  {"tokens_num": 256, "p50": 31.0, "mean": 32, "raw_data": [30, [{"p50": 1}], 31, 32]},
  {"p50": 60, "tokens_num": 512.0, "more": {"p50": 7, "tokens_num": "x"}}
 ], "results_too": [3]})";

} // namespace

TEST_CASE("a profiling file that says nothing sensible is refused with its place and reason") {
  struct row {
    profile_kind kind;
    const char* text;
    const char* wanted; ///< what the error says after the name of the file
  };
  for (auto& [kind, text, wanted] : {
         row{ttft, "", ", line 1, column 1: "},
         row{
           ttft, "{\"results\": [\n  {\"tokens_num\": 1,, \"p50\": 2}]}", ", line 2, column 20: "},
         row{ttft, "{\"results\": [", ", line 1, column 14: "},
         row{ttft, "{} {}", ", line 1, column 4: "},
         row{ttft, "{\"results\": [{\"tokens_num\": 1, \"p50\": 1e999}]}", "number overflow"},
         row{ttft, "\n[1]", ", line 2: the file is not an object but array"},
         row{ttft, "7", ", line 1: the file is not an object but number"},
         row{
           ttft,
           "{\"results\": [{\"x\":\n[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
           ", line 2: it nests more than 64 deep"},
         row{ttft, "{}", ", line 1: the file ends without `results`"},
         row{
           ttft, "{\"metadata\":\n {\"results\": [{}]}}",
           ", line 2: the file ends without `results`"},
         row{ttft, "{\"results\": []}", ": `results` has no entries"},
         row{ttft, "{\n\"results\": {}}", ", line 2: `results` is not a list but object"},
         row{ttft, "{\n\"results\":\n null\n}", ", line 3: `results` is not a list but null"},
         row{ttft, "{\"results\": [\n7\n, 8]}", ", line 2: results[0] is not an object but number"},
         row{ttft, "{\"results\": [[{\"p50\": 1}]]}", "results[0] is not an object but array"},
         row{ttft, "{\"results\": [{}]}", ", line 1: results[0].tokens_num is absent"},
         row{
           ttft,
           "{\"results\": [\n {\"tokens_num\": 1, \"p50\": 1},\n\n {\n  \"tokens_num\": 2}\n]}",
           ", line 4: results[1].p50 is absent"},
         row{
           ttft, "{\"results\": [{\"tokens_num\": \"1\", \"p50\": 1}]}",
           "results[0].tokens_num is not a number but string"},
         row{
           ttft, "{\"results\": [{\"tokens_num\": 1, \"p50\": true}]}",
           "results[0].p50 is not a number but boolean"},
         row{
           ttft, "{\"results\": [{\"tokens_num\": 1, \"p50\": [3]}]}",
           "results[0].p50 is not a number but array"},
         row{
           ttft, "{\"results\": [{\"tokens_num\": 1, \"p50\": {\"p50\": 3}}]}",
           "results[0].p50 is not a number but object"},
         row{
           ttft, "{\"results\": [{\"tokens_num\": -1, \"p50\": 1}]}",
           "results[0].tokens_num is -1, which is not a finite number of at least 0"},
         row{ttft, "{\"results\": [{\"tokens_num\": 1, \"p50\": -0.5}]}", "results[0].p50 is -0.5"},
         row{
           tpot, "{\"results\": [{\"batch_size\": 1, \"p50\": 1}]}",
           "results[0].tokens_per_request is absent"},
         row{
           tpot, "{\"results\": [{\"tokens_num\": 1, \"p50\": 1}]}",
           "results[0].batch_size is absent"},
       }) {
    CAPTURE(text);
    auto said = failure_of(parse_profile(kind, text, "f.json"));
    CAPTURE(said);
    CHECK(said.starts_with("f.json"));
    CHECK(said.find(wanted) != said.npos);
  }
}

TEST_CASE("what has a meaning but is hardly meant is read with a warning") {
  auto read = parse_profile(
    ttft,
    "{\"results\": [{\"tokens_num\": 1, \"p50\": 1},\n"
    "{\"tokens_num\": 1.5, \"p50\": 2},\n"
    "{\"tokens_num\": 4, \"p50\": 5, \"p95\": 6,\n \"p50\": 7, \"p95\": 8}]}",
    "f.json");
  REQUIRE(read.has_value());
  CHECK(
    read->warnings
    == std::vector<std::string>{
      "f.json, line 2: results[1].tokens_num is 1.5, no whole number",
      "f.json, line 4: results[2].p50 stands twice: the last one counts"});
  CHECK(read->table.at(1.5, 0) == 2);
  CHECK(read->table.at(4, 0) == 7);
  auto halves = nlohmann::json::parse(
    R"([{"batch_size": 0.5, "tokens_per_request": 8.5, "p50": 1}])");
  auto of_scene = profile_from_results(tpot, halves, "tpot");
  REQUIRE(of_scene.has_value());
  CHECK(of_scene->warnings[0] == "tpot[0].batch_size is 0.5, no whole number");
}

TEST_CASE("several problems are told at once, but not all of very many") {
  auto said = failure_of(parse_profile(
    ttft, "{\"results\": [{}, 3,\n {\"tokens_num\": 1, \"p50\": 1}, {\"tokens_num\": 1}]}", "f"));
  CHECK(
    said
    == "f, line 1: results[0].tokens_num is absent; f, line 1: results[1] is not an object but "
       "number; f, line 2: results[3].p50 is absent");
  std::string many = "{\"results\": [";
  for (int i = 0; i < 1000; ++i)
    many += "0,";
  said = failure_of(parse_profile(ttft, many + "0]}", "f"));
  CHECK(said.find("results[4] ") != said.npos);
  CHECK(said.find("results[5]") == said.npos);
  CHECK(said.ends_with("; there may be more"));
}

TEST_CASE("hostile texts end in an error of bounded length") {
  std::string deep = "{\"results\": [{\"tokens_num\": ";
  for (auto& text :
       {deep + std::string(1 << 20, '['),
        "{\"results\": [{\"tokens_num\": 1" + std::string(1 << 20, 'x'),
        "{\"results\": [{\"tokens_num\": 1" + std::string(1 << 20, '0') + "}]}",
        std::string(1 << 20, '\0'), std::string(1 << 20, '\xff'),
        "{\"results\": [{\"" + std::string(1 << 20, 'k') + "\": \xc3\x28"}) {
    auto said = failure_of(parse_profile(tpot, text, "f.json"));
    CHECK(said.size() < 400);
  }
}

TEST_CASE("a file that cannot be read is named") {
  scratch_folder folder;
  auto absent = folder.file("absent.json");
  auto read = read_ttft_profile(absent);
  CHECK(failure_of(read) == absent + ": cannot be read: there is no such file");
  CHECK(read.error().code == errc::not_found);
  CHECK(
    failure_of(read_tpot_profile(folder.path))
    == folder.path.string() + ": cannot be read: it is not a file");
  CHECK(failure_of(read_ttft_profile("/dev/zero")).find("not a file") != std::string::npos);
  CHECK(failure_of(read_ttft_profile("/dev/zero/x")).starts_with("/dev/zero/x: cannot be read"));
  auto huge = folder.write("huge.json", "{}");
  fs::resize_file(huge, 64 * 1024 * 1024 + 1);
  CHECK(failure_of(read_ttft_profile(huge)) == huge + ": is larger than 64 MiB");
  auto wrong = folder.write("wrong.json", "{\n\"results\": [{}]}");
  CHECK(
    failure_of(read_tpot_profile(wrong)) == wrong + ", line 2: results[0].batch_size is absent");
}

TEST_CASE("a profiling file gives its table, and all but the points is skipped") {
  scratch_folder folder;
  auto path = folder.write("ttft.json", good_ttft);
  auto read = read_ttft_profile(path);
  REQUIRE(read.has_value());
  CHECK(read->table.size() == 2);
  CHECK(read->table.at(384, 0) == 45.5);
  CHECK(
    read->warnings
    == std::vector<std::string>{
      path + ": the smallest tokens_num is 256: nothing is predicted for less"});
  // Of two `results` the last counts, as of two values of any field.
  auto twice = parse_profile(
    ttft,
    "{\"results\": [{\"tokens_num\": 1, \"p50\": 5}], \"results\": [{\"tokens_num\": 3, "
    "\"tokens_num\": 1, \"p50\": 6}]}",
    "f");
  REQUIRE(twice.has_value());
  CHECK(twice->table.size() == 1);
  CHECK(twice->table.at(1, 0) == 6);
  CHECK(
    twice->warnings
    == std::vector<std::string>{"f, line 1: results[0].tokens_num stands twice: the last one counts"});
}

TEST_CASE("a grid with holes is read, and says which") {
  auto text = [](int batches, auto hole) {
    auto results = json::array();
    for (int batch = 1; batch <= batches; ++batch)
      for (int each : {8, 64})
        if (!hole(batch, each))
          results.push_back(
            {{"batch_size", batch}, {"tokens_per_request", each}, {"p50", batch + each / 64.0}});
    return json{{"results", results}}.dump();
  };
  auto whole = parse_profile(tpot, text(3, [](int, int) { return false; }), "f");
  REQUIRE(whole.has_value());
  CHECK(whole->warnings.empty());
  auto one = parse_profile(tpot, text(3, [](int b, int e) { return b == 2 && e == 64; }), "f");
  REQUIRE(one.has_value());
  CHECK(
    one->warnings
    == std::vector<std::string>{"f: 1 of the 6 points of its grid are missing: nothing is "
                                "predicted beside them (batch_size 2 with tokens_per_request 64)"});
  auto many = parse_profile(tpot, text(50, [](int b, int e) { return b > 1 && e == 8; }), "f");
  REQUIRE(many.has_value());
  REQUIRE(many->warnings.size() == 1);
  CHECK(many->warnings[0].find("49 of the 100 points") != std::string::npos);
  CHECK(many->warnings[0].find("batch_size 5 with") != std::string::npos);
  CHECK(many->warnings[0].ends_with("batch_size 5 with tokens_per_request 8, ...)"));
  // As many rows as columns with one point each: a grid far larger than the file costs nothing.
  auto diagonal = json::array();
  for (int i = 1; i <= 20'000; ++i)
    diagonal.push_back({{"batch_size", i}, {"tokens_per_request", i + 7}, {"p50", 1}});
  auto sparse = profile_from_results(tpot, diagonal, "f");
  REQUIRE(sparse.has_value());
  CHECK(sparse->warnings[0].find("399980000 of the 400000000") != std::string::npos);
}

TEST_CASE("results of a scene are read like those of a file") {
  auto read = profile_from_results(
    tpot, json::parse(R"([{"batch_size": 4, "tokens_per_request": 64, "p50": 7.5}])"), "tpot");
  REQUIRE(read.has_value());
  CHECK(read->table.at(4, 64) == 7.5);
  CHECK(
    read->warnings
    == std::vector<std::string>{
      "tpot: the smallest batch_size is 4: nothing is predicted for less",
      "tpot: the smallest tokens_per_request is 64: nothing is predicted for less"});
  using row = std::pair<json, const char*>;
  for (auto& [results, wanted] :
       {row{json::object(), "p is not a list but object"},
        row{json::array(), "p: `results` has no entries"}, row{json{3}, "p[0] is not an object"},
        row{json{{{"tokens_num", 3}}}, "p[0].p50 is absent"},
        row{
          json{{{"tokens_num", 3}, {"p50", std::numeric_limits<double>::quiet_NaN()}}},
          "p[0].p50 is nan"},
        row{
          json{{{"tokens_num", std::numeric_limits<double>::infinity()}, {"p50", 3}}},
          "p[0].tokens_num is inf"}}) {
    auto said = failure_of(profile_from_results(ttft, results, "p"));
    CAPTURE(said);
    CHECK(said.starts_with(wanted));
  }
}

namespace {

const profile_metadata about{"modeled", "2024-05-01T00:00:00Z", "seen while serving"};

latency_profile read_back(const latency_observer& observer) {
  latency_profile profile;
  for (auto kind : {ttft, tpot}) {
    auto text = observer.text(kind, about);
    if (text.empty())
      continue;
    auto read = parse_profile(kind, text, "f");
    REQUIRE(read.has_value());
    CHECK(read->table.missing(1).empty());
    (kind == ttft ? profile.ttft : profile.tpot) = std::move(read->table);
  }
  return profile;
}

} // namespace

TEST_CASE("an observer takes no nonsense and writes nothing of nothing") {
  latency_observer observer;
  CHECK_FALSE(observer.saw_prefill(0, 5));
  CHECK_FALSE(observer.saw_decode_step(0, 5, 5));
  CHECK_FALSE(observer.saw_decode_step(5, 0, 5));
  for (double ms : {0.0, -1.0, 1e300, std::nan(""), std::numeric_limits<double>::infinity()}) {
    CHECK_FALSE(observer.saw_prefill(5, ms));
    CHECK_FALSE(observer.saw_decode_step(5, 50, ms));
  }
  CHECK(observer.text(ttft, about).empty());
  CHECK(observer.text(tpot, about).empty());
  CHECK(observer.saw_prefill(5, 5));
  CHECK(observer.text(tpot, about).empty());
}

TEST_CASE("what an observer writes has the fields of a profiling file") {
  latency_observer observer;
  for (int ms = 1; ms <= 5; ++ms)
    REQUIRE(observer.saw_prefill(512, ms)); // times 1 to 5, whose quantiles are plain
  REQUIRE(observer.saw_decode_step(4, 256, 7.5));
  auto file = json::parse(observer.text(ttft, about));
  CHECK(
    file["metadata"]
    == json{
      {"model", "modeled"},
      {"timestamp", "2024-05-01T00:00:00Z"},
      {"description", "seen while serving"}});
  REQUIRE(file["results"].size() == 2); // of one token, which nobody measured, and of 512
  CHECK(file["results"][0]["samples"] == 0);
  auto& entry = file["results"][1];
  CHECK(entry["tokens_num"] == 512);
  CHECK(entry["samples"] == 5);
  using row = std::pair<const char*, double>;
  for (auto [field, value] :
       {row{"mean", 3}, row{"std", std::sqrt(2.0)}, row{"min", 1}, row{"max", 5}, row{"p50", 3},
        row{"p95", 4.8}, row{"p99", 4.96}}) {
    CAPTURE(field);
    CHECK(entry[field].get<double>() == doctest::Approx(value));
  }
  auto decode = json::parse(observer.text(tpot, about))["results"];
  REQUIRE(decode.size() == 4); // batches of 1 and 4, 8 and 64 tokens of each request
  CHECK(decode[3]["batch_size"] == 4);
  CHECK(decode[3]["tokens_per_request"] == 64);
  CHECK(decode[3]["p50"] == 7.5);
  CHECK(observer.text(ttft, {"\xff", "", ""}).find("\xff") == std::string::npos);
}

TEST_CASE("a profile that was observed predicts what was observed") {
  struct row {
    const char* why;
    std::vector<std::uint32_t> prefills;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> decodes; ///< batch, tokens of each
  };
  auto prefill_ms = [](double x) { return 8 + x / 16 + x * x / 1e6; };
  auto decode_ms = [](double batch, double tokens) { return 5 + batch / 32 + tokens / 8192; };
  for (auto& [why, prefills, decodes] : {
         row{"always the same", {512}, {{6, 500}}},
         row{"two sizes", {100, 900}, {{6, 500}, {6, 900}}},
         row{"batches alone vary", {1, 2, 3}, {{1, 100}, {7, 100}, {30, 100}}},
         row{"corners without samples", {17, 40, 2048}, {{1, 3000}, {64, 20}, {9, 333}, {3, 8}}},
         row{"short requests", {8, 9, 10, 11}, {{2, 1}, {3, 2}, {5, 7}}},
       }) {
    CAPTURE(why);
    latency_observer observer;
    for (auto tokens : prefills)
      for (int i = 0; i < 3; ++i)
        REQUIRE(observer.saw_prefill(tokens, prefill_ms(tokens)));
    for (auto [batch, each] : decodes)
      REQUIRE(observer.saw_decode_step(batch, batch * each, decode_ms(batch, batch * each)));
    auto profile = read_back(observer);
    for (auto tokens : prefills) {
      CAPTURE(tokens);
      CHECK(
        profile.prefill_ms(tokens, 0, 0, 4096).value_or(-1)
        == doctest::Approx(prefill_ms(tokens)).epsilon(0.02));
    }
    for (auto [batch, each] : decodes) {
      CAPTURE(batch);
      CAPTURE(each);
      CHECK(
        profile.decode_step_ms(batch, batch * each).value_or(-1)
        == doctest::Approx(decode_ms(batch, batch * each)).epsilon(0.02));
    }
  }
}

TEST_CASE("a profile predicts the load it was measured on, and any that is less") {
  struct row {
    const char* why;
    std::uint32_t prompt, answer, together; ///< what was measured: tokens, and requests at once
    std::uint32_t asked, busy;              ///< a prompt to place where so many decode
    bool known;
  };
  auto prefill_ms = [](double x) { return 8 + x / 16; };
  auto decode_ms = [](double batch, double held) { return 5 + batch / 32 + held / 8192; };
  for (auto& [why, prompt, answer, together, asked, busy, known] : {
         row{"the same, on an idle instance", 64, 32, 1, 64, 0, true},
         row{"the same, beside others", 64, 32, 4, 64, 3, true},
         row{"alone, where many were measured", 64, 32, 4, 64, 0, true},
         row{"a shorter prompt", 64, 32, 4, 20, 0, true},
         row{"a prompt of one token", 64, 32, 4, 1, 0, true},
         row{"a longer prompt", 64, 32, 4, 200, 0, false},
         row{"more at once", 64, 32, 4, 64, 4, false},
       }) {
    CAPTURE(why);
    latency_observer observer;
    REQUIRE(observer.saw_prefill(prompt, prefill_ms(prompt)));
    for (auto each = prompt + 1; each < prompt + answer; ++each) { // no step is of the prompt alone
      auto held = together * each;
      REQUIRE(observer.saw_decode_step(together, held, decode_ms(together, held)));
    }
    auto profile = read_back(observer);
    predicted_work work{
      .decode_batch = static_cast<float>(busy),
      .all_decodes_tokens = static_cast<float>(busy * (prompt + 1)),
      .chunk = 2048,
      .prompt_tokens = asked};
    CHECK(std::isfinite(predicted_tpot(profile, work)) == known);
    auto idle = work;
    idle.decode_batch = idle.all_decodes_tokens = 0; // a prefill instance
    CHECK(std::isfinite(predicted_ttft(profile, idle)) == (asked <= prompt));
    if (!known)
      continue;
    CHECK(predicted_ttft(profile, idle) == doctest::Approx(prefill_ms(prompt)).epsilon(0.01));
    auto least = decode_ms(together, together * (prompt + 1));
    CHECK(predicted_tpot(profile, work) == doctest::Approx(least).epsilon(0.01));
  }
}

TEST_CASE("less than was measured takes neither longer nor less than all that was") {
  latency_observer observer;
  using row = std::pair<std::uint32_t, double>; // a parabola that is steep and high at one token
  for (auto [tokens, ms] : {row{900, 103}, row{1000, 100}, row{1100, 105}})
    REQUIRE(observer.saw_prefill(tokens, ms));
  for (auto [each, ms] : {row{500, 9}, row{600, 8}})
    REQUIRE(observer.saw_decode_step(4, 4 * each, ms));
  auto profile = read_back(observer);
  CHECK(profile.piece_ms(1) == doctest::Approx(103));
  CHECK(profile.piece_ms(900) == doctest::Approx(103));
  CHECK(profile.decode_step_ms(1, 8) == doctest::Approx(9));
  CHECK(profile.decode_step_ms(4, 4 * 500) == doctest::Approx(9));
}

TEST_CASE("an observer of a long noisy run stays small and true") {
  latency_observer observer, again;
  std::mt19937_64 random{9};
  auto noise = [&] { return 0.95 + static_cast<double>(random() % 1000) / 10'000; };
  auto prefill_ms = [](double x) { return 8 + x / 16; };
  auto decode_ms = [](double batch, double tokens) { return 5 + batch / 32 + tokens / 8192; };
  for (int i = 0; i < 60'000; ++i) {
    auto tokens = static_cast<std::uint32_t>(1 + random() % 4096);
    auto batch = static_cast<std::uint32_t>(1 + random() % 64);
    auto held = batch * (8 + random() % 2000);
    auto took = prefill_ms(tokens) * noise();
    auto step = decode_ms(batch, static_cast<double>(held)) * noise();
    for (auto* each : {&observer, &again}) {
      REQUIRE(each->saw_prefill(tokens, took));
      REQUIRE(each->saw_decode_step(batch, held, step));
    }
  }
  CHECK(observer.text(ttft, about) == again.text(ttft, about));
  CHECK(observer.text(tpot, about) == again.text(tpot, about));
  CHECK(observer.text(tpot, about).size() < 100'000);
  auto profile = read_back(observer);
  for (int tokens : {20, 300, 1000, 2048, 3333, 4000}) {
    CAPTURE(tokens);
    CHECK(
      profile.prefill_ms(tokens, 0, 0, 4096).value_or(-1)
      == doctest::Approx(prefill_ms(tokens)).epsilon(0.05));
  }
  for (auto [batch, each] :
       {std::pair{1, 700}, std::pair{3, 20}, std::pair{33, 1500}, std::pair{60, 1999}}) {
    CAPTURE(batch);
    CHECK(
      profile.decode_step_ms(batch, batch * each).value_or(-1)
      == doctest::Approx(decode_ms(batch, batch * each)).epsilon(0.05));
  }
}

TEST_CASE("a mixed step is a prefill without what the decodes beside it take by themselves") {
  latency_observer observer;
  CHECK_FALSE(observer.saw_step(512, 4, 1000, 20)); // nobody knows yet what those take
  CHECK(observer.saw_step(0, 4, 1000, 7));
  CHECK(observer.saw_step(0, 4, 1000, 9));
  CHECK(observer.saw_step(512, 5, 1200, 20)); // alike: 20 less 8
  CHECK(observer.saw_step(512, 0, 0, 12));
  CHECK_FALSE(observer.saw_step(512, 4, 1000, 7.5)); // no time is left
  CHECK_FALSE(observer.saw_step(512, 9, 2000, 20));  // of another size
  CHECK_FALSE(observer.saw_step(0, 0, 0, 20));
  CHECK(observer.seen(ttft) == 2);
  CHECK(observer.seen(tpot) == 2);
  CHECK(read_back(observer).piece_ms(512) == 12.0);
}

TEST_CASE("a prompt that adds little to a step takes a whole one by itself") {
  latency_observer observer;
  REQUIRE(observer.saw_step(0, 1, 64, 34));
  REQUIRE(observer.saw_step(0, 8, 512, 37));
  REQUIRE(observer.saw_step(64, 8, 512, 50));    // 13 more
  REQUIRE(observer.saw_step(1024, 8, 512, 244)); // 207 more
  auto profile = read_back(observer);
  CHECK(profile.piece_ms(64) == 34.0);
  CHECK(profile.piece_ms(1024) == 207.0);
}

TEST_CASE("what one observer kept another takes in") {
  latency_observer first, second, all;
  for (auto* each : {&first, &all})
    for (double ms : {10.0, 30.0})
      each->saw_prefill(512, ms);
  for (auto* each : {&second, &all}) {
    each->saw_prefill(512, 20);
    each->saw_decode_step(4, 256, 7.5);
  }
  latency_observer merged;
  REQUIRE(merged.add_samples(first.samples()).has_value());
  REQUIRE(merged.add_samples(second.samples()).has_value());
  REQUIRE(merged.add_samples(latency_observer{}.samples()).has_value());
  CHECK(merged.text(ttft, about) == all.text(ttft, about));
  CHECK(merged.text(tpot, about) == all.text(tpot, about));
  CHECK(merged.seen(ttft) == 3);
}

TEST_CASE("samples that are none are refused whole") {
  latency_observer observer;
  for (const char* text :
       {"", "7", "[]", "{}", R"({"tokens_num":[]})", R"({"tokens_num":{},"batch_size":[]})",
        R"({"tokens_num":[[512,0,10],[512,0]],"batch_size":[]})",
        R"({"tokens_num":[[512,0,10],[0,0,10]],"batch_size":[]})",
        R"({"tokens_num":[[512,0,10],[512,1,10]],"batch_size":[]})",
        R"({"tokens_num":[[512,0,10],[512,0,-1]],"batch_size":[]})",
        R"({"tokens_num":[[512,0,10],[512,0,"7"]],"batch_size":[]})",
        R"({"tokens_num":[[512,0,10]],"batch_size":[[4,7,10]]})",
        R"({"tokens_num":[[512,0,10]],"batch_size":[[1e300,8,10]]})"}) {
    CAPTURE(text);
    auto taken = observer.add_samples(text);
    REQUIRE_FALSE(taken.has_value());
    CHECK(taken.error().code == errc::bad_message);
  }
  CHECK(observer.seen(ttft) == 0);
}

TEST_CASE("a profile is written whole or not at all") {
  scratch_folder folder;
  auto path = folder.file("ttft.json");
  REQUIRE(write_profile(path, "old").has_value());
  latency_observer observer;
  observer.saw_prefill(64, 12);
  REQUIRE(write_profile(path, observer.text(ttft, about)).has_value());
  auto read = read_ttft_profile(path);
  REQUIRE(read.has_value());
  CHECK(read->table.at(64, 0) == 12);
  CHECK(std::distance(fs::directory_iterator{folder.path}, {}) == 1);
  auto nowhere = folder.file("no/such/folder.json");
  auto wrote = write_profile(nowhere, "x");
  REQUIRE_FALSE(wrote.has_value());
  CHECK(wrote.error().context == nowhere + ": cannot be written");
  fs::create_directory(folder.file("taken"));
  CHECK_FALSE(write_profile(folder.file("taken"), "x").has_value());
  CHECK_FALSE(fs::exists(folder.file("taken.new")));
}
