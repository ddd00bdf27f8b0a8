#pragma once

#include "leftovers.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace llumnix::testing {

/// A cluster with requests that move.
struct moving_scene : scene {
  explicit moving_scene(
    std::uint64_t seed, std::uint32_t engines = 2, cluster_config config = small_engines())
    : scene{seed, engines, std::move(config)} {
    REQUIRE(settle());
    run_for(1s); // until the engine nodes have dialled each other
  }

  /// Where a request is, by the hub's list; empty where nobody has it.
  instance_id place_of(const std::string& text_id) {
    for (const auto& request : list_of("requests", "requests"))
      if (request.at("id") == text_id && !request.at("instance").is_null())
        return request.at("instance");
    return {};
  }
  /// What the records of a request say of that kind, one a line.
  std::string notes_of(const std::string& text_id, const std::string& kind) {
    std::string notes;
    for (const auto& event : list_of("events", "why", text_id))
      if (event.at("kind") == kind)
        notes += event.at("note").get<std::string>() + "\n";
    return notes;
  }
  stream_ref stream_of(const virtual_client& client) {
    return {"head", card("head").self.life.incarnation, 0, client.stream};
  }
  virtual_client& running(const std::string& id, std::uint32_t tokens, std::size_t prompt = 40) {
    std::vector<token_id> ids(prompt);
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<token_id>(97 + (i * 7 + id.size()) % 26);
    prompts[id] = ids;
    auto& client = request("head", greedy(id, tokens, ids));
    REQUIRE(run_until([&] { return client.tokens.size() >= 3; }, 10s));
    return client;
  }
  migrate_msg to(const instance_id& there, const virtual_client& client) {
    migrate_msg order;
    order.to = owner(there);
    order.requests = {stream_of(client)};
    order.policy = "by hand";
    return order;
  }
  instance_id other(const instance_id& one) const {
    return one == "engine-0" ? "engine-1" : "engine-0";
  }
  /// What became of its move to the other engine.
  move_result move_from(const instance_id& from, const virtual_client& client) {
    auto moves = migrate(from, to(other(from), client), 20s);
    REQUIRE(moves);
    REQUIRE(moves->moves.size() == 1);
    return moves->moves.front();
  }
  void expect_exact(const std::string& id, virtual_client& client, std::size_t tokens) {
    REQUIRE(run_until([&] { return client.ended(); }, 60s));
    CHECK(client.failure.code == errc::ok);
    CHECK(client.finish == finish_reason::length);
    CHECK(client.tokens == expected_tokens(prompts[id], tokens));
  }

  std::map<std::string, std::vector<token_id>> prompts;
};

} // namespace llumnix::testing
