#include "integrations/vllm/engine_facts.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

namespace llumnix {

TEST_CASE("what is no list of models is an error") {
  auto deep = std::string(100000, '[');
  for (const std::string& body :
       {std::string{}, std::string{"null"}, std::string{"[]"}, std::string{"{}"},
        std::string{"{\"data\":null}"}, std::string{"{\"data\":{\"id\":\"a\"}}"},
        std::string{"{\"data\":[{\"id\":\"a\"}"}, std::string{"{\"data\":[{\"id\":\"a\"}]} x"},
        std::string{"{\"data\":[{\"id\":\"a\",]}"}, std::string{"{\"data\":[{\"id\":\"\xff\"}]}"},
        std::string{"<html>"}, std::string{"\"data\""}, "{\"data\":" + deep}) {
    CAPTURE(body.substr(0, 40));
    auto list = read_models(body);
    REQUIRE_FALSE(list);
    CHECK(list.error().code == errc::bad_message);
  }
}

TEST_CASE("entries of models are kept as they were sent") {
  auto list = read_models(
    "{\"object\":\"list\",\"data\":[ {\"id\" : \"a\\u00e4\", \"x\":1.50, \"y\":[{}],"
    "\"owned_by\":\"vllm\",\"max_model_len\":null} ,\n{\"max_model_len\":4096,\"id\":\"b}\"}\n ]}");
  REQUIRE(list);
  CHECK(list->ids == std::vector<std::string>{"a\xc3\xa4", "b}"});
  CHECK(
    list->entries
    == std::vector<std::string>{
      "{\"id\" : \"a\\u00e4\", \"x\":1.50, "
      "\"y\":[{}],\"owned_by\":\"vllm\",\"max_model_len\":null}",
      "{\"max_model_len\":4096,\"id\":\"b}\"}"});
  CHECK(list->owned_by == "vllm");
  CHECK(list->max_model_len == 4096);
  CHECK_FALSE(list->cut);
}

TEST_CASE("models with a parent are LoRAs") {
  auto list = read_models(
    R"({"data":[{"id":"m","parent":null},{"id":"n"},{"id":"sql","parent":"m"},{"id":"o","parent":""},
       {"id":"p","parent":7}]})");
  REQUIRE(list);
  CHECK(list->ids.size() == 5);
  CHECK(list->adapters == std::vector<std::string>{"sql"});
}

TEST_CASE("entries that cannot be used are left out") {
  auto long_id = std::string(513, 'x');
  auto list = read_models(
    "{\"data\":[1,\"a\",null,[],{},{\"id\":1},{\"id\":\"\"},{\"id\":\"" + long_id
    + "\"},{\"id\":\"a\",\"owned_by\":7,\"max_model_len\":-1},{\"id\":\"a\",\"owned_by\":\"x\"},"
      "{\"id\":\"b\",\"max_model_len\":99999999999}]}");
  REQUIRE(list);
  CHECK(list->cut);
  CHECK(list->ids == std::vector<std::string>{"a", "b"});
  CHECK(list->entries.size() == 2);
  CHECK(list->owned_by.empty());
  CHECK(list->max_model_len == 4294967295u);
}

TEST_CASE("all models are taken, each once") {
  struct row {
    int sent;
    bool numbered;
    std::size_t taken;
    bool cut;
  };
  for (auto [sent, numbered, taken, cut] :
       {row{0, true, 0, false}, row{65, true, 65, false}, row{20000, true, 20000, false},
        row{20000, false, 1, true}}) {
    CAPTURE(sent);
    std::string body = "{\"data\":[";
    for (int i = 0; i < sent; ++i)
      body += (i ? ",{\"id\":\"" : "{\"id\":\"") + std::to_string(numbered ? i : 0) + "\"}";
    auto list = read_models(body + "]}");
    REQUIRE(list);
    CHECK(list->ids.size() == taken);
    CHECK(list->cut == cut);
  }
}

TEST_CASE("a version is a short word") {
  CHECK(*read_version("{\"version\":\"0.32.0\"}") == "0.32.0");
  for (const std::string& body :
       {std::string{}, std::string{"\"0.32.0\""}, std::string{"{}"}, std::string{"{\"version\":1}"},
        std::string{"{\"version\":\"\"}"}, std::string{"{\"version\":\"a b\"}"},
        std::string{"{\"version\":\"a\\u0000\"}"}, "{\"version\":\"" + std::string(65, '1') + "\"}",
        std::string{"<html>"}}) {
    CAPTURE(body);
    auto version = read_version(body);
    REQUIRE_FALSE(version);
    CHECK(version.error().code == errc::bad_message);
  }
}

TEST_CASE("token ids are believed to vLLM from 0.10.2 on") {
  struct row {
    const char *owned_by, *version;
    bool tells;
  };
  for (auto [owned_by, version, tells] :
       {row{"vllm", "0.32.0", true}, row{"vllm", "0.10.2", true}, row{"vllm", "0.10.2rc1", true},
        row{"vllm", "0.10.10", true}, row{"vllm", "v0.11", true}, row{"vllm", "1", true},
        row{"vllm", "0.10.3.dev5+gabc", true}, row{"vllm", "main", true},
        row{"vllm", "99999999999.0", true}, row{"vllm", ".", true}, row{"vllm", "0.10.1.1", false},
        row{"vllm", "0.9.2", false}, row{"vllm", "0.10", false}, row{"vllm", "0", false},
        row{"vllm", "0.9.x", false}, row{"vllm", "", false}, row{"sglang", "0.32.0", false},
        row{"", "0.32.0", false}, row{"VLLM", "0.32.0", false}}) {
    CAPTURE(owned_by);
    CAPTURE(version);
    CHECK(tells_token_ids(owned_by, version) == tells);
  }
  for (auto [owned_by, goes_on] :
       {std::pair{"vllm", true}, {"sglang", true}, {"somebody", false}, {"", false}})
    CHECK(goes_on_with_text(owned_by) == goes_on);
  CHECK(name_engine("vllm", "0.32.0") == "vLLM 0.32.0");
  CHECK(name_engine("sglang", "") == "SGLang");
  CHECK(name_engine("somebody", "") == "OpenAI-compatible");
}

} // namespace llumnix
