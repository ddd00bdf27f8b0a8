#include "runtime/engine/modeled_tokens.hpp"
#include "runtime/serving/byte_tokenizer.hpp"
#include "tests/engine/engine_fixture.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace llumnix {
/// The text of modeled_engine_vectors.json.
std::string_view modeled_engine_vectors();
} // namespace llumnix

using namespace llumnix;
using testing::engine_fixture;

namespace {

std::uint64_t hex(const nlohmann::json& text) {
  return std::stoull(text.get<std::string>(), nullptr, 16);
}

inference_request request_of(const nlohmann::json& row) {
  auto x = engine_fixture::request(1, "");
  x.prompt = row.at("prompt_ids").get<std::vector<token_id>>();
  x.sampling.max_tokens = row.at("max_tokens").get<std::uint32_t>();
  x.sampling.temperature = row.value("temperature", 0.0);
  x.sampling.seed = row.value("seed", std::uint64_t{0});
  x.sampling.choice = row.value("choice", 0u);
  x.sampling.ignore_eos = row.value("ignore_eos", false);
  return x;
}

} // namespace

TEST_CASE("the digests are those of the vectors") {
  auto vectors = nlohmann::json::parse(modeled_engine_vectors());
  for (std::uint64_t z = 0; z < vectors.at("mix").size(); ++z)
    CHECK(modeled::mix(z) == hex(vectors.at("mix")[z]));
  for (const auto& row : vectors.at("rows")) {
    CAPTURE(row.at("name").get<std::string>());
    std::vector<std::uint64_t> digests{0};
    for (const auto& id : row.at("prompt_ids"))
      digests.push_back(modeled::next_digest(digests.back(), id.get<token_id>()));
    CHECK(digests.back() == hex(row.at("digest_of_prompt")));
    if (row.contains("digests"))
      for (std::size_t i = 0; i < row.at("digests").size(); ++i)
        CHECK(digests[i + 1] == hex(row.at("digests")[i]));
  }
}

TEST_CASE("an engine gives the outputs of the vectors, whatever its blocks") {
  auto vectors = nlohmann::json::parse(modeled_engine_vectors());
  REQUIRE(vectors.at("rows").size() >= 7);
  for (auto block_tokens : {1u, 3u, 16u})
    for (const auto& row : vectors.at("rows")) {
      CAPTURE(row.at("name").get<std::string>());
      CAPTURE(block_tokens);
      auto config = engine_fixture::small();
      config.block_tokens = block_tokens;
      config.blocks = 256;
      engine_fixture x{config};
      REQUIRE(x.submit(request_of(row)) == errc::ok);
      x.run();
      auto& got = x.streams[1];
      CHECK(got.tokens == row.at("output_ids").get<std::vector<token_id>>());
      CHECK(
        got.finish
        == (row.at("finish_reason") == "stop" ? finish_reason::stop : finish_reason::length));
      std::string text;
      for (auto id : got.tokens)
        byte_tokenizer{}.append_text(id, text);
      CHECK(text == row.at("text").get<std::string>());
    }
}

TEST_CASE("end-of-sequence comes when it is drawn and nothing forbids it") {
  struct row {
    std::uint64_t drawn;
    bool ignore;
    eos_rule rule;
    std::uint32_t min_tokens, index;
    bool ends;
  };
  const std::uint64_t end = 0x500, word = 0x501;
  for (auto [drawn, ignore, rule, min_tokens, index, ends] : {
         row{end, false, eos_rule::free, 0, 0, true},
         row{word, false, eos_rule::free, 0, 0, false},
         row{end, true, eos_rule::free, 0, 0, false},
         row{end, false, eos_rule::forbid, 0, 0, false},
         row{word, false, eos_rule::force, 0, 0, true},
         row{word, true, eos_rule::force, 0, 0, false},
         row{end, false, eos_rule::free, 3, 2, false},
         row{end, false, eos_rule::free, 3, 3, true},
         row{word, false, eos_rule::force, 3, 2, false},
         row{word, false, eos_rule::force, 3, 3, true},
       }) {
    CAPTURE(index);
    sampling_params s;
    s.ignore_eos = ignore;
    s.eos = rule;
    s.min_tokens = min_tokens;
    CHECK(modeled::token_of(drawn, s, index) == (ends ? 257u : 517u));
  }
}

TEST_CASE("an output ends by token, by number and by the model's length, in this order") {
  struct row {
    token_id token;
    std::uint32_t index;
    bool room;
    finish_reason finish;
  };
  sampling_params s;
  s.max_tokens = 10;
  s.min_tokens = 2;
  s.stop_token_ids = {600};
  for (auto [token, index, room, finish] : {
         row{700, 5, true, finish_reason::none},
         row{257, 5, true, finish_reason::stop},
         row{600, 5, true, finish_reason::stop},
         row{600, 1, true, finish_reason::none},
         row{600, 2, true, finish_reason::stop},
         row{700, 9, true, finish_reason::length},
         row{700, 8, true, finish_reason::none},
         row{257, 9, true, finish_reason::stop},
         row{700, 5, false, finish_reason::length},
         row{600, 1, false, finish_reason::length},
       }) {
    CAPTURE(token);
    CAPTURE(index);
    CHECK(modeled::finish_of(token, s, index, room) == finish);
  }
}

TEST_CASE("log-probabilities are those of the draw, alternatives half a unit apart") {
  auto drawn = (std::uint64_t{512} << 32) | (511u << 8);
  auto told = modeled::logprob_of(drawn, 3);
  CHECK(told.logprob == -2.0f);
  using pair = std::pair<token_id, float>;
  CHECK(told.alternatives == std::vector<pair>{{512, -2.5f}, {513, -3.0f}, {514, -3.5f}});
}

TEST_CASE("log-probabilities come with each token, and only for those who asked") {
  for (bool asked : {false, true}) {
    engine_fixture x;
    auto request = x.request(1, "hello", 5);
    request.sampling.logprobs = asked;
    request.sampling.top_logprobs = 2;
    REQUIRE(x.submit(request) == errc::ok);
    x.run();
    CHECK(x.streams[1].tokens.size() == 5);
    CHECK(x.streams[1].logprobs.size() == (asked ? 5 : 0));
    for (const auto& told : x.streams[1].logprobs)
      CHECK(told.alternatives.size() == 2);
  }
}

TEST_CASE("about one token in 256 is end-of-sequence") {
  std::size_t ends = 0;
  for (std::uint64_t i = 0; i < 256 * 1000; ++i)
    ends += modeled::token_of(modeled::draw(i, 0, 1), {}, 0) == byte_tokenizer::eos;
  CHECK(ends > 900);
  CHECK(ends < 1100);
}
