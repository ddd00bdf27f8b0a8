#pragma once

#include "gateway/openai/json_text.hpp"
#include "gateway/relay/stop_seam.hpp"
#include "toy_engine.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llumnix::relay {

/// An engine that samples, with tokens of several characters and characters of several tokens, and
/// vLLM's rules for stop strings. What it draws hangs on all tokens before, so that runs can be
/// compared; a test that computed a token twice would not notice, and looks at the prompts instead.
struct word_engine {
  std::vector<token_id> prompt{3, 8, 0};
  std::vector<std::string> stop;
  bool shows_stops = false;
  bool chat = false;
  bool logprobs = false;
  bool usage_at_end = false;
  std::uint32_t tokens_per_event = 1;
  std::uint32_t ends_after = 1000; ///< output tokens of the whole run, then `end_token`

  static constexpr token_id end_token = 99;

  /// The text of a token: of the three that a euro sign has the last one's.
  static std::string_view piece(token_id id) {
    static constexpr std::string_view pieces[]
      = {"a", "b", " the", "ab", "cab", "\u00e9x", " ", "x.", "ca", "", "", "\u20ac"};
    return id < std::size(pieces) ? pieces[id] : "";
  }
  static bool opens_character(token_id id) { return id == 9 || id == 10; }

  static token_id next(const std::vector<token_id>& all) {
    if (opens_character(all.back()))
      return all.back() + 1;
    std::uint64_t x = 1469598103934665603ull;
    for (auto id : all)
      x = (x ^ (id + 1)) * 1099511628211ull;
    return static_cast<token_id>((x >> 20) % 10);
  }

  static std::string decode(const std::vector<token_id>& ids) {
    std::string text;
    for (auto id : ids)
      text += piece(id);
    return text;
  }

  /// As `/detokenize` tells it, with a sign for half a character.
  static std::string detokenize(const std::vector<token_id>& ids) {
    bool half = !ids.empty() && opens_character(ids.back());
    return decode(ids) + (half ? "\uFFFD" : "");
  }

  struct ending {
    std::string stop;
    std::size_t cut = std::string::npos; ///< bytes of the text that are left
  };
  /// vLLM's `check_stop_strings`.
  ending check_stops(const std::string& text, std::size_t old) const {
    ending found;
    auto best = std::string::npos;
    for (const auto& word : stop) {
      auto at = text.find(word, old - std::min(old, word.size() - 1));
      if (at != std::string::npos && at + word.size() < best) {
        best = at + word.size();
        found = {word, shows_stops ? best : at};
      }
    }
    return found;
  }

  /// The events of a run, as `toy_engine::run`.
  std::vector<std::string> run(
    const std::vector<token_id>& ids, std::uint32_t kept, std::uint32_t max_tokens,
    const std::string& id, bool as_completion) const {
    bool in_chat = chat && !as_completion;
    json head{
      {"id", id},
      {"object", in_chat ? "chat.completion.chunk" : "text_completion"},
      {"created", as_completion ? 77 : 5},
      {"model", "m"}};
    std::vector<std::string> events;
    auto tell = [&](json members) {
      members.update(head);
      events.push_back(members.dump());
    };
    if (in_chat)
      tell(
        {{"choices",
          {{{"index", 0},
            {"delta", {{"role", "assistant"}, {"content", ""}}},
            {"finish_reason", nullptr}}}},
         {"prompt_token_ids", ids}});
    std::size_t held = 0;
    for (const auto& word : stop)
      held = shows_stops ? 0 : std::max(held, openai::count_characters(word) - 1);
    auto all = ids;
    std::vector<token_id> out;
    std::string text;
    std::size_t told = 0;
    std::string finish;
    json stop_reason;
    while (finish.empty()) {
      auto from = out.size();
      while (finish.empty() && out.size() - from < tokens_per_event) {
        all.push_back(kept + out.size() >= ends_after ? end_token : next(all));
        out.push_back(all.back());
        auto old = text.size();
        text = decode(out);
        if (out.back() == end_token)
          finish = "stop";
        else if (out.size() >= max_tokens)
          finish = "length";
        if (auto found = check_stops(text, old); text.size() > old && !found.stop.empty()) {
          finish = "stop";
          stop_reason = found.stop;
          text.resize(found.cut);
        }
      }
      auto may = finish.empty() ? characters_back(text, held) : text.size();
      auto shown = text.substr(std::min(told, text.size()), may > told ? may - told : 0);
      json choice{{"index", 0}, {"finish_reason", finish.empty() ? json() : json(finish)}};
      std::vector<token_id> fresh(out.begin() + static_cast<std::ptrdiff_t>(from), out.end());
      choice["token_ids"] = fresh;
      choice["logprobs"] = logprobs ? told_of(fresh, in_chat, text.substr(0, told)) : json();
      if (in_chat)
        choice["delta"] = {{"content", shown}};
      else
        choice["text"] = shown;
      if (!in_chat || !finish.empty())
        choice["stop_reason"] = stop_reason;
      if (!in_chat && events.empty())
        choice["prompt_token_ids"] = ids;
      told = std::max(told, may);
      tell({{"choices", {choice}}});
    }
    if (usage_at_end)
      tell(
        {{"choices", json::array()},
         {"usage",
          {{"prompt_tokens", ids.size()},
           {"completion_tokens", out.size()},
           {"total_tokens", ids.size() + out.size()}}}});
    events.push_back("[DONE]");
    return events;
  }

  /// Log-probabilities, behind the text told so far.
  static json told_of(const std::vector<token_id>& ids, bool in_chat, std::string_view before) {
    json content = json::array();
    json columns{
      {"tokens", json::array()},
      {"token_logprobs", json::array()},
      {"top_logprobs", json::array()},
      {"text_offset", json::array()}};
    auto offset = openai::count_characters(before);
    for (auto id : ids) {
      auto name = "t" + std::to_string(id);
      content.push_back(
        {{"token", name},
         {"logprob", -0.5},
         {"bytes", std::vector<std::uint8_t>(name.begin(), name.end())},
         {"top_logprobs", json::array()}});
      columns["tokens"].push_back(name);
      columns["token_logprobs"].push_back(-0.5);
      columns["top_logprobs"].push_back(json::object());
      columns["text_offset"].push_back(offset);
      offset += name.size();
    }
    return in_chat ? json{{"content", content}} : columns;
  }
};

} // namespace llumnix::relay
