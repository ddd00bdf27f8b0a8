#include "gateway/relay/engine_pulse.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <vector>

namespace llumnix::relay {

using namespace std::chrono_literals;

namespace {

using change = std::function<void(first_wait&)>;

/// The request has waited, and its engine said nothing, for so long.
change silent(std::chrono::milliseconds time) {
  return [time](first_wait& x) { x.waited = x.engine_silent = time; };
}

change others_silent(std::chrono::milliseconds time) {
  return [time](first_wait& x) { x.others_silent = time; };
}

/// So many that came later were answered first, the last of them just now.
change overtaken(std::uint32_t others) {
  return [others](first_wait& x) {
    x.engine_silent = 10ms;
    x.overtaken = others;
  };
}

template <class T>
change with(T first_wait::*what, T value) {
  return [what, value](first_wait& x) { x.*what = value; };
}

} // namespace

TEST_CASE("silence before the first token counts where others answer, and only then") {
  using verdict = wait_verdict;
  struct row {
    const char* what;
    std::vector<change> changes; ///< to 30 s of silence while another engine answered 1 s ago
    verdict expected;
    std::chrono::milliseconds silence = 30s;
  };
  const auto nobody_answers = with(&first_wait::others_silent, {});
  const auto known_to_hang = with(&first_wait::engine_hung, true);
  const auto moved_before = with(&first_wait::moves, 1u);
  const auto whole_reply = with(&first_wait::reply_tokens, 100u); // 10 s more
  auto prompt = [](std::uint32_t tokens) { return with(&first_wait::prompt_tokens, tokens); };
  for (const auto& [what, changes, expected, silence] :
       {row{"while others answer", {}, verdict::hung},
        row{"not long enough", {with(&first_wait::waited, {30s})}, verdict::wait},
        row{
          "nobody answers any more, and the engine is known to hang",
          {nobody_answers, known_to_hang},
          verdict::hung},
        row{"nobody answers", {nobody_answers}, verdict::wait},
        row{"others stopped answering, too", {others_silent(15001ms)}, verdict::wait},
        row{"others answered just now enough", {others_silent(15s)}, verdict::hung},
        row{"a busy engine that answers in turn", {overtaken(0)}, verdict::wait},
        row{"two came before it", {overtaken(2)}, verdict::wait},
        row{"three came before it", {overtaken(3)}, verdict::overtaken},
        row{
          "three came before it, and nobody else answers",
          {overtaken(3), nobody_answers},
          verdict::wait},
        row{"a long prompt", {prompt(1)}, verdict::wait},
        row{
          "a long prompt for long", // 100 s more
          {prompt(100'000), silent(130001ms)},
          verdict::hung},
        row{"moved before", {moved_before}, verdict::wait},
        row{
          "moved before, and silent for twice as long",
          {moved_before, silent(60001ms)},
          verdict::hung},
        row{
          "moved very often", // 30 s * 64
          {with(&first_wait::moves, 4'000'000'000u), silent(1920001ms)},
          verdict::hung},
        row{"a whole reply of 100 tokens", {whole_reply}, verdict::wait},
        row{"a whole reply after all of that", {whole_reply, silent(40001ms)}, verdict::hung},
        row{
          "at an engine that is known to hang, lately",
          {known_to_hang, with(&first_wait::waited, {30s})},
          verdict::wait},
        row{
          "ten times as long, where nobody else is asked",
          {nobody_answers, silent(300s)},
          verdict::wait},
        row{"more than that", {nobody_answers, silent(300'001ms)}, verdict::mute},
        row{
          "more than that with a long prompt", // 10 s more
          {nobody_answers, prompt(1000), silent(300'001ms)},
          verdict::wait},
        row{
          "more than that at an engine that gives others tokens",
          {nobody_answers, silent(1h), with(&first_wait::engine_silent, {299s})},
          verdict::wait},
        row{"nobody wants to know", {silent(1h)}, verdict::wait, 0ms},
        row{"nobody wants to know, yet", {}, verdict::wait, 0ms},
        row{
          "a silence beyond all times",
          {prompt(4'294'967'295)},
          verdict::wait,
          std::chrono::milliseconds::max()}}) {
    CAPTURE(what);
    first_wait wait;
    silent(30001ms)(wait);
    others_silent(1s)(wait);
    for (const auto& each : changes)
      each(wait);
    CHECK(judge(wait, silence) == expected);
  }
}

TEST_CASE("an engine's pulse is of tokens, and ends what is said of it before") {
  auto pulse = std::make_shared<engine_pulse>();
  time_point start{1h};
  engine_pulse::expected first{pulse, 10, start};
  CHECK(first.wait(start + 5s).waited == 5s);
  CHECK(first.wait(start + 5s).engine_silent >= 1h); // it never said anything
  CHECK_FALSE(pulse->signs().answered_later_than(start - 1s).has_value());
  first.find_hung();
  CHECK(first.wait(start).engine_hung);
  {
    engine_pulse::expected second{pulse, 10, start + 1s};
    second.on_tokens(start + 4s);
    CHECK(second.begun());
    CHECK_FALSE(first.begun());
    CHECK_FALSE(first.wait(start + 5s).engine_hung);
    CHECK(first.wait(start + 5s).engine_silent == 1s);
    CHECK(pulse->signs().answered_later_than(start) == start + 4s);
    CHECK_FALSE(pulse->signs().answered_later_than(start + 1s).has_value()); // not later: this one
    second.on_tokens(start + 7s); // goes on; no new answer
    CHECK(first.wait(start + 8s).engine_silent == 1s);
    CHECK(pulse->signs().answered_later_than(start) == start + 4s);
  }
  first.on_tokens(start + 9s);
  CHECK(
    pulse->signs().answered_later_than(start) == start + 9s); // the second was the latest asked for
}

TEST_CASE("who is overtaken is counted by those that came clearly later and asked no less") {
  struct row {
    std::chrono::milliseconds later;
    std::uint32_t prompt_tokens;
    std::uint32_t overtaken;
  };
  for (auto [later, prompt_tokens, overtaken] :
       {row{1s, 10, 1}, row{1s, 11, 1}, row{1s, 9, 0}, row{999ms, 10, 0}, row{0ms, 10, 0},
        row{-5s, 10, 0}}) {
    CAPTURE(later.count());
    CAPTURE(prompt_tokens);
    auto pulse = std::make_shared<engine_pulse>();
    time_point start{1h};
    engine_pulse::expected waits{pulse, 10, start};
    engine_pulse::expected gone{pulse, 10, start}; // and is no trouble
    { engine_pulse::expected given_up{pulse, 10, start}; }
    gone.on_tokens(start);
    engine_pulse::expected other{pulse, prompt_tokens, start + later};
    other.on_tokens(start + 20s);
    other.on_tokens(start + 21s);
    CHECK(waits.wait(start + 21s).overtaken == overtaken);
  }
}

} // namespace llumnix::relay
