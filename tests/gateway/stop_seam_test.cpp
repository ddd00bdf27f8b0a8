#include "word_engine.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace llumnix::relay {
namespace {

relay_request request_of(const word_engine& engine, std::uint32_t max_tokens, bool wants_ids) {
  auto request = plain_request(engine, max_tokens, wants_ids);
  request.logprobs = engine.logprobs;
  request.stops = engine.stop;
  request.may_show_stops = true;
  for (const auto& word : engine.stop)
    request.stop_reach = std::max(
      request.stop_reach, static_cast<std::uint32_t>(openai::count_characters(word) - 1));
  request.held_back = engine.shows_stops ? 0 : request.stop_reach;
  return request;
}

/// All that a client sees of an output; of log-probabilities what is said of tokens, in order.
struct seen_output {
  std::string text;
  std::vector<token_id> ids;
  std::vector<json> logprobs;
  json end;
  json usage;
  bool done = false;
  friend bool operator==(const seen_output&, const seen_output&) = default;
};

seen_output seen_in(const std::string& events) {
  client_view view; // checks what holds of every stream
  view.take(events);
  seen_output seen{view.text, view.ids, {}, {}, view.usage, view.done};
  for (std::size_t from = 0, end; (end = events.find("\n\n", from)) != std::string::npos;
       from = end + 2) {
    auto data = events.substr(from + 6, end - from - 6);
    if (data == "[DONE]")
      continue;
    auto event = json::parse(data);
    for (const auto& choice : event["choices"]) {
      if (!choice["finish_reason"].is_null())
        seen.end = {choice["finish_reason"], choice["stop_reason"], view.finish.size()};
      auto told = choice.value("logprobs", json());
      if (told.is_null())
        continue;
      if (told.contains("content"))
        seen.logprobs.insert(seen.logprobs.end(), told["content"].begin(), told["content"].end());
      else
        for (std::size_t i = 0; i < told["tokens"].size(); ++i)
          seen.logprobs.push_back({told["tokens"][i], told["text_offset"][i]});
    }
  }
  return seen;
}

/// What the next engine tells, when it is asked first for what is to be found out.
std::optional<resumption> recalled(relay_stream& stream) {
  const auto* hidden = stream.hidden();
  if (!hidden)
    return std::nullopt;
  auto prompt = hidden->tokens;
  prompt.resize(hidden->of_prompt);
  return stream.resume_behind(
    hidden->found_in(word_engine::detokenize(hidden->tokens), word_engine::detokenize(prompt)));
}

const std::vector<std::vector<std::string>> stop_lists{
  {"zz"}, {"ba"}, {"x.c", "b x"}, {"a\u20acx", "\u20ac  "}, {"ex.ca  ", "the the"},
  {"bcabca", "cab", "beb"}, {"aab", "a\u20ac"}};

} // namespace

TEST_CASE("what is held back, found and cut off behind a seam") {
  struct row {
    const char* what;
    std::vector<std::string> stops;
    bool shows;
    std::string before; ///< what is told of it was shown
    std::size_t hidden; ///< but for the last bytes
    std::vector<const char*> told;
    const char* finish; ///< with the last of them
    std::vector<const char*> shown;
    const char* stop = "";
  };
  for (const auto& [what, stops, shows, before, hidden, told, finish, shown, stop] :
       {row{"held back", {"xyz"}, false, "abc", 2, {"d", "ef"}, "", {"b", "cd"}},
        row{"shown", {"xyz"}, true, "abc", 0, {"d", "ef"}, "", {"d", "ef"}},
        row{"flushed", {"xyz"}, false, "abc", 2, {"d", "e"}, "length", {"b", "cde"}},
        row{"few", {"wxyz"}, false, "a", 1, {"b", "c", "de"}, "", {"", "", "ab"}},
        row{"across", {"xyz"}, false, "axy", 2, {"zb"}, "", {""}, "xyz"},
        row{"across, shown", {"xyz"}, true, "axy", 0, {"zb"}, "", {"z"}, "xyz"},
        row{"late", {"xyz"}, false, "abx", 2, {"y", "z"}, "", {"b", ""}, "xyz"},
        row{"its own", {"xy"}, false, "ab", 1, {"c", "dxy"}, "stop", {"b", "cd"}, "xy"},
        row{"its own, shown", {"xy"}, true, "ab", 0, {"c", "dxy"}, "stop", {"c", "dxy"}, "xy"},
        row{"first complete", {"bcd", "bc"}, false, "ab", 2, {"cd"}, "", {"a"}, "bc"},
        row{"first named", {"c", "bc"}, false, "ab", 1, {"c"}, "stop", {"b"}, "c"},
        row{"first named", {"bc", "c"}, false, "ab", 1, {"c"}, "stop", {""}, "bc"},
        row{"not behind", {"ab"}, false, "ab", 1, {"c"}, "", {"b"}},
        row{"characters", {"\u20ac\u20ac"}, false, "\u20ac", 3, {"\u20ac"}, "", {""},
            "\u20ac\u20ac"},
        row{"characters", {"\u20acx"}, false, "\u20ac", 3, {"\u00e9"}, "", {"\u20ac"}},
        row{"a token that ends", {"xy"}, false, "ab", 1, {"</s>"}, "stop", {"b"}},
        row{"the same, shown", {"xy"}, true, "ab", 0, {"</s>"}, "stop", {"</s>"}}}) {
    CAPTURE(what);
    CAPTURE(stop);
    relay_request request;
    request.stops = stops;
    for (const auto& each : stops)
      request.stop_reach = std::max(
        request.stop_reach, static_cast<std::uint32_t>(openai::count_characters(each) - 1));
    request.held_back = shows ? 0 : request.stop_reach;
    stop_seam seam{request, before, hidden};
    for (std::size_t i = 0; i < told.size(); ++i) {
      bool last = i + 1 == told.size();
      chunk_choice choice;
      choice.text = told[i];
      choice.ids = {1};
      choice.finish_reason = last ? finish : "";
      auto passed = seam.pass(choice);
      CHECK(passed.text == shown[i]);
      CHECK(passed.stop == (last ? stop : ""));
    }
  }
}

TEST_CASE("hidden text is what follows the known, and nothing where that is not to be seen") {
  struct row {
    const char* known;
    std::size_t unseen;
    std::uint32_t characters;
    const char* all;
    const char* prompt;
    std::optional<std::string> found;
  };
  for (const auto& [known, unseen, characters, all, prompt, found] :
       {row{"abc", 0, 2, "xabcde", "", "de"}, row{"abc", 0, 2, "xabcd", "", {}},
        row{"abc", 0, 2, "xabdde", "", {}}, row{"abc", 0, 2, "de", "", {}},
        row{"a\u20ac", 0, 1, "a\u20ac\u00e9", "", "\u00e9"},
        row{"abc", 0, 2, "xabcd\uFFFD", "", {}}, row{"abc", 2, 0, "xabc", "", "bc"},
        row{"abc", 2, 0, "xabd", "", {}}, row{"", 0, 3, "<user> hi", "<user>", " hi"},
        row{"", 0, 2, "<user> hi", "<user>", {}}, row{"", 0, 3, "<usur> hi", "<user>", {}},
        row{"", 0, 3, "\uFFFD hi", "\uFFFD", {}}}) {
    CAPTURE(all);
    hidden_text hidden;
    hidden.of_prompt = *known == 0;
    hidden.known = known;
    hidden.unseen = unseen;
    hidden.characters = characters;
    CHECK(hidden.found_in(all, prompt) == found);
  }
}

/// What a client sees of a stream that is cut after `cut` events, and `second` events later again.
struct broken_run {
  verdict last = verdict::go_on;
  std::string out;
  std::uint32_t behind_all = 0; ///< engines that computed nothing again
  bool by_the_gateway = false;  ///< the last of them did not know that the output had ended
};

broken_run break_run(
  const word_engine& engine, const relay_request& request, std::size_t cut, std::size_t second) {
  chunk_reader reader;
  broken_run run;
  relay_stream stream{request};
  auto max_tokens = *request.max_tokens;
  auto events = engine.run(engine.prompt, 0, max_tokens, "r", false);
  for (auto limit : {cut, second, std::size_t{1000}}) {
    stream.hide_ids(!request.wants_token_ids);
    run.last = feed(stream, reader, events, limit, run.out);
    if (run.last == verdict::go_on && stream.finish(run.out))
      run.last = verdict::complete;
    if (run.last != verdict::go_on)
      break;
    auto told = stream.output_tokens();
    auto next = stream.resume();
    REQUIRE(next.has_value());
    if (auto behind = recalled(stream))
      next = *behind;
    run.behind_all += next->shows_stops;
    if (next->shows_stops && (request.wants_token_ids || request.logprobs))
      CHECK(next->kept == told);
    auto other = engine;
    other.shows_stops |= next->shows_stops;
    bool begins = next->where == resumption::from::scratch;
    if (!begins)
      REQUIRE(next->ids.size() == engine.prompt.size() + next->kept);
    events = begins ? engine.run(engine.prompt, 0, max_tokens, "s", false)
                    : other.run(next->ids, next->kept, max_tokens - next->kept, "s", true);
  }
  run.by_the_gateway = std::ranges::none_of(events, [](const std::string& event) {
    return event.find(R"("stop_reason":")") != std::string::npos;
  });
  return run;
}

TEST_CASE("a sampled stream with stop strings goes on behind all its tokens, wherever it is cut") {
  std::size_t combination = 0, cuts = 0, behind_all = 0, by_the_gateway = 0;
  using row = std::tuple<bool, bool, bool>; // chat, ids shown, log-probabilities
  for (auto [chat, wants_ids, logprobs] :
       {row{false, false, false}, row{true, false, false}, row{false, true, false},
        row{true, true, true}, row{false, false, true}})
    for (const auto& stops : stop_lists)
      for (std::uint32_t first : {0u, 8u})
        for (bool shows_stops : {false, true})
          for (std::uint32_t tokens_per_event : {1u, 3u}) {
            if (combination++ % 5 != 0) // each value meets each other one
              continue;
            word_engine engine;
            engine.prompt = {first, 3, 8};
            engine.stop = stops;
            engine.chat = chat;
            engine.shows_stops = shows_stops;
            engine.logprobs = logprobs;
            engine.usage_at_end = logprobs || first == 8;
            engine.ends_after = first == 8 ? 17 : 1000;
            engine.tokens_per_event = tokens_per_event;
            auto request = request_of(engine, 24, wants_ids);
            const auto expected = seen_in(break_run(engine, request, 1000, 0).out);
            REQUIRE(expected.done);
            for (std::size_t cut = 0; cut < 26 / tokens_per_event; ++cut)
              for (std::size_t second : {1000u, 2u}) {
                auto run = break_run(engine, request, cut, second);
                auto seen = seen_in(run.out);
                ++cuts;
                behind_all += run.behind_all;
                by_the_gateway += run.by_the_gateway && expected.end[1].is_string();
                bool same = tokens_per_event == 1
                              ? seen == expected
                              : seen.text == expected.text && seen.end == expected.end && seen.done;
                if (run.last != verdict::complete || !same)
                  FAIL_CHECK(
                    "stop " << stops[0] << " first " << first << " chat " << chat << " shows "
                            << shows_stops << " ids " << wants_ids << " logprobs " << logprobs
                            << " tokens " << tokens_per_event << " cut " << cut << " then "
                            << second << ": " << run.out);
              }
          }
  CHECK(behind_all > cuts / 2);
  CHECK(by_the_gateway > 20);
}

} // namespace llumnix::relay
