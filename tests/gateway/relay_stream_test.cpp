#include "toy_engine.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace llumnix::relay {

TEST_CASE("a usage is told once the output has ended, and by the engine that ended it") {
  struct row {
    const char* what;
    const char* first;
    const char* second; ///< another engine goes on; empty: the first ends
    std::vector<int> told;
    std::uint32_t choices = 1;
  };
  chunk_reader reader;
  for (const auto& [what, first, second, told, choices] :
       {row{"as usual", "tte3d", "", {3}}, row{"none", "tted", "", {}},
        row{"too early, and again", "tt2e3d", "", {3}}, row{"too early alone", "tt2ed", "", {2}},
        row{"before all", "0tted", "", {0}}, row{"twice too early", "t1t2ed", "", {2}},
        row{"within one of two choices", "e1E2d", "", {2}, 2},
        row{"between two choices alone", "e1Ed", "", {1}, 2},
        row{"too early, then lost", "tt2", "e1d", {3}}, row{"too early twice", "tt2", "0e1d", {3}},
        row{"too early alone at the second", "tt2", "1ed", {3}},
        row{"lost, and none then", "tt2", "ed", {}}, row{"told, then lost", "tte3", "e1d", {3}},
        row{"told, then lost, and too early", "tte3", "1ed", {3}}}) {
    CAPTURE(what);
    relay_request request;
    request.stream = true;
    request.include_usage = true;
    request.choices = choices;
    request.max_tokens = 3;
    relay_stream stream{request};
    std::string out;
    auto last = feed(stream, reader, scripted(first, true, 0), 100, out);
    if (*second) {
      CHECK(last == verdict::go_on);
      auto next = stream.resume();
      REQUIRE(next.has_value());
      REQUIRE(next->kept == 2);
      last = feed(stream, reader, scripted(second, false, 2), 100, out);
    }
    CHECK(last == verdict::complete);
    std::vector<int> seen;
    for (std::size_t from = 0; (from = out.find("data: {", from)) != std::string::npos; ++from) {
      auto event = json::parse(out.substr(from + 6, out.find("\n\n", from) - from - 6));
      if (event.contains("usage"))
        seen.push_back(event["usage"]["completion_tokens"]);
    }
    CHECK(seen == told);
    CHECK(out.ends_with("data: [DONE]\n\n"));
  }
}

TEST_CASE("an end without [DONE] is one where all was said") {
  chunk_reader reader;
  for (bool chat : {false, true})
    for (bool include_usage : {false, true})
      for (bool usage_told : {false, true}) {
        CAPTURE(include_usage);
        CAPTURE(usage_told);
        toy_engine engine;
        engine.chat = chat;
        engine.usage_at_end = usage_told;
        auto request = request_of(engine, 8, false);
        request.include_usage = include_usage;
        auto events = engine.run(engine.prompt, 0, 8, "r", !chat);
        REQUIRE(events.back() == "[DONE]");
        for (std::size_t said = 0; said < events.size(); ++said) {
          relay_stream stream{request};
          std::string out;
          REQUIRE(feed(stream, reader, events, said, out) == verdict::go_on);
          auto all = events.size() - 1; // the output's end, and the usage behind it
          bool whole
            = include_usage ? usage_told && said == all : said + (usage_told ? 1 : 0) >= all;
          CHECK(stream.on_end(reader, out) == whole);
          CHECK(out.ends_with("data: [DONE]\n\n") == whole);
        }
      }
}

TEST_CASE("an engine that says more than it was asked for is not believed what it said before") {
  chunk_reader reader;
  for (bool ids : {true, false}) {
    toy_engine engine;
    engine.tell_ids = ids;
    auto request = request_of(engine, 10, false);
    relay_stream stream{request};
    std::string out;
    auto events = engine.run(engine.prompt, 0, 300, "cmpl-r", false);
    CHECK(feed(stream, reader, events, 1000, out) == verdict::broken);
    client_view seen;
    seen.take(out);
    CHECK(stream.failure().code == errc::bad_message);
    CHECK(seen.heads.size() <= (ids ? 10u : 150u)); // pieces are no tokens
  }
}

TEST_CASE("an engine that says too much at once is left, for nothing of it was shown") {
  chunk_reader reader;
  toy_engine engine;
  engine.tokens_per_event = 11;
  auto request = request_of(engine, 10, false);
  relay_stream stream{request};
  std::string out;
  auto too_much = engine.run(engine.prompt, 0, 11, "cmpl-r", false);
  CHECK(feed(stream, reader, too_much, 1000, out) == verdict::failed);
  CHECK(out.empty());
  REQUIRE(stream.resume().has_value());
  engine.tokens_per_event = 1;
  REQUIRE(
    feed(stream, reader, engine.run(engine.prompt, 0, 10, "r", false), 4, out) == verdict::go_on);
  auto next = stream.resume(); // what the first one said is good, whatever the second one says
  REQUIRE(next.has_value());
  engine.tokens_per_event = 11;
  auto more = engine.run(next->ids, next->kept, 11, "cmpl-s", true);
  CHECK(feed(stream, reader, more, 1000, out) == verdict::failed);
}

TEST_CASE("an engine that tells an event twice is found out at the end") {
  chunk_reader reader;
  toy_engine engine;
  auto request = request_of(engine, 10, false);
  relay_stream stream{request};
  std::string out;
  auto events = engine.run(engine.prompt, 0, 10, "cmpl-r", false);
  events.insert(events.begin() + 4, events[4]);
  CHECK(feed(stream, reader, events, 1000, out) == verdict::broken);
  CHECK(out.find("[DONE]") == std::string::npos);
}

TEST_CASE("how an output ended is what the client was told of it") {
  chunk_reader reader;
  toy_engine engine;
  auto request = request_of(engine, 10, false);
  relay_stream stream{request};
  std::string out;
  CHECK(stream.finish_reason().empty());
  auto events = engine.run(engine.prompt, 0, 10, "cmpl-r", false);
  REQUIRE(feed(stream, reader, events, 9, out) == verdict::go_on);
  CHECK(stream.finish_reason().empty());
  auto next = stream.resume();
  REQUIRE(next.has_value());
  auto rest = engine.run(next->ids, next->kept, 10 - next->kept, "cmpl-s", true);
  CHECK(feed(stream, reader, rest, 1000, out) == verdict::complete);
  CHECK(stream.finish_reason() == "length");
}

TEST_CASE("of what an engine complains about at length the beginning is told") {
  chunk_reader reader;
  toy_engine engine;
  auto request = request_of(engine, 10, false);
  relay_stream stream{request};
  std::string out;
  REQUIRE(
    feed(stream, reader, engine.run(engine.prompt, 0, 10, "r", false), 2, out) == verdict::go_on);
  std::string euros;
  for (int i = 0; i < 1000; ++i)
    euros += "\u20ac";
  CHECK(
    stream.on_event(reader, json{{"error", {{"message", "x" + euros}}}}.dump(), out)
    == verdict::failed);
  CHECK(stream.failure().context == "the engine reports: x" + euros.substr(0, 297) + "...");
}

TEST_CASE("what only keeps the line warm is no progress") {
  chunk_reader reader;
  toy_engine engine;
  engine.chat = true;
  auto request = request_of(engine, 10, false);
  relay_stream stream{request};
  std::string out;
  auto events = engine.run(engine.prompt, 0, 10, "r", false);
  CHECK(stream.on_event(reader, events[0], out) == verdict::go_on); // the role
  CHECK(stream.progress() == 0);
  CHECK(stream.waiting() > 0);
  CHECK(stream.on_event(reader, events[1], out) == verdict::go_on);
  CHECK(stream.progress() == 1);
  CHECK(stream.waiting() == 0);
  const auto* empty
    = R"({"id":"r","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]})";
  CHECK(stream.on_event(reader, empty, out) == verdict::go_on);
  CHECK(stream.progress() == 1);
  for (const auto& warm : {std::string{empty}, events[0]}) { // nor for ever, however fast it comes
    CAPTURE(warm);
    relay_stream other{request};
    auto last = feed(other, reader, events, 3, out);
    for (int i = 0; i < 100'000 && last == verdict::go_on; ++i)
      last = other.on_event(reader, warm, out);
    CHECK(last == verdict::failed);
    CHECK(other.waiting() == 0);
    auto next = other.resume();
    REQUIRE(next.has_value());
    out.clear();
    auto rest = engine.run(next->ids, next->kept, 10 - next->kept, "r-2", true);
    CHECK(feed(other, reader, rest, 1000, out) == verdict::complete); // another one mends it
  }
}

TEST_CASE("what an engine must not say ends it, and is not shown") {
  struct row {
    const char* event;
    errc code;
  };
  chunk_reader reader;
  toy_engine engine;
  auto good = engine.run(engine.prompt, 0, 10, "cmpl-r", false);
  for (const auto& [event, code] : {
         row{"{\"error\":{\"message\":\"boom\",\"code\":500}}", errc::internal},
         row{"{\"id\":\"cmpl-r\",\"choices\":", errc::bad_message},
         row{
           "{\"id\":\"cmpl-other\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\","
           "\"choices\":[{\"index\":0,"
           "\"text\":\"x\",\"finish_reason\":null}]}",
           errc::bad_message},
         row{
           "{\"id\":\"cmpl-r\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\","
           "\"choices\":[{\"index\":3,\"text\":"
           "\"x\",\"finish_reason\":null}]}",
           errc::bad_message},
         row{
           "{\"id\":\"cmpl-r\",\"object\":\"text_completion\",\"created\":5,\"model\":\"m\","
           "\"choices\":[{\"index\":0,\"text\":"
           "\"x\",\"finish_reason\":\"abort\"}]}",
           errc::disconnected},
         row{"[DONE]", errc::disconnected},
       }) {
    CAPTURE(event);
    auto request = request_of(engine, 10, false);
    relay_stream stream{request};
    std::string out;
    REQUIRE(feed(stream, reader, good, 3, out) == verdict::go_on);
    auto shown = out;
    CHECK(stream.on_event(reader, event, out) == verdict::failed);
    CHECK(stream.failure().code == code);
    CHECK(out == shown);
  }
}

/// A chat's chunk with such a delta and one token.
std::string chat_chunk(const char* delta, token_id id, const char* id_of_reply = "r") {
  return json{
    {"id", id_of_reply},
    {"object", "chat.completion.chunk"},
    {"created", 5},
    {"model", "m"},
    {"choices",
     {{{"index", 0},
       {"delta", json::parse(delta)},
       {"finish_reason", nullptr},
       {"token_ids", {id}}}}}}
    .dump();
}

TEST_CASE("a chat's token that shows nothing yet may open a thought, and is asked for anew") {
  chunk_reader reader;
  toy_engine engine;
  engine.chat = true;
  auto request = request_of(engine, 10, false);
  for (const char* delta : {"{}", R"({"content":null})", R"({"content":""})"}) {
    CAPTURE(delta);
    relay_stream stream{request};
    stream.hide_ids(true);
    auto opening = engine.run(engine.prompt, 0, 10, "r", false).front();
    std::string out;
    REQUIRE(feed(stream, reader, {opening, chat_chunk(delta, 5)}, 2, out) == verdict::go_on);
    CHECK(out.empty());
    CHECK_FALSE(stream.begun());
    CHECK(stream.progress() == 1);
    CHECK(stream.output_tokens() == 1);
    auto next = stream.resume();
    REQUIRE(next.has_value());
    CHECK(next->where == resumption::from::scratch);
    REQUIRE(
      feed(stream, reader, engine.run(engine.prompt, 0, 10, "again", false), 99, out)
      == verdict::complete);
    client_view view;
    view.take(out);
    CHECK(view.heads.front()[0] == "again");
    CHECK(view.done);
  }
}

TEST_CASE("a chunk that is there for its id alone is shown to whoever asked for ids") {
  chunk_reader reader;
  toy_engine engine;
  engine.chat = true;
  for (auto [wants_ids, logprobs] : {std::pair{false, false}, {true, false}, {false, true}}) {
    auto request = request_of(engine, 10, wants_ids);
    request.logprobs = logprobs;
    relay_stream stream{request};
    stream.hide_ids(!wants_ids);
    auto opening = engine.run(engine.prompt, 0, 10, "r", false).front();
    std::string out;
    REQUIRE(
      feed(
        stream, reader,
        {opening, chat_chunk(R"({"content":"Well, "})", 4), chat_chunk("{}", 5)}, 3, out)
      == verdict::go_on);
    client_view view;
    view.take(out);
    CHECK(view.heads.size() == (wants_ids || logprobs ? 3 : 2));
    CHECK(view.text == "Well, ");
    // What it kept back would be seen as text: as a tool call is, once an answer has begun.
    auto next = stream.resume();
    REQUIRE_FALSE(next.has_value());
    CHECK(next.error().context.find("parsed tools or reasoning") != std::string::npos);
  }
}

TEST_CASE("many tokens without a text go to the client in the end, and are gone on with by nobody") {
  chunk_reader reader;
  toy_engine engine;
  engine.chat = true;
  auto request = request_of(engine, 10'000, false);
  relay_stream stream{request};
  stream.hide_ids(true);
  std::string out;
  for (int i = 0; i < 2000 && out.empty(); ++i)
    REQUIRE(
      stream.on_event(reader, chat_chunk(R"({"content":""})", 5), out) == verdict::go_on);
  CHECK_FALSE(out.empty());
  CHECK(stream.waiting() == 0);
  CHECK_FALSE(stream.resume().has_value());
}

TEST_CASE("of several outputs each ends once, and says nothing behind its end") {
  chunk_reader reader;
  toy_engine engine;
  for (bool chat : {true, false}) {
    engine.chat = chat;
    auto request = request_of(engine, 10, false);
    request.choices = 2;
    relay_stream stream{request};
    std::string out;
    REQUIRE(feed(stream, reader, scripted("tee", chat, 0), 99, out) == verdict::go_on);
    auto shown = out;
    CHECK(feed(stream, reader, scripted("te", chat, 0), 99, out) == verdict::go_on);
    CHECK(out == shown);
    std::string rest;
    CHECK(stream.on_event(reader, "[DONE]", rest) == verdict::failed); // half of it is missing

    relay_stream whole{request};
    out.clear();
    CHECK(feed(whole, reader, scripted("teEtd", chat, 0), 99, out) == verdict::complete);
    client_view view;
    view.take(out);
    CHECK(view.finish.size() == 2);
    CHECK(view.text == "abc");
  }
}

TEST_CASE("an event with one output's end and another's rest is not shown twice") {
  chunk_reader reader;
  toy_engine engine;
  auto request = request_of(engine, 10, false);
  request.choices = 2;
  relay_stream stream{request};
  std::string out;
  REQUIRE(feed(stream, reader, scripted("te", false, 0), 99, out) == verdict::go_on);
  auto both = R"({"id":"2","object":"x","created":1,"model":"m","choices":[)"
              R"({"index":0,"text":"more","finish_reason":null},)"
              R"({"index":1,"text":"x","finish_reason":null}]})";
  CHECK(stream.on_event(reader, both, out) == verdict::failed);
  CHECK(stream.failure().context == "the engine goes on behind the end of an output");
}

} // namespace llumnix::relay
