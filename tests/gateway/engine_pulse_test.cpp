#include "gateway/relay/engine_pulse.hpp"

#include <doctest/doctest.h>

namespace llumnix::relay {

using namespace std::chrono_literals;

namespace {

/// After 30 s of silence and of waiting, while another engine answered 1 s ago.
first_wait suspicious() {
  first_wait wait;
  wait.waited = wait.engine_silent = 30001ms;
  wait.others_silent = 1s;
  return wait;
}

} // namespace

TEST_CASE("silence before the first token counts where others answer, and only then") {
  using verdict = wait_verdict;
  struct row {
    const char* what;
    void (*change)(first_wait&);
    verdict expected;
    std::chrono::milliseconds silence = 30s;
  };
  for (const auto& [what, change, expected, silence] :
       {row{"while others answer", [](first_wait&) {}, verdict::hung},
        row{"not long enough", [](first_wait& x) { x.waited = 30s; }, verdict::wait},
        row{
          "nobody answers any more, and the engine is known to hang",
          [](first_wait& x) {
            x.others_silent.reset();
            x.engine_hung = true;
          },
          verdict::hung},
        row{"nobody answers", [](first_wait& x) { x.others_silent.reset(); }, verdict::wait},
        row{
          "others stopped answering, too", [](first_wait& x) { x.others_silent = 15001ms; },
          verdict::wait},
        row{
          "others answered just now enough", [](first_wait& x) { x.others_silent = 15s; },
          verdict::hung},
        row{
          "a busy engine that answers in turn", [](first_wait& x) { x.engine_silent = 10ms; },
          verdict::wait},
        row{
          "two came before it",
          [](first_wait& x) {
            x.engine_silent = 10ms;
            x.overtaken = 2;
          },
          verdict::wait},
        row{
          "three came before it",
          [](first_wait& x) {
            x.engine_silent = 10ms;
            x.overtaken = 3;
          },
          verdict::overtaken},
        row{
          "three came before it, and nobody else answers",
          [](first_wait& x) {
            x.engine_silent = 10ms;
            x.overtaken = 3;
            x.others_silent.reset();
          },
          verdict::wait},
        row{"a long prompt", [](first_wait& x) { x.prompt_tokens = 1; }, verdict::wait},
        row{
          "a long prompt for long",
          [](first_wait& x) {
            x.prompt_tokens = 100'000; // 100 s more
            x.waited = x.engine_silent = 130001ms;
          },
          verdict::hung},
        row{"moved before", [](first_wait& x) { x.moves = 1; }, verdict::wait},
        row{
          "moved before, and silent for twice as long",
          [](first_wait& x) {
            x.moves = 1;
            x.waited = x.engine_silent = 60001ms;
          },
          verdict::hung},
        row{
          "moved very often", // 30 s * 64
          [](first_wait& x) {
            x.moves = 4'000'000'000;
            x.waited = x.engine_silent = 1920001ms;
          },
          verdict::hung},
        row{
          "a whole reply of 100 tokens, 10 s more", [](first_wait& x) { x.reply_tokens = 100; },
          verdict::wait},
        row{
          "a whole reply after all of that",
          [](first_wait& x) {
            x.reply_tokens = 100;
            x.waited = x.engine_silent = 40001ms;
          },
          verdict::hung},
        row{
          "at an engine that is known to hang, lately",
          [](first_wait& x) {
            x.engine_hung = true;
            x.waited = 30s;
          },
          verdict::wait},
        row{
          "ten times as long, where nobody else is asked",
          [](first_wait& x) {
            x.others_silent.reset();
            x.waited = x.engine_silent = 300s;
          },
          verdict::wait},
        row{
          "more than that",
          [](first_wait& x) {
            x.others_silent.reset();
            x.waited = x.engine_silent = 300'001ms;
          },
          verdict::mute},
        row{
          "more than that with a long prompt",
          [](first_wait& x) {
            x.others_silent.reset();
            x.prompt_tokens = 1000; // 10 s more
            x.waited = x.engine_silent = 300'001ms;
          },
          verdict::wait},
        row{
          "more than that at an engine that gives others tokens",
          [](first_wait& x) {
            x.others_silent.reset();
            x.waited = 1h;
            x.engine_silent = 299s;
          },
          verdict::wait},
        row{"nobody wants to know", [](first_wait& x) { x.waited = x.engine_silent = 1h; },
            verdict::wait, 0ms},
        row{"nobody wants to know, yet", [](first_wait&) {}, verdict::wait, 0ms},
        row{
          "a silence beyond all times", [](first_wait& x) { x.prompt_tokens = 4'294'967'295; },
          verdict::wait, std::chrono::milliseconds::max()}}) {
    CAPTURE(what);
    auto wait = suspicious();
    change(wait);
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
