#include "gateway/scheduler_api/pong_watch.hpp"
#include "gateway/scheduler_api/scheduling_reply.hpp"
#include "gateway/scheduler_api/scheduling_request.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <string>

namespace llumnix::scheduler_api {
namespace {

using namespace std::chrono_literals;

/// An instance of full mode, as it was recorded.
told_instance recorded() {
  return {
    {"inst-1", "127.0.0.1_instance0_1", infer_type::neutral, "127.0.0.1", 24111, "127.0.0.1", 24151,
     0, 1},
    {},
    0};
}

} // namespace

TEST_CASE("what is no request is told from what is an odd one") {
  struct row {
    std::string body;
    bool good;
  };
  const auto long_id = std::string(id_bytes_max + 1, 'x');
  for (const auto& [body, good] :
       {row{"{}", true},
        row{"null", true}, // as Go reads it
        row{" { } ", true},
        row{R"({"id":null,"prompt_num_tokens":null,"prompt_token_ids":null})", true},
        row{R"({"ID":"a","Scheduling_Mode":"neutral"})", true},
        row{R"({"other":[1,{"a":2}],"id":"a"})", true},
        row{R"({"prompt_num_tokens":-5})", true},
        row{R"({"prompt_num_tokens":9223372036854775807})", true},
        row{R"({"prompt_token_ids":[]})", true},
        row{R"({"prompt_token_ids":[0,4294967295]})", true},
        row{R"({"scheduling_result":[{"version":-1,"endpoint":{"host":"h","port":1}}]})", true},
        row{R"({"scheduling_result":[null]})", true},
        row{"", false},
        row{"{", false},
        row{"[]", false},
        row{"{}{}", false},
        row{R"({"id":1})", false},
        row{R"({"id":{}})", false},
        row{R"({"prompt_num_tokens":"x"})", false},
        row{R"({"prompt_num_tokens":1.0})", false},
        row{R"({"prompt_num_tokens":1e2})", false},
        row{R"({"prompt_num_tokens":9223372036854775808})", false},
        row{R"({"prompt_token_ids":[-1]})", false},
        row{R"({"prompt_token_ids":[4294967296]})", false},
        row{R"({"prompt_token_ids":[1.5]})", false},
        row{R"({"prompt_token_ids":["1"]})", false},
        row{R"({"prompt_token_ids":{}})", false},
        row{R"({"prompt_token_ids":1})", false},
        row{R"({"scheduling_result":{}})", false},
        row{R"({"scheduling_result":[1]})", false},
        row{R"({"scheduling_result":[{"dp_rank":"0"}]})", false},
        row{R"({"scheduling_result":[{"endpoint":{"port":"1"}}]})", false},
        row{R"({"id":")" + long_id + R"("})", false},
        row{"{\"id\":\"\xff\"}", false}}) {
    CAPTURE(body);
    CHECK(read_scheduling_request(body).has_value() == good);
  }
}

TEST_CASE("what a request asks for") {
  struct row {
    const char* body;
    serving_mode mode;
    infer_type stage;
    std::uint32_t tokens;
  };
  for (const auto& [body, mode, stage, tokens] :
       {row{
          R"({"scheduling_mode":"neutral","scheduling_stage":"odd","prompt_num_tokens":7})",
          serving_mode::neutral, infer_type::neutral, 7},
        row{
          R"({"scheduling_mode":"pd_batch","prompt_num_tokens":-7})", serving_mode::pd_batch,
          infer_type::neutral, 0},
        row{
          R"({"scheduling_mode":"pd_staged","scheduling_stage":"decode"})", serving_mode::pd_staged,
          infer_type::decode, 0},
        row{
          R"({"scheduling_mode":"pd_staged","prompt_num_tokens":9999999999})",
          serving_mode::pd_staged, infer_type::neutral, std::numeric_limits<std::uint32_t>::max()},
        row{R"({"scheduling_mode":"other"})", serving_mode::pd_staged, infer_type::neutral, 0},
        row{
          R"({"scheduling_stage":"prefill"})", serving_mode::pd_staged, infer_type::neutral, 0}}) {
    CAPTURE(body);
    auto request = read_scheduling_request(body);
    REQUIRE(request);
    auto query = to_query(*request);
    CHECK(query.mode == mode);
    CHECK(query.stage == stage);
    CHECK(query.prompt_tokens == tokens);
  }
}

TEST_CASE("a reply says the request again, to the byte of the reference") {
  struct row {
    std::string body, echo; ///< without the closing brace
  };
  const std::string result
    = R"(,"scheduling_result":[{"version":0,"id":"127.0.0.1_instance0_1","model":"","infer_type":"neutral",)"
      R"("endpoint":{"host":"127.0.0.1","port":24111},"aux_ip":"127.0.0.1","aux_port":24151,"dp_rank":0,"dp_size":1}]})";
  for (
    const auto& [body, echo] :
    {row{
       R"({"id":"d1","model":"m","scheduling_mode":"neutral","scheduling_stage":"prefill","prompt_num_tokens":3,"prompt_token_ids":[1,2,3]})",
       R"({"id":"d1","model":"m","scheduling_mode":"neutral","scheduling_stage":"prefill","prompt_num_tokens":3,"prompt_token_ids":[1,2,3])"},
     row{
       R"({"gateway_id":"127.0.0.1:41174","id":"r"})",
       R"({"id":"r","model":"","gateway_id":"127.0.0.1:41174","scheduling_mode":"","scheduling_stage":"","prompt_token_ids":null)"},
     row{
       "{\"prompt_token_ids\": [ 1 ,\n2 ], \"prompt_num_tokens\": 0}",
       R"({"id":"","model":"","scheduling_mode":"","scheduling_stage":"","prompt_token_ids":[1,2])"},
     row{
       R"({"prompt_token_ids":[],"scheduling_result":[{"id":"old"}],"prompt_num_tokens":-1})",
       R"({"id":"","model":"","scheduling_mode":"","scheduling_stage":"","prompt_num_tokens":-1,"prompt_token_ids":[])"},
     row{
       R"({"id":"<\u0001\"\\\t\n&\u2028\u00e9\ud800>"})",
       "{\"id\":\"\\u003c\\u0001\\\"\\\\\\t\\n\\u0026\\u2028\xc3\xa9\xef\xbf\xbd\\u003e\","
       R"("model":"","scheduling_mode":"","scheduling_stage":"","prompt_token_ids":null)"}}) {
    CAPTURE(body);
    auto request = read_scheduling_request(body);
    REQUIRE(request);
    CHECK(render_scheduled(*request, {recorded()}) == echo + result);
  }
}

TEST_CASE("prefill stands before decode, and lite mode tells model and version") {
  auto request = read_scheduling_request("{}");
  auto one = recorded();
  one.chosen.role = infer_type::prefill;
  auto other = recorded();
  other.chosen.role = infer_type::decode;
  other.model = "m";
  other.version = 1;
  auto text = render_scheduled(*request, {one, other});
  CHECK(text.find(R"("infer_type":"prefill")") < text.find(R"("infer_type":"decode")"));
  CHECK(text.find(R"({"version":1,"id":"127.0.0.1_instance0_1","model":"m")") != text.npos);
}

TEST_CASE("a prompt of many tokens stays where it is") {
  std::string ids = "[0";
  for (int i = 1; i < 100'000; ++i)
    ids += "," + std::to_string(i);
  ids += "]";
  auto body = R"({"prompt_token_ids":)" + ids + "}";
  auto request = read_scheduling_request(body);
  REQUIRE(request);
  CHECK(request->token_ids == ids);
  CHECK(request->token_ids.data() == body.data() + body.find('['));
}

TEST_CASE("reports are arrays of what became of requests") {
  auto news = read_report(
    R"([{"kind":"prefill_done","id":"a","model":"m","infer_type":"neutral","instance_id":"pod-1_dp0","gateway_id":"g:1","num_tokens":0},)"
    R"({"kind":"state_update","id":"b","num_tokens":18446744073709551615},{}])");
  REQUIRE(news);
  REQUIRE(news->size() == 3);
  CHECK((*news)[0].prefill_done);
  CHECK((*news)[0].request == "a");
  CHECK((*news)[0].gateway == "g:1");
  CHECK((*news)[0].at.store == "neutral");
  CHECK((*news)[0].at.instance == "pod-1_dp0");
  CHECK_FALSE((*news)[1].prefill_done);
  CHECK((*news)[1].tokens == std::numeric_limits<std::uint64_t>::max());
  struct row {
    const char* body;
    bool good;
  };
  for (auto [body, good] :
       {row{"[]", true}, row{"null", true}, row{"[null]", true}, row{"{}", false},
        row{"nope", false}, row{"", false}, row{"[", false}, row{R"([{"num_tokens":-1}])", false},
        row{R"([{"num_tokens":18446744073709551616}])", false}, row{R"([{"id":1}])", false},
        row{"[[]]", false}}) {
    CAPTURE(body);
    CHECK(read_report(body).has_value() == good);
  }
}

TEST_CASE("lists have an end") {
  auto list = [](std::size_t items) {
    std::string text = "[{}";
    for (std::size_t i = 1; i < items; ++i)
      text += ",{}";
    return text + "]";
  };
  CHECK(read_report(list(news_max)).has_value());
  CHECK_FALSE(read_report(list(news_max + 1)).has_value());
  auto request
    = [&](std::size_t places) { return R"({"scheduling_result":)" + list(places) + "}"; };
  CHECK(read_scheduling_request(request(places_max)).has_value());
  CHECK_FALSE(read_scheduling_request(request(places_max + 1)).has_value());
}

TEST_CASE("a gateway says who it is") {
  struct row {
    std::string text, id; ///< empty: refused
  };
  for (const auto& [text, id] :
       {row{R"({"host":"127.0.0.1","port":41174})", "127.0.0.1:41174"},
        row{R"({"host":"::1","port":1,"more":true})", "::1:1"}, row{R"({"host":"h"})", "h:0"},
        row{"{}", ""}, row{"null", ""}, row{"ok", ""}, row{"", ""},
        row{R"({"host":"","port":1})", ""}, row{R"({"host":"h","port":"1"})", ""},
        row{R"({"host":"h","port":65536})", ""}, row{R"({"host":"h","port":-1})", ""}}) {
    CAPTURE(text);
    CHECK(read_gateway_id(text).value_or("") == id);
  }
}

TEST_CASE("a gateway that answers no ping is given up nine seconds after its last pong") {
  using action = pong_watch::action;
  const time_point start{};
  pong_watch watch{start};
  CHECK(watch.on_tick(start + 2999ms) == action::wait);
  CHECK(watch.on_tick(start + 3s) == action::ping);
  CHECK(watch.on_tick(start + 3100ms) == action::wait);
  CHECK(watch.on_tick(start + 6s) == action::ping);
  watch.on_pong();
  CHECK(watch.on_tick(start + 9s) == action::ping);
  CHECK(watch.on_tick(start + 12s) == action::ping);
  CHECK(watch.on_tick(start + 14999ms) == action::wait);
  CHECK(watch.on_tick(start + 15s) == action::close);
}

} // namespace llumnix::scheduler_api
