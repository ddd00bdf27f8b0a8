#pragma once

#include "scene.hpp"

#include <cstddef>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

/// What breaks while requests run, drawn from a seed: engines die and come back, stand still and
/// go on, links break and lag, clients leave.
class random_faults {
public:
  using starter = std::function<void(const std::string& engine)>;

  random_faults(scene& there, std::uint64_t seed, std::vector<std::string> engines, starter start)
    : there_{there}, chance_{seed}, engines_{std::move(engines)}, start_{std::move(start)} {}

  std::uint64_t draw(std::uint64_t below) { return chance_() % below; }
  const std::string& engine() { return engines_[draw(engines_.size())]; }
  /// The engine that stands still; empty: all go.
  const std::string& paused() const { return paused_; }
  bool has_left(std::size_t client) const { return left_.contains(client); }

  /// Trouble number `what` for that engine, or for client number `number`. False for a number that
  /// is none: 6 and above.
  bool
  strike(std::uint64_t what, const std::string& engine, virtual_client& client, std::size_t number) {
    switch (what) {
      case 0:
        if (paused_ != engine) {
          there_.kill(engine);
          start_(engine);
        }
        return true;
      case 1:
        if (paused_.empty()) {
          there_.pause(engine);
          paused_ = engine;
        }
        return true;
      case 2: go_on(); return true;
      case 3: there_.reset(engine, this->engine()); return true;
      case 4: there_.delay(engine, "head", std::chrono::milliseconds{draw(700)}); return true;
      case 5:
        if (!client.ended() && left_.size() < 3) {
          there_.disconnect(client);
          left_.insert(number);
        }
        return true;
      default: return false;
    }
  }
  /// Whoever stands still goes on.
  void go_on() {
    if (auto engine = std::exchange(paused_, {}); !engine.empty())
      there_.resume(engine);
  }

private:
  scene& there_;
  std::mt19937_64 chance_;
  std::vector<std::string> engines_;
  starter start_;
  std::string paused_;
  std::set<std::size_t> left_;
};

} // namespace llumnix::testing
