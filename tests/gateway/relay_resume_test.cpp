#include "toy_engine.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace llumnix::relay {

TEST_CASE("a stream cut anywhere and gone on with elsewhere is the unbroken one") {
  chunk_reader reader;
  for (bool chat : {false, true})
    for (const std::vector<std::string>& stop :
         {std::vector<std::string>{}, {"qyqy"}, {"ab", "xyw"}})
      for (std::uint32_t ends_after : {1000u, 13u})
        for (std::uint32_t per_event : {1u, 3u})
          for (bool wants_ids : {false, true}) {
            toy_engine engine;
            engine.ends_after = ends_after;
            engine.stop = stop;
            engine.chat = chat;
            engine.usage_at_end = true;
            engine.tokens_per_event = per_event;
            constexpr std::uint32_t max_tokens = 24;
            const std::vector<token_id> none;
            auto request = request_of(engine, max_tokens, wants_ids);
            auto whole = engine.run(engine.prompt, 0, max_tokens, "chatcmpl-r", false);
            client_view expected;
            {
              relay_stream stream{request};
              stream.hide_ids(!wants_ids);
              std::string out;
              REQUIRE(feed(stream, reader, whole, whole.size(), out) == verdict::complete);
              expected.take(out);
            }
            for (std::size_t cut = 0; cut < whole.size(); ++cut)
              for (std::size_t second : {std::size_t{1000}, std::size_t{0}, std::size_t{4}}) {
                relay_stream stream{request};
                stream.hide_ids(!wants_ids);
                std::string out;
                auto last = feed(stream, reader, whole, cut, out);
                for (auto limit : {second, std::size_t{1000}}) { // the second engine dies too
                  auto next = stream.resume();
                  stream.hide_ids(!wants_ids);
                  if (last != verdict::go_on || !next)
                    break;
                  auto events
                    = next->where == resumption::from::scratch
                        ? engine.run(engine.prompt, 0, max_tokens, "chatcmpl-r-2", false)
                        : engine.run(
                          next->ids, next->kept, max_tokens - next->kept, "cmpl-r-2", true);
                  last = feed(stream, reader, events, limit, out);
                }
                client_view seen;
                seen.take(out);
                bool same = last == verdict::complete && seen.text == expected.text
                            && seen.finish == expected.finish && seen.usage == expected.usage
                            && seen.ends == expected.ends && seen.done
                            && seen.ids == (wants_ids ? expected.ids : none)
                            && std::ranges::all_of(
                              seen.heads, [&](const json& head) { return head == seen.heads[0]; });
                if (!same)
                  FAIL_CHECK(
                    "chat " << chat << " stops " << stop.size() << " ends after " << ends_after
                            << " tokens an event " << per_event << " ids " << wants_ids << " cut "
                            << cut << " then " << second << ": " << out);
              }
          }
}

TEST_CASE(
  "a stream cut anywhere and gone on with by its text is the unbroken one, told ids or not") {
  chunk_reader reader;
  for (bool first_tells : {false, true}) // and nobody who follows does
    for (bool chat : {false, true})
      for (bool include_usage : {false, true})
        for (std::uint32_t ends_after : {1000u, 33u}) {
          toy_engine engine;
          engine.chat = chat;
          engine.ends_after = ends_after;
          engine.tell_ids = false;
          engine.count = engine.usage_at_end = true; // we asked for both
          engine.prompt = {24, 2};                   // of this come blanks
          constexpr std::uint32_t max_tokens = 60;
          auto request = request_of(engine, max_tokens, false);
          request.include_usage = include_usage;
          auto run = [&](const std::vector<token_id>& ids, std::uint32_t kept, const char* id) {
            return engine.run(ids, kept, max_tokens - kept, id, !chat);
          };
          auto first = engine;
          first.tell_ids = first_tells;
          first.count = !first_tells;
          auto whole = first.run(engine.prompt, 0, max_tokens, "r", !chat);
          client_view expected;
          {
            relay_stream stream{request};
            stream.hide_usage(true);
            stream.hide_ids(first_tells);
            std::string out;
            REQUIRE(feed(stream, reader, whole, whole.size(), out) == verdict::complete);
            expected.take(out);
            REQUIRE(expected.text.find(' ') != std::string::npos);
            REQUIRE(expected.usage.is_null() == !include_usage);
          }
          for (std::size_t cut = 0; cut < whole.size(); ++cut)
            for (std::size_t second : {std::size_t{1000}, std::size_t{0}, std::size_t{7}}) {
              relay_stream stream{request};
              stream.hide_usage(true);
              stream.hide_ids(first_tells);
              std::string out;
              auto last = feed(stream, reader, whole, cut, out);
              for (auto limit : {second, std::size_t{1000}}) {
                auto next = stream.resume();
                if (next && next->where == resumption::from::ids)
                  next = stream.resume_by_text();
                stream.hide_ids(false);
                if (last != verdict::go_on || !next)
                  break;
                stream.hide_usage(true);
                auto ids = engine.prompt;
                for (auto id : toy_engine::encode(next->text))
                  ids.push_back(id);
                if (next->where != resumption::from::scratch)
                  CHECK(next->kept + engine.prompt.size() == ids.size());
                last = feed(stream, reader, run(ids, next->kept, "r-2"), limit, out);
              }
              client_view seen;
              seen.take(out);
              bool same = last == verdict::complete && seen.text == expected.text
                          && seen.finish == expected.finish && seen.usage == expected.usage
                          && seen.ends == expected.ends
                          && std::ranges::all_of(
                            seen.heads, [&](const json& head) { return head == seen.heads[0]; });
              if (!same)
                FAIL_CHECK(
                  "first tells " << first_tells << " chat " << chat << " usage " << include_usage
                          << " ends after " << ends_after << " cut " << cut << " then " << second
                          << ": " << out);
            }
        }
}

/// As vLLM does: who goes on within a character tells all text from the prompt on with its end.
std::vector<std::string> told_from_the_prompt(
  std::vector<std::string> events, const std::vector<token_id>& ids) {
  bool within = ids.back() == 26 || ids.back() == 27;
  for (auto& event : events) {
    if (!within || event == "[DONE]")
      break;
    auto chunk = json::parse(event);
    if (chunk["choices"].empty() || chunk["choices"][0]["text"] == "")
      continue;
    chunk["choices"][0]["text"]
      = toy_engine::decode(ids) + chunk["choices"][0]["text"].get<std::string>();
    event = chunk.dump();
    break;
  }
  return events;
}

TEST_CASE("a sampled stream cut within a character shows nothing of its prompt, and no token twice") {
  chunk_reader reader;
  std::size_t within = 0;
  for (std::uint32_t first = 0; first < 3; ++first)
    for (std::uint32_t per_event : {1u, 2u, 3u})
      for (bool chat : {false, true})
        for (bool wants_ids : {false, true}) {
          toy_engine engine;
          engine.prompt = {first, 8, 9};
          engine.chat = chat;
          engine.tokens_per_event = per_event;
          constexpr std::uint32_t max_tokens = 30;
          auto request = request_of(engine, max_tokens, wants_ids);
          request.greedy = false;
          auto whole = engine.run(engine.prompt, 0, max_tokens, "r", false);
          client_view expected;
          for (const auto& event : whole)
            expected.take("data: " + event + "\n\n");
          for (std::size_t cut = 2; cut + 2 < whole.size(); ++cut) {
            relay_stream stream{request};
            stream.hide_ids(!wants_ids);
            std::string out;
            REQUIRE(feed(stream, reader, whole, cut, out) == verdict::go_on);
            auto next = stream.resume();
            REQUIRE(next.has_value());
            if (next->where == resumption::from::scratch)
              continue;
            stream.hide_ids(!wants_ids);
            within += next->ids.back() == 26 || next->ids.back() == 27;
            auto events = told_from_the_prompt(
              engine.run(next->ids, next->kept, max_tokens - next->kept, "s", true), next->ids);
            auto last = feed(stream, reader, events, 1000, out);
            client_view seen;
            seen.take(out);
            CAPTURE(first);
            CAPTURE(per_event);
            CAPTURE(cut);
            CHECK(last == verdict::complete);
            CHECK(seen.text == expected.text);
            if (wants_ids)
              CHECK(seen.ids == expected.ids);
          }
        }
  CHECK(within > 15);
}

TEST_CASE("blanks may differ where an engine goes on by text, other text may not") {
  struct row {
    const char* shown; ///< before the cut
    const char* text;  ///< that the next engine is given
    const char* told;
    const char* together; ///< empty: that cannot be
  };
  chunk_reader reader;
  auto chunk = [](const char* id, const std::string& text, int tokens) {
    return json{
      {"id", id},
      {"created", 1},
      {"choices", {{{"index", 0}, {"text", text}, {"finish_reason", nullptr}}}},
      {"usage", {{"prompt_tokens", 2}, {"completion_tokens", tokens}}}}
      .dump();
  };
  for (const auto& [shown, text, told, together] :
       {row{"ab", "ab", "c", "abc"}, row{"ab \n", "ab", " \nc", "ab \nc"},
        row{"ab ", "ab", "c", "ab c"}, row{"ab ", "ab", " c", "ab c"},
        row{"ab \n", "ab", " c", "ab \nc"}, row{" ", "", " c", " c"}, row{" ", "", "c", " c"}}) {
    CAPTURE(shown);
    CAPTURE(told);
    relay_request request;
    request.stream = true;
    request.max_tokens = 50;
    relay_stream stream{request};
    std::string out;
    int tokens = 0;
    for (const char* at = shown; *at != 0; ++at)
      CHECK(stream.on_event(reader, chunk("1", {*at}, ++tokens), out) == verdict::go_on);
    auto next = stream.resume();
    REQUIRE(next.has_value());
    CHECK(next->where == resumption::from::text);
    CHECK(next->text == text);
    CHECK(next->kept == std::string_view{text}.size());
    CHECK(stream.on_event(reader, chunk("2", told, 1), out) == verdict::go_on);
    CHECK(stream.output_tokens() == std::max<std::size_t>(tokens, next->kept + 1));
    client_view seen;
    std::string all;
    for (std::size_t from = 0; (from = out.find("data: ", from)) != std::string::npos; ++from) {
      auto data = json::parse(out.substr(from + 6, out.find("\n\n", from) - from - 6));
      const auto& choice = data["choices"][0];
      all += choice.contains("delta") ? choice["delta"].value("content", "")
                                      : choice["text"].get<std::string>();
    }
    CHECK(all == together);
  }
}

TEST_CASE("by text no engine goes on where the text is not all") {
  struct row {
    const char* what;
    std::function<void(relay_request&)> change;
    bool counted;
    const char* why; ///< null: it goes on
  };
  chunk_reader reader;
  for (const auto& [what, change, counted, why] :
       {row{"counted", [](auto&) {}, true, nullptr},
        row{"not counted", [](auto&) {}, false, "how many tokens"},
        row{"nor limited", [](auto& x) { x.max_tokens.reset(); }, false, nullptr},
        row{
          "usage", [](auto& x) { x.max_tokens.reset(), x.include_usage = true; }, false,
          "how many tokens"},
        row{
          "completion",
          [](auto& x) { x.max_tokens.reset(), x.kind = openai::endpoint::completions; }, false,
          "how many tokens"},
        row{
          "least", [](auto& x) { x.max_tokens.reset(), x.min_tokens = 3; }, false,
          "how many tokens"},
        row{"ids", [](auto& x) { x.wants_token_ids = true; }, true, "asked for them"},
        row{"log-probabilities", [](auto& x) { x.logprobs = true; }, true, "log-probabilities"},
        row{"stop strings", [](auto& x) { x.stop_reach = 2; }, true, "a stop string"},
        row{"seed", [](auto& x) { x.single_use = "seed"; }, true, "'seed'"}}) {
    CAPTURE(what);
    relay_request request;
    request.stream = true;
    request.max_tokens = 50;
    change(request);
    relay_stream stream{request};
    std::string out;
    json chunk{
      {"id", "1"},
      {"choices", {{{"index", 0}, {"delta", {{"content", "ab"}}}, {"finish_reason", nullptr}}}}};
    if (counted)
      chunk["usage"] = {{"prompt_tokens", 2}, {"completion_tokens", 1}};
    REQUIRE(stream.on_event(reader, chunk.dump(), out) == verdict::go_on);
    auto next = stream.resume();
    REQUIRE(next.has_value() == !why);
    if (why) {
      CHECK(next.error().code == errc::unsupported);
      CHECK(next.error().context.find(why) != std::string::npos);
    }
  }
}

TEST_CASE("what does not carry over is gone on with only before its first token") {
  chunk_reader reader;
  toy_engine engine;
  auto request = request_of(engine, 10, false);
  request.single_use = "seed";
  auto events = engine.run(engine.prompt, 0, 10, "cmpl-r", false);
  relay_stream stream{request};
  CHECK(stream.resume().has_value());
  std::string out;
  REQUIRE(feed(stream, reader, events, 1, out) == verdict::go_on);
  auto next = stream.resume();
  REQUIRE_FALSE(next.has_value());
  CHECK(next.error().code == errc::unsupported);
  CHECK(next.error().context.find("'seed'") != std::string::npos);
}

TEST_CASE("an engine that tells no ids can be followed only before the first token") {
  chunk_reader reader;
  toy_engine engine;
  engine.tell_ids = false;
  auto request = request_of(engine, 10, false);
  auto events = engine.run(engine.prompt, 0, 10, "cmpl-r", false);
  relay_stream stream{request};
  std::string out;
  REQUIRE(feed(stream, reader, events, 2, out) == verdict::go_on);
  CHECK(stream.resume().error().code == errc::unsupported);
}

TEST_CASE("an engine that computes something else is not believed where the client has seen it") {
  chunk_reader reader;
  toy_engine engine;
  engine.stop = {"qyqyqyqy"};
  auto request = request_of(engine, 40, true);
  auto events = engine.run(engine.prompt, 0, 40, "cmpl-r", false);
  relay_stream stream{request};
  std::string out;
  REQUIRE(feed(stream, reader, events, 30, out) == verdict::go_on);
  auto next = stream.resume();
  REQUIRE(next.has_value());
  REQUIRE(next->where == resumption::from::ids);
  auto other = next->ids;
  other.back() ^= 1;
  CHECK(
    feed(
      stream, reader, engine.run(other, next->kept, 40 - next->kept, "cmpl-r-2", true), 1000, out)
    == verdict::broken);
}

TEST_CASE("a stream leaves an engine that is well only where nothing is computed twice") {
  chunk_reader reader;
  for (bool chat : {false, true})
    for (bool wants_ids : {false, true})
      for (std::uint32_t tokens_per_event : {1u, 3u}) {
        CAPTURE(chat);
        CAPTURE(tokens_per_event);
        toy_engine engine;
        engine.chat = chat;
        engine.tokens_per_event = tokens_per_event;
        auto request = request_of(engine, 60, wants_ids);
        auto events = engine.run(engine.prompt, 0, 60, "cmpl-r", false);
        std::string unbroken;
        relay_stream whole{request};
        REQUIRE(feed(whole, reader, events, 1000, unbroken) == verdict::complete);
        std::size_t leaves = 0;
        for (std::size_t cut = 0; cut + 1 < events.size(); ++cut) {
          relay_stream stream{request};
          std::string out;
          REQUIRE(feed(stream, reader, events, cut, out) == verdict::go_on);
          CHECK(stream.why_stays().empty());
          if (!stream.may_leave() || !stream.begun())
            continue;
          ++leaves;
          auto next = stream.resume();
          REQUIRE(next.has_value());
          CHECK(next->where == resumption::from::ids);
          CHECK(next->kept == stream.output_tokens());
          toy_engine other = engine;
          other.tokens_per_event = 1;
          CHECK(
            feed(
              stream, reader, other.run(next->ids, next->kept, 60 - next->kept, "cmpl-q", true),
              1000, out)
            == verdict::complete);
          client_view left, stayed;
          left.take(out);
          stayed.take(unbroken);
          CHECK(left.text == stayed.text);
          CHECK((!wants_ids || left.ids == stayed.ids));
        }
        if (tokens_per_event == 1)
          CHECK(leaves > 30); // but for the inside of characters
        else
          CHECK(leaves == 0); // the last of several may have begun a character
      }
}

TEST_CASE("what would not be exact elsewhere stays where it is") {
  chunk_reader reader;
  struct row {
    std::string_view single_use;
    std::uint32_t stop_reach;
    bool tells_ids;
    const char* reason; ///< a part of it; empty: it may go
  };
  for (auto [single_use, stop_reach, tells_ids, reason] :
       {row{"", 0, true, ""}, row{"seed", 0, true, "'seed'"}, row{"", 3, true, "a stop string"},
        row{"", 0, false, "tells no token ids"}}) {
    CAPTURE(reason);
    toy_engine engine;
    engine.tell_ids = tells_ids;
    engine.count = true;
    auto request = request_of(engine, 10, false);
    request.single_use = single_use;
    request.stop_reach = stop_reach;
    relay_stream stream{request};
    CHECK(stream.why_stays().empty()); // before the first token all may go
    CHECK(stream.may_leave());
    std::string out;
    auto events = engine.run(engine.prompt, 0, 10, "cmpl-r", false);
    REQUIRE(feed(stream, reader, events, 4, out) == verdict::go_on);
    auto why = stream.why_stays();
    CHECK(why.empty() == (*reason == 0));
    CHECK(why.find(reason) != std::string::npos);
  }
}

TEST_CASE("a stream that has said its last token does not leave") {
  chunk_reader reader;
  toy_engine engine;
  auto request = request_of(engine, 5, false);
  auto events = engine.run(engine.prompt, 0, 5, "cmpl-r", false);
  relay_stream stream{request};
  std::string out;
  REQUIRE(feed(stream, reader, events, 5, out) == verdict::go_on);
  CHECK_FALSE(stream.may_leave());
}

} // namespace llumnix::relay
