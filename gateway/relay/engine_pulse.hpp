#pragma once

#include "runtime/base/time.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

namespace llumnix::relay {

/// A request that waits for its first token, as far as it tells whether that will ever come.
struct first_wait {
  std::chrono::nanoseconds waited{};        ///< since its engine was asked
  std::chrono::nanoseconds engine_silent{}; ///< since that engine gave anybody a token
  /// Since another engine last began an answer, if it did with one that was asked for later; none
  /// otherwise.
  std::optional<std::chrono::nanoseconds> others_silent;
  std::uint32_t overtaken = 0;     ///< by so many others at its engine (`engine_pulse`)
  std::uint32_t prompt_tokens = 0; ///< given, or an estimate
  std::uint32_t moves = 0;         ///< times it was taken from an engine for its silence before
  /// That must be made before the engine says anything: of a reply that is not streamed all it may
  /// have, else 0.
  std::uint32_t reply_tokens = 0;
  bool engine_hung = false; ///< another request found it so, and it was silent since
};

enum class wait_verdict : std::uint8_t {
  wait,
  hung,     ///< the engine says nothing to anybody, while others answer
  mute,     ///< nor for ten times as long as one waits; what others do is not to be seen
  overtaken ///< the engine answers others that came later, and not this one
};

/// How long a first token may take before anything is concluded from it: `silence`, a second more
/// for each 1000 tokens of the prompt and for each 10 tokens of a reply that comes as a whole, and
/// twice that for each move before.
std::chrono::nanoseconds
first_token_patience(const first_wait& wait, std::chrono::milliseconds silence);

/// Whether a request is to go elsewhere before its first token. Silence alone proves nothing: a
/// prefill may take long, and the network may be gone; so another engine must have begun an answer
/// in the last half of the patience to something that was asked for later. Once a request has found
/// the engine hung, its silence since then is proof enough for all; and so is, where nobody else is
/// asked for anything, ten times the patience. `silence` 0: never.
wait_verdict judge(const first_wait& wait, std::chrono::milliseconds silence);

/// When an engine gave a sign of life, to the requests of all I/O loops. From any thread.
class engine_signs {
public:
  /// It gave tokens. Cheap where it does so all the time.
  void on_tokens(time_point now);
  /// It began the answer to what was asked for then.
  void on_first(time_point asked_at, time_point now);
  void find_hung() { hung_ = true; }

  time_point said_at() const { return said_at_; }
  bool hung() const { return hung_; }
  /// When it last began an answer, if it did with one that was asked for after `asked_at`.
  std::optional<time_point> answered_later_than(time_point asked_at) const {
    return newest_answered_.load() > asked_at ? std::optional{answered_at_.load()} : std::nullopt;
  }

private:
  std::atomic<time_point> said_at_{};         ///< tokens, to anybody
  std::atomic<time_point> answered_at_{};     ///< it last began an answer
  std::atomic<time_point> newest_answered_{}; ///< when the latest it began to answer was asked
  std::atomic<bool> hung_{false};
};

/// What an engine says to the requests of one I/O loop. Tokens count, and whole replies: heads,
/// empty events and refusals come from a server in front of an engine that may well be hung.
class engine_pulse {
public:
  /// A request overtakes others that came this much earlier with prompts no longer than its own.
  static constexpr std::chrono::seconds overtaking_gap{1};

  /// `signs`: shared with the pulses of other loops.
  explicit engine_pulse(std::shared_ptr<engine_signs> signs = std::make_shared<engine_signs>())
    : signs_{std::move(signs)} {}

  /// An answer that is expected of an engine: of a request from the question on until this ends.
  class expected {
  public:
    expected(std::shared_ptr<engine_pulse> pulse, std::uint32_t prompt_tokens, time_point now);
    ~expected();
    expected(const expected&) = delete;
    expected& operator=(const expected&) = delete;

    /// The engine gave it tokens.
    void on_tokens(time_point now);
    /// Whether it did.
    bool begun() const { return !waits_; }
    time_point asked_at() const { return asked_at_; }
    const engine_pulse& engine() const { return *pulse_; }
    /// Of the time until the first token; what other engines do is left out.
    first_wait wait(time_point now) const;
    /// Nothing is to be expected of the engine (`wait_verdict::hung`).
    void find_hung() { pulse_->signs_->find_hung(); }

  private:
    std::shared_ptr<engine_pulse> pulse_;
    time_point asked_at_;
    std::uint32_t prompt_tokens_;
    std::uint32_t overtaken_ = 0;
    bool waits_ = true;
    std::multimap<time_point, expected*>::iterator place_; ///< while it waits
    friend class engine_pulse;
  };

  const engine_signs& signs() const { return *signs_; }

private:
  void on_first(expected& answer, time_point now);

  std::multimap<time_point, expected*> waiting_; ///< by the time they were asked
  std::shared_ptr<engine_signs> signs_;
};

} // namespace llumnix::relay
