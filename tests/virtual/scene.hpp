#pragma once

#include "runtime/base/log.hpp"
#include "sim/virtual_cluster.hpp"

#include <nlohmann/json.hpp>

#include <chrono>
#include <string>

namespace llumnix::testing {

using namespace std::chrono_literals;

/// splitmix64, as spec/modeled_engine.md 1 has it; written apart from the engine's.
inline std::uint64_t mix(std::uint64_t z) {
  z += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

/// The tokens a greedy request without end-of-sequence must get.
inline std::vector<token_id>
expected_tokens(const std::vector<token_id>& prompt, std::size_t count) {
  std::uint64_t digest = 0;
  std::uint64_t position = 0;
  for (auto id : prompt) {
    digest = mix(digest ^ mix(id));
    ++position;
  }
  std::vector<token_id> out;
  while (out.size() < count) {
    auto v = mix(digest ^ mix(position)); // position of the last token, plus one
    auto id = static_cast<token_id>(512 + (v >> 8) % 512);
    out.push_back(id);
    digest = mix(digest ^ mix(id));
    ++position;
  }
  return out;
}

inline inference_request
greedy(std::string id, std::uint32_t tokens, std::vector<token_id> prompt = {72, 105}) {
  inference_request request;
  request.text_id = std::move(id);
  request.model = "modeled";
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = tokens;
  request.sampling.ignore_eos = true;
  return request;
}

/// Small engines that step about every millisecond, so that a test crosses few of them.
inline cluster_config small_engines() {
  cluster_config config;
  config.engine.speed = 35;
  config.engine.blocks = 256;
  config.engine.kv_bytes_per_token = 16;
  return config;
}

/// A gateway node with everything and some engine nodes, linked and ready.
struct scene : virtual_cluster {
  explicit scene(
    std::uint64_t seed, std::uint32_t engines, cluster_config config = small_engines(),
    latency_profile profile = {})
    : virtual_cluster{seed, std::move(config), std::move(profile)} {
    log::configure({.threshold = log::level::off, .json = false, .node = {}});
    start("head", head());
    for (std::uint32_t i = 0; i < engines; ++i)
      start(engine_name(i), engine());
    expected_ = engines;
  }
  static virtual_node_options head() {
    virtual_node_options x;
    x.roles = {"gateway", "scheduler", "cms", "console"};
    return x;
  }
  static virtual_node_options engine() {
    virtual_node_options x;
    x.roles = {"llumlet"};
    x.seeds = {"head"};
    return x;
  }
  static std::string engine_name(std::uint32_t i) { return "engine-" + std::to_string(i); }

  /// What CONSOLE of the head says, as a document.
  nlohmann::json ask(const std::string& subject, const std::string& argument = {}) {
    return nlohmann::json::parse(inspect("head", subject, argument));
  }
  /// One list of that document, a value of its own: a loop over part of `ask` would outlive it.
  nlohmann::json
  list_of(const std::string& name, const std::string& subject, const std::string& argument = {}) {
    return ask(subject, argument).at(name);
  }
  /// Instances the head could use now, as its inspection says.
  std::size_t ready_instances() {
    std::size_t count = 0;
    for (const auto& instance : list_of("instances", "cluster"))
      count += instance.at("state") == "ready";
    return count;
  }
  bool settle(std::size_t instances) {
    for (int i = 0; i < 100; ++i) {
      if (ready_instances() == instances)
        return true;
      run_for(20ms);
    }
    return false;
  }
  bool settle() { return settle(expected_); }

private:
  std::size_t expected_ = 0;
};

} // namespace llumnix::testing
