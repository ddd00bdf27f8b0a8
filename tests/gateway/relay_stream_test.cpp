#include "gateway/relay/relay_stream.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace llumnix::relay {

namespace {

using nlohmann::json;

/// A second engine to compare with: its next token is a function of all tokens before it, ids 0 to
/// 25 are letters, 26 to 28 the three bytes of a euro sign, which always come together; id 99 ends.
struct toy_engine {
  std::vector<token_id> prompt{7, 8, 9};
  std::uint32_t ends_after = 1000; ///< output tokens of the whole run, then id 99
  std::vector<std::string> stop;
  bool chat = false;
  bool tell_ids = true;
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
        text += static_cast<char>('a' + id);
      else if (id == 28)
        text += euro;
    return text;
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
      events.push_back(json{
        {"id", id},
        {"object", in_chat ? "chat.completion.chunk" : "text_completion"},
        {"created", in_chat || !as_completion ? 5 : 77},
        {"model", "m"},
        {"choices",
         {choice}}}.dump());
    }
    if (usage_at_end)
      events.push_back(json{
        {"id", id},
        {"object", in_chat ? "chat.completion.chunk" : "text_completion"},
        {"created", 5},
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

} // namespace

TEST_CASE("a stream cut anywhere and gone on with elsewhere is the unbroken one") {
  chunk_reader reader;
  for (bool chat : {false, true})
    for (const std::vector<std::string>& stop :
         {std::vector<std::string>{}, {"qzqz"}, {"ab", "xyz"}})
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
              std::string out;
              REQUIRE(feed(stream, reader, whole, whole.size(), out) == verdict::complete);
              expected.take(out);
            }
            for (std::size_t cut = 0; cut < whole.size(); ++cut)
              for (std::size_t second : {std::size_t{1000}, std::size_t{0}, std::size_t{4}}) {
                relay_stream stream{request};
                std::string out;
                auto last = feed(stream, reader, whole, cut, out);
                for (auto limit : {second, std::size_t{1000}}) { // the second engine dies too
                  auto next = stream.resume();
                  if (last != verdict::go_on || !next)
                    break;
                  auto events
                    = next->from_scratch
                        ? engine.run(engine.prompt, 0, max_tokens, "chatcmpl-r-2", false)
                        : engine.run(
                          next->ids, next->kept, max_tokens - next->kept, "cmpl-r-2", true);
                  last = feed(stream, reader, events, limit, out);
                }
                // Several tokens in one event cannot be cut apart where each of them is shown.
                if (last == verdict::broken && per_event > 1 && wants_ids)
                  continue;
                client_view seen;
                seen.take(out);
                bool same = last == verdict::complete && seen.text == expected.text
                            && seen.finish == expected.finish && seen.usage == expected.usage
                            && seen.done && seen.ids == (wants_ids ? expected.ids : none)
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
  engine.stop = {"qzqzqzqz"};
  auto request = request_of(engine, 40, true);
  auto events = engine.run(engine.prompt, 0, 40, "cmpl-r", false);
  relay_stream stream{request};
  std::string out;
  REQUIRE(feed(stream, reader, events, 30, out) == verdict::go_on);
  auto next = stream.resume();
  REQUIRE(next.has_value());
  REQUIRE_FALSE(next->from_scratch);
  auto other = next->ids;
  other.back() ^= 1;
  CHECK(
    feed(
      stream, reader, engine.run(other, next->kept, 40 - next->kept, "cmpl-r-2", true), 1000, out)
    == verdict::broken);
}

} // namespace llumnix::relay
