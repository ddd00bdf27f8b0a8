#include "chunk_texts.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace llumnix::relay {

TEST_CASE("a chat's stream is understood") {
  chunk_reader reader;
  {
    const auto& facts = understood(reader, chat_opening);
    CHECK(facts.kind == type::tokens);
    CHECK(facts.id == "chatcmpl-r1");
    REQUIRE(facts.prompt_ids);
    CHECK(*facts.prompt_ids == id_list{0, 260, 74, 75, 261});
    REQUIRE(facts.choices.size() == 1);
    CHECK(facts.choices[0].role_only);
    CHECK(facts.choices[0].text.empty());
    CHECK(facts.choices[0].ids.empty());
    CHECK(facts.choices[0].finish_reason.empty());
    CHECK_FALSE(facts.choices[0].other_delta);
    CHECK_FALSE(facts.usage);
  }
  {
    const auto& facts = understood(reader, chat_token);
    CHECK(facts.kind == type::tokens);
    CHECK_FALSE(facts.prompt_ids);
    REQUIRE(facts.choices.size() == 1);
    CHECK_FALSE(facts.choices[0].role_only);
    CHECK(facts.choices[0].text == "é\n");
    CHECK(facts.choices[0].ids == id_list{123, 4294967295});
  }
  {
    const auto& facts = understood(reader, chat_end);
    REQUIRE(facts.choices.size() == 1);
    CHECK(facts.choices[0].text.empty());
    CHECK(facts.choices[0].ids == id_list{1});
    CHECK(facts.choices[0].finish_reason == "stop");
    CHECK_FALSE(facts.choices[0].role_only);
  }
  {
    const auto& facts = understood(reader, "[DONE]");
    CHECK(facts.kind == type::done);
    CHECK(facts.choices.empty());
    CHECK(facts.id.empty());
  }
}

TEST_CASE("a completion's stream is understood") {
  chunk_reader reader;
  {
    const auto& facts = understood(reader, text_opening);
    CHECK(facts.id == "cmpl-r2");
    REQUIRE(facts.prompt_ids);
    CHECK(*facts.prompt_ids == id_list{0, 260, 74});
    REQUIRE(facts.choices.size() == 1);
    CHECK(facts.choices[0].text == "a");
    CHECK(facts.choices[0].ids == id_list{68});
    CHECK_FALSE(facts.choices[0].role_only);
  }
  {
    const auto& facts = understood(reader, text_end);
    CHECK_FALSE(facts.prompt_ids);
    CHECK(facts.choices.at(0).finish_reason == "length");
  }
  {
    const auto& facts = understood(reader, usage_chunk);
    CHECK(facts.kind == type::usage);
    CHECK(facts.choices.empty());
    REQUIRE(facts.usage);
    CHECK(facts.usage->prompt_tokens == 90);
    CHECK(facts.usage->completion_tokens == 3);
    CHECK(facts.usage->cached_tokens == 64);
  }
  CHECK(understood(reader, " [DONE] ").kind == type::done);
}

TEST_CASE("other engines' chunks are understood") {
  chunk_reader reader;
  const auto& sglang = understood(
    reader,
    R"({"id":"f0","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,)"
    R"("delta":{"role":"assistant","content":"","reasoning_content":null,"tool_calls":null},)"
    R"("logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null,"x":{"choices":1}})");
  CHECK(sglang.kind == type::tokens);
  CHECK(sglang.choices.at(0).role_only);
  CHECK(sglang.choices.at(0).ids.empty());
  CHECK_FALSE(sglang.prompt_ids);
  CHECK_FALSE(sglang.usage);

  const auto& several = understood(
    reader,
    R"({"choices":[{"text":"x","index":3,"token_ids":null},{"index":1,"text":"y"}],"id":null})");
  REQUIRE(several.choices.size() == 2);
  CHECK(several.choices[0].index == 3);
  CHECK(several.choices[0].text == "x");
  CHECK(several.choices[1].index == 1);
  CHECK(several.choices[1].text == "y");
  CHECK(several.id.empty());

  const auto& continuous = understood(
    reader,
    R"({"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":5,"completion_tokens":1}})");
  CHECK(continuous.kind == type::tokens);
  REQUIRE(continuous.usage);
  CHECK(continuous.usage->prompt_tokens == 5);
  CHECK(continuous.usage->cached_tokens == 0);
  CHECK(continuous.choices.size() == 1);

  CHECK(understood(reader, R"({"choices":[],"prompt_filter_results":[]})").kind == type::tokens);
}

TEST_CASE("a delta with more than text is told") {
  using row = std::tuple<std::string_view, bool, bool>; // delta, role only, more
  for (auto [delta, role_only, other] :
       {row{R"({"role":"assistant"})", true, false},
        row{R"({"role":"assistant","content":null})", true, false},
        row{R"({"role":"assistant","content":"x"})", false, false}, row{"{}", false, false},
        row{"null", false, false}, row{R"({"role":null,"content":""})", false, false},
        row{R"({"content":"","tool_calls":[],"refusal":null,"reasoning":"","x":{}})", false, false},
        row{R"({"role":"assistant","tool_calls":[{"index":0}]})", false, true},
        row{R"({"reasoning_content":"hm"})", false, true},
        row{R"({"reasoning":"hm","content":null})", false, true},
        row{R"({"content":[{"type":"thinking"}]})", false, true},
        row{R"({"rol\u0065":"assistant","\u0063ontent":""})", true, false}}) {
    CAPTURE(delta);
    chunk_reader reader;
    const auto& facts
      = understood(reader, with_choice(R"("index":0,"delta":)" + std::string{delta}));
    CHECK(facts.choices.at(0).role_only == role_only);
    CHECK(facts.choices.at(0).other_delta == other);
  }
}

TEST_CASE("errors within a stream are understood") {
  using row = std::tuple<std::string_view, int, std::string_view>;
  for (
    auto [data, status, message] :
    {row{
       R"({"error":{"message":"engine \u0064ied","type":"InternalServerError","param":null,"code":500}})",
       500, "engine died"},
     row{R"({"error":{"message":"m","code":429}})", 429, "m"},
     row{R"({"error":{"message":"m","code":"rate_limit"}})", 500, "m"},
     row{R"({"error":{"message":"m","code":200}})", 500, "m"},
     row{R"({"error":{"message":"m","code":99999999999999999999}})", 500, "m"},
     row{R"({"error":{"message":"m","code":400.5}})", 500, "m"},
     row{R"({"error":{"message":["m"],"code":-400}})", 500, ""}, row{R"({"error":{}})", 500, ""},
     row{R"({"error":"broken","error_type":"x"})", 500, "broken"},
     row{R"({"error":true})", 500, ""},
     row{R"({"object":"error","message":"gone","type":"x","code":503})", 503, "gone"},
     row{R"({"code":400,"message":"m","error":{"message":"n"}})", 400, "n"},
     row{R"({"err\u006fr":{"m\u0065ssage":"m"},"choices":[]})", 500, "m"}}) {
    CAPTURE(data);
    chunk_reader reader;
    const auto& facts = understood(reader, data);
    CHECK(facts.kind == type::error);
    CHECK(facts.error_status == status);
    CHECK(facts.error_message == message);
    CHECK(sent(data) == event(data));
  }
  chunk_reader reader;
  CHECK(
    understood(reader, R"({"error":null,"choices":[],"message":"m","code":1})").kind
    == type::tokens);
}

TEST_CASE("what is no event of a stream is refused") {
  auto deep = repeated("[", 10000);
  for (const auto& data : {
         std::string{},
         std::string{"[DONE"},
         std::string{"DONE"},
         std::string{"null"},
         std::string{"[]"},
         std::string{"{}"},
         std::string{R"("[DONE]")"},
         std::string{R"({"detail":"Not Found"})"},
         std::string{R"({"choices":null})"},
         std::string{R"({"choices":{}})"},
         std::string{R"({"choices":"x"})"},
         std::string{R"({"choices":[1]})"},
         std::string{R"({"choices":[null]})"},
         std::string{R"({"choices":[[]]})"},
         std::string{R"({"choices":[{}]})"},
         std::string{R"({"choices":[],"usage":5})"},
         std::string{R"({"choices":[],"usage":[]})"},
         std::string{R"({"choices":[],"usage":{"prompt_tokens":-1}})"},
         std::string{R"({"choices":[],"usage":{"prompt_tokens":1.5}})"},
         std::string{R"({"choices":[],"usage":{"completion_tokens":"1"}})"},
         std::string{R"({"choices":[],"usage":{"completion_tokens":99999999999999999999999}})"},
         std::string{R"({"choices":[],"usage":{"prompt_tokens_details":7}})"},
         std::string{R"({"choices":[],"id":5})"},
         std::string{R"({"choices":[],"prompt_token_ids":{}})"},
         std::string{R"({"choices":[],"prompt_token_ids":[1,-2]})"},
         std::string{R"({"choices":[]}{})"},
         std::string{R"({"choices":[],})"},
         std::string{"{\"choices\":[],\"x\":\"\xFF\"}"},
         std::string{"{\"choices\":[],\"x\":\"\xED\xA0\x80\"}"},
         std::string{"{\"choices\":[],\"x\":\"\n\"}"},
         R"({"choices":)" + deep,
         R"({"choices":[],"x":)" + deep,
         with_choice(R"("text":"x")"),
         with_choice(R"("index":0)"),
         with_choice(R"("index":null,"text":"x")"),
         with_choice(R"("index":-1,"text":"x")"),
         with_choice(R"("index":"0","text":"x")"),
         with_choice(R"("index":0.0,"text":"x")"),
         with_choice(R"("index":4294967296,"text":"x")"),
         with_choice(R"("index":1e1,"text":"x")"),
         with_choice(R"("index":0,"text":5)"),
         with_choice(R"("index":0,"text":["x"])"),
         with_choice(R"("index":0,"delta":"x")"),
         with_choice(R"("index":0,"text":"x","delta":{})"),
         with_choice(R"("index":0,"text":"x","finish_reason":1)"),
         with_choice(R"("index":0,"text":"x","finish_reason":{"type":"stop"})"),
         with_choice(R"("index":0,"text":"x","token_ids":5)"),
         with_choice(R"("index":0,"text":"x","token_ids":[1,"2"])"),
         with_choice(R"("index":0,"text":"x","token_ids":[4294967296])"),
         with_choice(R"("index":0,"text":"x","token_ids":[1.0])"),
         with_choice(R"("index":0,"text":"x","token_ids":[null])"),
         with_choice(R"("index":0,"text":"x","prompt_token_ids":"1")"),
         with_choice(R"("index":0,"text":"x","logprobs":)" + deep),
       }) {
    CAPTURE(data);
    chunk_reader reader;
    auto facts = reader.read(data);
    REQUIRE_FALSE(facts);
    CHECK(facts.error().code == errc::bad_message);
    CHECK(reader.event().empty());
    CHECK(understood(reader, chat_token).choices.at(0).text == "é\n"); // of use again
  }
}

TEST_CASE("every beginning of an event is refused") {
  for (auto data : {chat_opening, chat_token, chat_end, text_opening, usage_chunk}) {
    chunk_reader reader;
    for (std::size_t size = 0; size < data.size(); ++size) {
      auto facts = reader.read(data.substr(0, size));
      REQUIRE_FALSE(facts);
      REQUIRE(facts.error().code == errc::bad_message);
    }
    understood(reader, data);
  }
}

TEST_CASE("of a member said twice the last counts") {
  chunk_reader reader;
  const auto& facts = understood(
    reader,
    R"({"id":"a","i\u0064":"b","choices":[{"index":0,"text":"x"},{"index":1,"text":"y"}],"usage":{"prompt_tokens":1},)"
    R"("choices":[{"index":5,"index":7,"token_ids":[1],"token_ids":[2,3],"text":"z","finish_reason":"stop",)"
    R"("finish_reason":null}],"us\u0061ge":null})");
  CHECK(facts.id == "b");
  CHECK_FALSE(facts.usage);
  REQUIRE(facts.choices.size() == 1);
  CHECK(facts.choices[0].index == 7);
  CHECK(facts.choices[0].text == "z");
  CHECK(facts.choices[0].ids == id_list{2, 3});
  CHECK(facts.choices[0].finish_reason.empty());
  CHECK(
    understood(reader, R"({"choices":[],"choices":[{"index":0,"text":""}]})").choices.size() == 1);
  CHECK_FALSE(reader.read(R"({"choices":[{"index":0,"text":""}],"choices":null})"));
}

TEST_CASE("text is decoded") {
  using row = std::pair<std::string_view, std::string_view>;
  for (auto [json, text] :
       {row{R"(a\u00e9\n\"\\)", "a\u00e9\n\"\\"}, row{R"(\ud83d\ude00)", "\U0001F600"},
        row{R"(\ud83d)", "\uFFFD"}, row{R"(x\udc00y)", "x\uFFFDy"}, row{"\uFFFD", "\uFFFD"},
        row{R"(\u0000)", std::string_view{"\0", 1}}}) {
    chunk_reader reader;
    auto choice = R"("index":0,"text":")" + std::string{json} + "\"";
    CHECK(understood(reader, with_choice(choice)).choices.at(0).text == text);
    CHECK(sent(with_choice(choice)) == event(with_choice(choice)));
  }
}

TEST_CASE("an event is passed on byte by byte, without ids nobody asked for") {
  for (auto data : {chat_opening, chat_token, chat_end, text_opening, usage_chunk})
    CHECK(sent(data, true) == event(data));
  CHECK(sent("[DONE]") == "data: [DONE]\n\n");
  CHECK(sent(usage_chunk) == event(usage_chunk));
  CHECK(
    sent(chat_opening)
    == event(
      R"({"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"tiny",)"
      R"("choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,)"
      R"("finish_reason":null}],"prompt_token_ids":null,"prompt_text":null})"));
  CHECK(
    sent(text_opening)
    == event(
      R"({"id":"cmpl-r2","object":"text_completion","created":1700000009,"model":"tiny-b",)"
      R"("choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null,"stop_reason":null,)"
      R"("prompt_token_ids":null,"token_ids":null}]})"));
  using row = std::pair<std::string_view, std::string_view>;
  for (
    auto [data, kept] :
    {row{
       R"({ "choices" : [ { "token_ids" : [ 1 ] , "index" : 0 , "text" : "\u0061" } ] , "x" : 1e0 })",
       R"({ "choices" : [ { "token_ids" : null , "index" : 0 , "text" : "\u0061" } ] , "x" : 1e0 })"},
     row{
       R"({"prompt_token_ids":[1],"token_ids":[9],"choices":[]})",
       R"({"prompt_token_ids":null,"token_ids":[9],"choices":[]})"},
     row{
       R"({"choices":[{"prompt_token_ids":null,"token_ids":[1],"index":0,"text":"x"}],"prompt_token_ids":[]})",
       R"({"choices":[{"prompt_token_ids":null,"token_ids":null,"index":0,"text":"x"}],"prompt_token_ids":null})"},
     row{
       R"({"choices":[{"index":0,"token_ids":[1],"prompt_token_ids":[2],"text":"x"},{"text":"","token_ids":[3],"index":1}]})",
       R"({"choices":[{"index":0,"token_ids":null,"prompt_token_ids":null,"text":"x"},{"text":"","token_ids":null,"index":1}]})"},
     row{
       R"({"choices":[{"index":0,"tok\u0065n_ids":[1],"text":"x","token_ids":[2]}]})",
       R"({"choices":[{"index":0,"tok\u0065n_ids":null,"text":"x","token_ids":null}]})"},
     row{
       R"({"choices":[{"index":0,"text":"x","y":{"token_ids":[1]}}],"z":[{"prompt_token_ids":1}]})",
       R"({"choices":[{"index":0,"text":"x","y":{"token_ids":[1]}}],"z":[{"prompt_token_ids":1}]})"}}) {
    CHECK(sent(data) == event(kept));
    CHECK(sent(data, true) == event(data));
  }
}

TEST_CASE("wherever the ids are, the rest stays as it was") {
  std::mt19937 random{3};
  for (int i = 0; i < 600; ++i) {
    std::vector<std::string> members{R"("index" :0)", R"("text": "a")"};
    for (auto extra = random() % 3; extra > 0; --extra)
      members.push_back("\"x" + std::to_string(extra) + "\": [1, 2]");
    for (auto ids = random() % 3; ids > 0; --ids)
      members.push_back(
        random() % 2 == 0 ? R"("token_ids" : [1,2])" : R"("prompt_token_ids":null)");
    std::shuffle(members.begin(), members.end(), random);
    std::vector<std::string> outer{R"("id":"x")", R"("prompt_token_ids" :[7])"};
    std::string choice;
    for (const auto& member : members)
      choice += (choice.empty() ? "" : random() % 2 == 0 ? "," : " , ") + member;
    outer.push_back(R"("choices":[{)" + choice + "}]");
    std::shuffle(outer.begin(), outer.end(), random);
    auto data = "{" + outer[0] + " ," + outer[1] + "," + outer[2] + "}";
    auto expected = nlohmann::json::parse(data);
    expected["prompt_token_ids"] = nullptr;
    for (const auto* name : {"token_ids", "prompt_token_ids"})
      if (auto& choice = expected["choices"][0]; choice.contains(name))
        choice[name] = nullptr;
    CAPTURE(data);
    auto out = sent(data);
    REQUIRE(nlohmann::json::parse(data_of(out)) == expected);
  }
}

TEST_CASE("line breaks between tokens stay within the event") {
  CHECK(
    sent("{\"choices\":\n[{\"index\":0,\r\"text\":\"a\\n\",\n\"token_ids\":[1]}]}")
    == "data: {\"choices\":\ndata: [{\"index\":0,\ndata: \"text\":\"a\\n\",\ndata: "
       "\"token_ids\":null}]}\n\n");
  auto out = shown(
    asked(endpoint::chat), chat_opening,
    "{\"choices\":[{\"index\":\n0,\"text\":\"a\",\"x\":[1,\n\n2]}],\"y\":{\n}}", "b");
  CHECK(
    out
    == "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},\"x\":[1,\ndata: \ndata: "
       "2]}],"
       "\"y\":{\ndata: }}\n\n");
}

TEST_CASE("very many ids are read") {
  std::string ids = "0";
  id_list expected{0};
  for (token_id i = 1; i < 100000; ++i) {
    ids += "," + std::to_string(i * 40000);
    expected.push_back(i * 40000);
  }
  chunk_reader reader;
  const auto& facts = understood(
    reader, R"({"prompt_token_ids":[)" + ids + R"(],"choices":[{"index":0,"text":"","token_ids":[)"
              + ids + "]}]}");
  CHECK(facts.prompt_ids == expected);
  CHECK(facts.choices.at(0).ids == expected);
  std::string out;
  reader.append_as_sent(out, true);
  CHECK(
    out
    == event(R"({"prompt_token_ids":null,"choices":[{"index":0,"text":"","token_ids":null}]})"));
  CHECK(understood(reader, chat_token).choices.at(0).ids.size() == 2);
}

TEST_CASE("garbled events do no harm") {
  // No exponents: the other parser refuses numbers beyond a double.
  constexpr std::string_view bytes = "{}[]\":,\\tfnu-+.019 \x01\x80\xc3\n";
  const auto rich = with_choice(
    R"("index":0,"text":"a","logprobs":{"text_offset":[0,1],"token_logprobs":[-0.5,null],"tokens":["a","\u00e9"],)"
    R"("top_logprobs":[{"a":-0.5,"b":-1},null]},"token_ids":[1,2],"prompt_token_ids":[3])");
  std::mt19937 random{5};
  chunk_reader reader;
  int understood_ones = 0;
  for (auto data :
       {std::string{chat_token}, std::string{text_opening}, std::string{usage_chunk}, rich})
    for (int i = 0; i < 700; ++i) {
      auto garbled = data;
      for (auto change = random() % 3; change < 3; ++change)
        switch (auto at = random() % garbled.size(); random() % 4) {
          case 0: garbled[at] = bytes[random() % bytes.size()]; break;
          case 1: garbled.insert(at, 1, bytes[random() % bytes.size()]); break;
          case 2:
            garbled.insert(at, garbled.substr(random() % garbled.size(), random() % 30));
            break;
          default: garbled.erase(at, random() % 3); break;
        }
      auto facts = reader.read(garbled);
      bool valid = nlohmann::json::accept(garbled);
      if (facts && !valid)
        FAIL(garbled);
      if (!facts)
        continue;
      ++understood_ones;
      std::string out;
      reader.append_as_sent(out, true);
      if (!nlohmann::json::accept(data_of(out)))
        FAIL(garbled << " became " << out);
      for (auto kind : {endpoint::chat, endpoint::completions}) {
        out.clear();
        translator{asked(kind, true, 2), garbled}.append(out, reader, "t", {1, 2, 3}, 7, 0);
        if (!nlohmann::json::accept(data_of(out)))
          FAIL(garbled << " became " << out);
      }
    }
  CHECK(understood_ones > 150);
}

} // namespace llumnix::relay
