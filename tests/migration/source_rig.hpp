#pragma once

#include "runtime/migration/source_machine.hpp"
#include "tests/migration/effect_text.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace llumnix::testing {

using namespace std::chrono_literals;

inline constexpr handover_id this_one{1, 2};

inline std::string name_of(const source_effect& effect) {
  static const char* const names[]
    = {"offer",  "progress", "commit", "reclaim", "cancel", "cancelled", "look",
       "freeze", "thaw",     "drop",   "close",   "unpin",  "ended"};
  std::string text = names[effect.index()];
  if (const auto* progress = std::get_if<handover::copy_progress>(&effect))
    text += std::to_string(progress->round) + "@" + std::to_string(progress->watermark);
  if (const auto* commit = std::get_if<handover::freeze_commit>(&effect))
    text += "@" + std::to_string(commit->watermark);
  if (const auto* thaw = std::get_if<source_side::thaw>(&effect))
    text += " e" + std::to_string(thaw->epoch);
  if (const auto* end = std::get_if<source_side::ended>(&effect))
    text += " " + std::string{to_string(end->outcome)};
  return text;
}

inline std::string names_of(const std::vector<source_effect>& effects) {
  return listed(effects, [](const source_effect& each) { return name_of(each); });
}

/// A request with a prompt of 100 tokens under epoch 3, in blocks of 16; by default 20 tokens made,
/// hence 119 positions written.
inline leaving_request request_with(std::uint32_t made, std::uint32_t written) {
  leaving_request request;
  request.request.stream = {"head", 1, 0, 7};
  request.request.epoch = 3;
  request.request.prompt.assign(100, 5);
  for (token_id id = 0; id < made; ++id)
    request.request.output.push_back(id);
  request.request.credit = 200;
  request.written = written;
  request.blocks.assign((written + 15) / 16, 9);
  request.running = written > 0;
  return request;
}
inline leaving_request request_at(std::uint32_t made) {
  return request_with(made, 99 + made);
}

/// The source of one hand-over, driven by hand.
struct source_rig {
  using state = source_machine::state;

  source_settings settings;
  source_plan plan = [] {
    source_plan x;
    x.of.id = this_one;
    x.source = {{"s", 1}, "engine-s"};
    x.destination = {{"d", 1}, "engine-d"};
    x.geometry = {
      .model = "m",
      .layout = "l",
      .block_tokens = 16,
      .bytes_per_token = 1024,
      .max_model_len = 1000};
    x.kv_address = "there";
    return x;
  }();
  time_point now{};
  std::optional<source_machine> machine;

  source_rig() {
    settings.rounds_max = 2;
    settings.prefill_per_second = 1e6; // faster than any copy
  }

  handover::head head() const { return {this_one, {"head", 1, 0, 7}, 3}; }
  std::string begin() {
    machine.emplace(settings, plan);
    return names_of(machine->begin(request_at(20), now));
  }
  std::string on(const source_event& event, nanoseconds after = 0ms) {
    now += after;
    return names_of(machine->on(event, now));
  }
  handover::accept accept(std::uint32_t present = 0) const {
    return {head(), plan.destination, present, 400};
  }
  handover::prepared prepared(std::uint32_t round, std::uint32_t watermark) const {
    return {head(), round, watermark, 1000};
  }
  handover::commit_failed failed(handover::commit_failure why) const {
    return {head(), why, {errc::stale, ""}};
  }
  handover::claim_answer
  answer(handover::claim_verdict verdict, const stream_owner& owner = {}) const {
    return {head(), true, verdict, 77, owner};
  }
  handover::cancel cancel() const { return {head(), {errc::timeout, ""}}; }

  /// The ordinary way to a state; `freezing` before it froze.
  void reach(state wanted) {
    begin();
    if (wanted == state::offered)
      return;
    on(accept());
    on(source_side::looked{request_at(20)});
    if (wanted == state::copying)
      return;
    on(prepared(1, 119));
    on(source_side::looked{request_at(22)});
    if (wanted == state::freezing)
      return;
    on(source_side::frozen{request_at(23), 23});
    if (wanted == state::deciding)
      return;
    if (wanted == state::releasing) {
      on(handover::committed{head()});
    } else {
      reach(state::copying);
      on(source_side::looked{{errc::not_found, ""}});
    }
  }
};

} // namespace llumnix::testing
