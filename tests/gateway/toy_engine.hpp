#pragma once

#include "gateway/relay/relay_stream.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace llumnix::relay {

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

/// What a client asks of an engine of ours for tests, stop strings aside.
template <class Engine>
relay_request plain_request(const Engine& engine, std::uint32_t max_tokens, bool wants_ids) {
  relay_request request;
  request.kind = engine.chat ? openai::endpoint::chat : openai::endpoint::completions;
  request.model = "m";
  request.stream = true;
  request.max_tokens = max_tokens;
  request.wants_token_ids = wants_ids;
  request.include_usage = engine.usage_at_end;
  return request;
}

inline relay_request request_of(const toy_engine& engine, std::uint32_t max_tokens, bool wants_ids) {
  auto request = plain_request(engine, max_tokens, wants_ids);
  for (const auto& word : engine.stop)
    request.held_back = std::max(request.held_back, static_cast<std::uint32_t>(word.size() - 1));
  request.stop_reach = request.held_back;
  return request;
}

using verdict = relay_stream::verdict;

/// Feeds events up to `cut`; the verdict of the last.
inline verdict feed(
  relay_stream& stream, chunk_reader& reader, const std::vector<std::string>& events,
  std::size_t cut, std::string& out) {
  auto last = verdict::go_on;
  for (std::size_t i = 0; i < std::min(cut, events.size()) && last == verdict::go_on; ++i)
    last = stream.on_event(reader, events[i], out);
  return last;
}

/// Events of an engine by letters: `t` a token, `e` the last, `E` the last of a second choice, a
/// digit a usage with so many tokens, `d` the end. `kept`: tokens its prompt holds.
inline std::vector<std::string> scripted(std::string_view script, bool chat, std::uint32_t kept) {
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

} // namespace llumnix::relay
