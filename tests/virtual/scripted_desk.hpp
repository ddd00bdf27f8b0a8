#pragma once

#include "actors/stream_hub_actor.hpp"
#include "tests/virtual/scene.hpp"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace llumnix::testing {

/// A loop's relays without their connections: asks, and writes down what it hears.
class scripted_desk final : public relay_desk {
public:
  explicit scripted_desk(hub_loop& loop, std::string node = "head")
    : loop_{loop}, node_{std::move(node)} {
    loop_.relays = this;
  }
  ~scripted_desk() override { loop_.relays = nullptr; }

  struct relay {
    inference_request head;
    relayed_request load;
    std::optional<stream_owner> owner;
    error failure{errc::ok, {}};
    std::uint32_t placed = 0; ///< times it was told of an instance
    instance_id at() const { return owner ? owner->instance : instance_id{}; }
  };

  /// `prompt`: where the gateway knows it as token ids.
  relay&
  open(const std::string& id, relayed_request load = {100, 0}, std::vector<token_id> prompt = {}) {
    auto number = relay_bit | ++numbers_;
    auto& x = relays_[number];
    x.head.stream = {node_, 1, 0, number};
    x.head.text_id = id;
    x.head.model = "m";
    x.head.prompt = std::move(prompt);
    x.load = load;
    loop_.port.place_relayed(x.head, load, false, {});
    return x;
  }
  /// Its engine failed it after so many tokens.
  void replay(
    relay& x, std::uint32_t delivered, std::vector<instance_id> exclude, bool planned = false) {
    ++x.head.epoch;
    x.owner.reset();
    x.load.delivered_tokens = delivered;
    x.load.planned = planned;
    loop_.port.place_relayed(x.head, x.load, true, std::move(exclude));
  }
  void withdraw(relay& x) { loop_.port.withdraw(x.head.stream.stream, x.head.epoch); }
  void close(relay& x, const std::string& outcome = "stop") {
    loop_.port.closed(
      {.stream = x.head.stream,
       .text_id = x.head.text_id,
       .outcome = outcome,
       .failure = x.failure,
       .prompt_tokens = 1,
       .output_tokens = 2,
       .placements = 1});
    relays_.erase(x.head.stream.stream);
  }

  void on_placed(
    std::uint64_t number, std::uint32_t epoch, const stream_owner& owner, time_point) override {
    auto found = relays_.find(number);
    if (found == relays_.end() || found->second.head.epoch != epoch)
      return;
    found->second.owner = owner;
    ++found->second.placed;
    for (auto& each : pending_)
      if (each.number == number && each.done) {
        each.told.at = owner.instance;
        each.told.epoch = epoch;
        std::exchange(each.done, {})(std::move(each.told));
      }
  }
  void
  on_unplaceable(std::uint64_t number, std::uint32_t epoch, const error& why, time_point) override {
    auto found = relays_.find(number);
    if (found != relays_.end() && found->second.head.epoch == epoch)
      found->second.failure = why;
  }
  void place_again(time_point) override {
    for (auto& [number, x] : relays_)
      if (!x.owner)
        loop_.port.place_relayed(x.head, x.load, true, {});
  }
  void sweep(time_point) override { ++sweeps; }
  std::vector<stream_info> list(time_point) const override {
    std::vector<stream_info> all;
    for (const auto& [number, x] : relays_)
      all.push_back(
        {.text_id = x.head.text_id,
         .stream = x.head.stream,
         .instance = x.at(),
         .state = x.owner ? "running" : "queued",
         .client = {}});
    return all;
  }

  /// As `answer` says: at once, or once it is placed.
  void move(const relay_move& wanted, std::function<void(relay_moved)> done) override {
    moves.push_back(wanted);
    auto found = relays_.find(wanted.number);
    if (found == relays_.end())
      return done({.outcome = "finished", .reason = "it ended before it could be moved"});
    relay_moved told = answer;
    told.request = found->second.head.text_id;
    if (told.outcome == "moved") {
      replay(found->second, 7, {wanted.from}, true);
      pending_.push_back({wanted.number, std::move(told), std::move(done)});
      return;
    }
    told.at = wanted.from;
    done(std::move(told));
  }
  void drain(const instance_id& instance, bool on) override { drained.emplace_back(instance, on); }

  std::vector<relay_move> moves;
  relay_moved answer{.outcome = "moved"}; ///< to the next move
  std::vector<std::pair<instance_id, bool>> drained;
  std::uint32_t sweeps = 0;

private:
  struct pending_move {
    std::uint64_t number = 0;
    relay_moved told;
    std::function<void(relay_moved)> done;
  };

  std::vector<pending_move> pending_; ///< until it is placed
  hub_loop& loop_;
  std::string node_;
  std::map<std::uint64_t, relay> relays_;
  std::uint64_t numbers_ = 0;
};

inline cluster_config lite_mode() {
  auto config = small_engines();
  config.scheduler.full_mode = false;
  return config;
}

} // namespace llumnix::testing
