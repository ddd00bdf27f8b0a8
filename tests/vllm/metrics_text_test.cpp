#include "integrations/vllm/metrics_text.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <string>

namespace llumnix {
namespace {

engine_load load_of(std::string_view page) {
  auto load = read_engine_load(page);
  REQUIRE(load);
  return *load;
}

const std::string vllm_page
  = "# HELP vllm:num_requests_running Number of requests in model execution batches.\n"
    "# TYPE vllm:num_requests_running gauge\n"
    "vllm:num_requests_running{engine=\"0\",model_name=\"tiny\"} 3.0\n"
    "vllm:num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 2.0\n"
    "vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"tiny\",reason=\"capacity\"} "
    "2.0\n"
    "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"tiny\"} 0.25\n"
    "vllm:time_to_first_token_seconds_bucket{le=\"0.001\"} 0.0\n"
    "vllm:time_to_first_token_seconds_bucket{le=\"+Inf\"} 7.0\n"
    "vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"8192\"} 1.0\n";

} // namespace

TEST_CASE("lines that are no sample are none") {
  for (const char* line :
       {"",
        " ",
        "#",
        "# HELP a b",
        "a",
        "a ",
        "a{",
        "a{}",
        "a{} ",
        "a{b} 1",
        "a{b=} 1",
        "a{b=c} 1",
        "a{b=\"c} 1",
        "a{b=\"c\\\"} 1",
        "a{b=\"\\x\"} 1",
        "a{b=\"c\" d=\"e\"} 1",
        "a{,} 1",
        "a{b=\"c\",,} 1",
        "a{1=\"c\"} 1",
        "a{b:c=\"d\"} 1",
        "a{b=\"c\"",
        "a{b=\"c\"} x",
        "a{b=\"c\"} 1x",
        "a 1 2 3",
        "a 1 x",
        "a +-1",
        "a 1e999",
        "a --1",
        "a 0x10",
        "1a 2",
        "-a 1",
        "{\"a\"} 1",
        "<html>",
        "{\"error\": 1}",
        "\xff\xfe 1",
        "a\v1"}) {
    CAPTURE(line);
    CHECK_FALSE(read_sample(line));
  }
  CHECK_FALSE(read_sample({"a\0 1", 4}));
  CHECK_FALSE(read_sample({"a 1\0", 4}));
}

TEST_CASE("samples are read in all their forms") {
  struct row {
    const char* line;
    double value;
    std::vector<std::pair<std::string_view, std::string>> labels;
  };
  for (const auto& [line, value, labels] :
       {row{"a 1", 1, {}}, row{" \ta\t1.5 ", 1.5, {}}, row{"a{} 2", 2, {}}, row{"a{ }2", 2, {}},
        row{"a -1e3", -1000, {}}, row{"a +1", 1, {}}, row{"a 1 1700000000000", 1, {}},
        row{"a 1 -5", 1, {}}, row{"a +Inf", INFINITY, {}}, row{"a -Inf", -INFINITY, {}},
        row{"a{b=\"c\"} 1", 1, {{"b", "c"}}}, row{"a{b=\"c\"}1", 1, {{"b", "c"}}},
        row{"a {b=\"c\",} 1", 1, {{"b", "c"}}},
        row{"a{ b = \"c\" , d = \"\" } 1", 1, {{"b", "c"}, {"d", ""}}},
        row{"a{b=\"q\\\"} 9 \\\\ \\n,#{\"} 1", 1, {{"b", "q\"} 9 \\ \n,#{"}}},
        row{"a{b=\"\xc3\xa4\"} 1", 1, {{"b", "\xc3\xa4"}}},
        row{"a{b=\"c\"} 1 # {trace=\"x\"} 0.5 1.5", 1, {{"b", "c"}}},
        row{"a 1 1700000000.5 # {} 0.5", 1, {}}}) {
    CAPTURE(line);
    auto sample = read_sample(line);
    REQUIRE(sample);
    CHECK(sample->name == "a");
    CHECK(sample->value == value);
    CHECK(sample->labels == labels);
  }
  REQUIRE(read_sample("a NaN"));
  CHECK(std::isnan(read_sample("a NaN")->value));
  CHECK(read_sample("vllm:a_1:b 1")->name == "vllm:a_1:b");
  auto sample = read_sample("a{b=\"1\",b=\"2\"} 1");
  REQUIRE(sample);
  REQUIRE(sample->label("b"));
  CHECK(*sample->label("b") == "1");
  CHECK_FALSE(sample->label("c"));
}

TEST_CASE("labels without end are no sample") {
  auto with = [](int count) {
    std::string line = "a{";
    for (int i = 0; i < count; ++i)
      line += "b=\"c\",";
    return line + "} 1";
  };
  CHECK(read_sample(with(256)));
  CHECK_FALSE(read_sample(with(257)));
  CHECK_FALSE(read_sample(with(100000)));
}

TEST_CASE("the load of an engine is told by its own names") {
  CHECK(load_of(vllm_page) == engine_load{3, 2, 0.25, 131072});
  struct row {
    const char* what;
    std::string page;
    engine_load load;
  };
  for (const auto& [what, page, load] : {
         row{"nothing", "", {}},
         row{"only comments", "# a\n\n#b", {}},
         row{"another server", "process_cpu_seconds_total 1\n", {}},
         row{
           "SGLang",
           "sglang:num_running_reqs{model_name=\"m\"} 4\nsglang:num_queue_reqs 5\n"
           "sglang:token_usage 0.5\nsglang:max_total_num_tokens 1000\n",
           {4, 5, 0.5, 1000}},
         row{
           "SGLang without colons",
           "sglang_num_running_reqs 4\nsglang_num_queue_reqs 5\nsglang_token_usage 0.5\n"
           "sglang_max_total_num_tokens 1000",
           {4, 5, 0.5, 1000}},
         row{
           "several ranks",
           "vllm:num_requests_running{engine=\"0\"} 1\nvllm:num_requests_running{engine=\"1\"} 2\n"
           "vllm:num_requests_waiting{engine=\"0\"} 3\nvllm:num_requests_waiting{engine=\"1\"} 4\n"
           "vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} "
           "0.75\n"
           "vllm:cache_config_info{engine=\"0\",block_size=\"16\",num_gpu_blocks=\"10\"} 1\n"
           "vllm:cache_config_info{engine=\"1\",block_size=\"16\",num_gpu_blocks=\"20\"} 1\n",
           {3, 7, 0.5, 480}},
         row{"the old name", "vllm:gpu_cache_usage_perc 0.5\n", {{}, {}, 0.5, {}}},
         row{
           "both names, whatever their order",
           "vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.5\n",
           {{}, {}, 0.5, {}}},
         row{"line ends of Windows", "vllm:num_requests_running 1\r\n\r\n", {1, {}, {}, {}}},
         row{
           "blocks not counted yet",
           "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1\n",
           {}},
         row{"no blocks told", "vllm:cache_config_info{block_size=\"16\"} 1\n", {}},
         row{
           "no numbers",
           "vllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n"
           "vllm:kv_cache_usage_perc -1\nvllm:cache_config_info{block_size=\"-1\",num_gpu_blocks="
           "\"1\"} 1\n",
           {}},
         row{
           "numbers beyond all bounds",
           "vllm:num_requests_running 1e308\nvllm:num_requests_running{a=\"b\"} 1e308\n"
           "vllm:num_requests_waiting 2147483648\nvllm:kv_cache_usage_perc 1e308\n"
           "vllm:cache_config_info{block_size=\"18446744073709551615\","
           "num_gpu_blocks=\"18446744073709551615\"} 1\n",
           {2147483647, 2147483647, 1.0, 2147483647}},
         row{
           "bad lines among good ones",
           "vllm:num_requests_running{ 7\nvllm:num_requests_running 1\n<html>\n"
           "vllm:num_requests_waiting\n",
           {1, {}, {}, {}}},
         row{"names that only begin alike", "vllm:num_requests_running_total 9\n", {}},
       }) {
    CAPTURE(what);
    CHECK(load_of(page) == load);
  }
}

TEST_CASE("a page that is something else is an error") {
  for (const char* page :
       {"<html><body>hello</body></html>", "{\"status\":\"ok\"}", "hello\nworld\n", "\x1f\x8b\x08",
        "vllm:num_requests_running\n"}) {
    CAPTURE(page);
    auto load = read_engine_load(page);
    REQUIRE_FALSE(load);
    CHECK(load.error().code == errc::bad_message);
  }
}

TEST_CASE("the LoRAs in use are those told last") {
  using names = std::vector<std::string>;
  auto info = [](const std::string& running, const std::string& waiting, const std::string& when) {
    return "vllm:lora_requests_info{max_lora=\"4\",running_lora_adapters=\"" + running
           + "\",waiting_lora_adapters=\"" + waiting + "\"} " + when + "\n";
  };
  std::string many;
  for (int i = 100; i < 500; ++i)
    many += "a" + std::to_string(i) + ",";
  struct row {
    std::string page;
    names expected;
  };
  for (const auto& [page, expected] :
       {row{info("sql,legal", "sql,new", "1.7e9"), {"legal", "new", "sql"}},
        row{info("old", "", "1.7e9") + info("sql", "", "1.8e9"), {"sql"}},
        row{info("sql", "", "1.8e9") + info("old", "", "1.7e9"), {"sql"}},
        row{info("old", "", "1.7e9") + info("", "", "1.8e9"), {}},
        row{info("a", "", "1.7e9") + info("b", "", "1.7e9"), {"a", "b"}}, // of two ranks
        row{info(",,x,", "", "1"), {"x"}}, row{info("x", "", "NaN"), {}},
        row{info("x", "", "-1"), {}},
        row{"vllm:lora_requests_info{ 1\nvllm:num_requests_running 1\n", {}},
        row{info(std::string(300, 'x') + ",y", "", "1"), {"y"}},
        row{"vllm:lora_requests_info_total{running_lora_adapters=\"x\"} 1\n", {}}}) {
    CAPTURE(page);
    auto load = read_engine_load(page);
    REQUIRE(load);
    CHECK(load->adapters == expected);
  }
  CHECK(read_engine_load(info(many, "", "1"))->adapters.size() == 256);
}

TEST_CASE("no bytes do harm") {
  std::mt19937 chance{7};
  for (int round = 0; round < 2000; ++round) {
    auto page = vllm_page;
    for (int i = 0; i < 8; ++i) {
      auto at = chance() % page.size();
      switch (chance() % 3) {
        case 0: page[at] = static_cast<char>(chance()); break;
        case 1: page.erase(at, chance() % 20); break;
        default: page.insert(at, page.substr(chance() % page.size(), 20)); break;
      }
    }
    page.resize(chance() % page.size());
    auto load = read_engine_load(page);
    if (load && load->kv_usage)
      CHECK((*load->kv_usage >= 0 && *load->kv_usage <= 1));
  }
}

TEST_CASE("long pages of little take little time") {
  for (const std::string piece : {"\n", "a\n", "vllm:num_requests_running{", "\"", "a{b=\"\\"}) {
    CAPTURE(piece);
    std::string page;
    while (page.size() < 4 * 1024 * 1024)
      page += piece;
    auto load = read_engine_load(page);
    CHECK((!load || *load == engine_load{}));
  }
}

} // namespace llumnix
