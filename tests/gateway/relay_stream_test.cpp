#include "gateway/relay/relay_stream.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace llumnix::relay {

namespace {

using nlohmann::json;

/// A second engine to compare with: its next token is a function of all tokens before it, ids 0 to
/// 24 are letters, 25 a blank, 26 to 28 the three bytes of a euro sign, which always come together;
/// id 99 ends.
struct toy_engine {
  std::vector<token_id> prompt{7, 8, 9};
  std::uint32_t ends_after = 1000; ///< output tokens of the whole run, then id 99
  std::vector<std::string> stop;
  bool chat = false;
  bool tell_ids = true;
  bool count = false; ///< the usage so far on each event
  bool usage_at_end = false;
  std::uint32_t tokens_per_event = 1;

  static token_id next(const std::vector<token_id>& all) {
    if (!all.empty() && (all.back() == 26 || all.back() == 27))
      return all.back() + 1;
    std::uint64_t x = 1469598103934665603ull;
    for (auto id : all)
      x = (x ^ id) * 1099511628211ull;
    auto drawn = (x >> 20) % 30;
    return static_cast<token_id>(drawn >= 26 ? 26 : drawn);
  }

  /// Text of whole characters only.
  static std::string decode(const std::vector<token_id>& ids) {
    static const std::string euro = "\u20ac";
    std::string text;
    for (auto id : ids)
      if (id < 26)
        text += id == 25 ? ' ' : static_cast<char>('a' + id);
      else if (id == 28)
        text += euro;
    return text;
  }

  static std::vector<token_id> encode(const std::string& text) {
    std::vector<token_id> ids;
    for (std::size_t i = 0; i < text.size(); ++i)
      if (text[i] == ' ')
        ids.push_back(25);
      else if (text[i] >= 'a' && text[i] <= 'y')
        ids.push_back(static_cast<token_id>(text[i] - 'a'));
      else
        ids.insert(ids.end(), {26, 27, 28}), i += 2;
    return ids;
  }

  /// The events of a run of at most `max_tokens` from `ids` (prompt and `kept` of the output),
  /// without `data: `. `id`: of the reply.
  std::vector<std::string> run(
    const std::vector<token_id>& ids, std::uint32_t kept, std::uint32_t max_tokens,
    const std::string& id, bool as_completion) const {
    auto all = ids;
    std::vector<token_id> out;
    std::vector<std::string> events;
    std::size_t told = 0;
    std::size_t held = 0;
    for (const auto& word : stop)
      held = std::max(held, word.size() - 1);
    bool in_chat = chat && !as_completion;
    if (in_chat)
      events.push_back(json{
        {"id", id},
        {"object", "chat.completion.chunk"},
        {"created", 5},
        {"model", "m"},
        {"choices",
         {{{"index", 0},
           {"delta", {{"role", "assistant"}, {"content", ""}}},
           {"finish_reason", nullptr}}}},
        {"prompt_token_ids",
         prompt}}.dump());
    std::string finish;
    while (finish.empty()) {
      std::vector<token_id> fresh;
      std::string text;
      while (finish.empty() && fresh.size() < tokens_per_event) {
        auto id_now = kept + out.size() >= ends_after ? 99 : next(all);
        all.push_back(id_now);
        out.push_back(id_now);
        fresh.push_back(id_now);
        auto visible = decode(out);
        for (const auto& word : stop)
          if (auto at = visible.find(word); at != std::string::npos && finish.empty()) {
            finish = "stop";
            visible.resize(at);
          }
        if (finish.empty() && id_now == 99)
          finish = "stop";
        else if (finish.empty() && out.size() >= max_tokens)
          finish = "length";
        auto may = finish.empty() ? characters_back(visible, held) : visible.size();
        text += visible.substr(std::min(told, visible.size()), may > told ? may - told : 0);
        told = std::max(told, may);
      }
      json choice{{"index", 0}};
      if (in_chat)
        choice["delta"] = {{"content", text}};
      else
        choice["text"] = text;
      choice["logprobs"] = nullptr;
      choice["finish_reason"] = finish.empty() ? json() : json(finish);
      if (tell_ids)
        choice["token_ids"] = fresh;
      if (tell_ids && !in_chat)
        choice["prompt_token_ids"] = events.empty() ? json(ids) : json();
      json event{
        {"id", id},
        {"object", in_chat ? "chat.completion.chunk" : "text_completion"},
        {"created", in_chat || !as_completion ? 5 : 77},
        {"model", "m"},
        {"choices", {choice}}};
      if (count)
        event["usage"] = {
          {"prompt_tokens", ids.size()},
          {"completion_tokens", out.size()},
          {"total_tokens", ids.size() + out.size()}};
      events.push_back(event.dump());
    }
    if (usage_at_end)
      events.push_back(json{
        {"id", id},
        {"object", in_chat ? "chat.completion.chunk" : "text_completion"},
        {"created", in_chat || !as_completion ? 5 : 77},
        {"model", "m"},
        {"choices", json::array()},
        {"usage",
         {{"prompt_tokens", ids.size()},
          {"completion_tokens", out.size()},
          {"total_tokens", ids.size() + out.size()}}}}
                         .dump());
    events.push_back("[DONE]");
    return events;
  }

  /// The byte of `text` that many characters before its end.
  static std::size_t characters_back(const std::string& text, std::size_t characters) {
    auto at = text.size();
    for (; characters > 0 && at > 0; --characters)
      do
        --at;
      while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
    return at;
  }
};

/// What a client makes of its events.
struct client_view {
  std::string text;
  std::vector<token_id> ids;
  std::vector<std::string> finish;
  json usage;
  int ends = 0; ///< events with a usage alone
  bool done = false;
  std::vector<json> heads; ///< id, object, created, model of each chunk

  void take(const std::string& events) {
    std::size_t from = 0;
    while (from < events.size()) {
      auto end = events.find("\n\n", from);
      if (events.compare(from, 6, "data: ") != 0 || end == std::string::npos || done)
        FAIL("not an event, or one after the end: " << events.substr(from));
      auto data = events.substr(from + 6, end - from - 6);
      from = end + 2;
      if (data == "[DONE]") {
        done = true;
        continue;
      }
      auto chunk = json::parse(data);
      heads.push_back({chunk["id"], chunk["object"], chunk["created"], chunk["model"]});
      ends += chunk["choices"].empty();
      if (chunk.contains("usage") && !chunk["usage"].is_null())
        usage = {
          chunk["usage"]["prompt_tokens"], chunk["usage"]["completion_tokens"],
          chunk["usage"]["total_tokens"]};
      for (const auto& choice : chunk["choices"]) {
        text += choice.contains("delta") ? choice["delta"].value("content", "")
                                         : choice["text"].get<std::string>();
        for (auto id : choice.value("token_ids", json::array()))
          ids.push_back(id);
        if (!choice["finish_reason"].is_null())
          finish.push_back(choice["finish_reason"]);
      }
    }
  }
};

relay_request request_of(const toy_engine& engine, std::uint32_t max_tokens, bool wants_ids) {
  relay_request request;
  request.kind = engine.chat ? openai::endpoint::chat : openai::endpoint::completions;
  request.model = "m";
  request.stream = true;
  request.max_tokens = max_tokens;
  request.wants_token_ids = wants_ids;
  request.include_usage = engine.usage_at_end;
  for (const auto& word : engine.stop)
    request.held_back = std::max(request.held_back, static_cast<std::uint32_t>(word.size() - 1));
  request.stop_reach = request.held_back;
  return request;
}

using verdict = relay_stream::verdict;

/// Feeds events up to `cut`; the verdict of the last.
verdict feed(
  relay_stream& stream, chunk_reader& reader, const std::vector<std::string>& events,
  std::size_t cut, std::string& out) {
  auto last = verdict::go_on;
  for (std::size_t i = 0; i < std::min(cut, events.size()) && last == verdict::go_on; ++i)
    last = stream.on_event(reader, events[i], out);
  return last;
}

/// Events of an engine by letters: `t` a token, `e` the last, `E` the last of a second choice, a
/// digit a usage with so many tokens, `d` the end. `kept`: tokens its prompt holds.
std::vector<std::string> scripted(std::string_view script, bool chat, std::uint32_t kept) {
  std::vector<std::string> events;
  auto id = chat ? "1" : "2";
  for (auto letter : script) {
    json event{{"id", id}, {"object", "x"}, {"created", 1}, {"model", "m"}};
    event["choices"] = json::array();
    if (letter == 'd') {
      events.emplace_back("[DONE]");
      continue;
    }
    if (letter >= '0' && letter <= '9') {
      event["usage"]
        = {{"prompt_tokens", 3}, {"completion_tokens", letter - '0'}, {"total_tokens", 3}};
    } else {
      auto text = std::string(1, static_cast<char>('a' + kept));
      json choice{{"index", letter == 'E' ? 1 : 0}, {"finish_reason", nullptr}};
      choice["token_ids"] = {kept};
      if (chat)
        choice["delta"] = {{"content", text}};
      else
        choice["text"] = text;
      if (letter != 't')
        choice["finish_reason"] = "length";
      if (events.empty())
        event["prompt_token_ids"] = {7, 8, 9};
      event["choices"].push_back(std::move(choice));
      ++kept;
    }
    events.push_back(event.dump());
  }
  return events;
}

} // namespace

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
