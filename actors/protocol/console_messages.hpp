#pragma once

#include "actors/protocol/serving_inspect.hpp"

namespace llumnix {

/// What somebody wants to know: `subject` is cluster, requests, why, actors or events.
struct inspect_msg {
  std::string subject;
  std::string argument; ///< a request id for `why`, an instance for `requests`, the last number
                        ///< seen for `events`
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, inspect_msg& x) {
  return f(caf::meta::type_name("inspect_msg"), x.subject, x.argument);
}

/// Something happened that people may want to see as it happens.
struct event_msg {
  std::int64_t at = 0; ///< ms of the Unix epoch
  std::string kind;    ///< node_up, node_down, placed, replayed, finished, ...
  std::vector<std::pair<std::string, std::string>> facts; ///< who and what
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, event_msg& x) {
  return f(caf::meta::type_name("event_msg"), x.at, x.kind, x.facts);
}

/// Somebody follows events: for some seconds from now, CONSOLE wants to hear of them.
struct watch_msg {};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, watch_msg&) {
  return f(caf::meta::type_name("watch_msg"));
}

/// The answer, as one JSON document (spec/surface.md 3).
struct inspected_msg {
  std::string json;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, inspected_msg& x) {
  return f(caf::meta::type_name("inspected_msg"), x.json);
}

struct streams_msg {
  std::uint64_t ticket = 0; ///< of the question, between a hub and its loop
  std::vector<stream_info> streams;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, streams_msg& x) {
  return f(caf::meta::type_name("streams_msg"), x.ticket, x.streams);
}

struct stat_msg {};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, stat_msg&) {
  return f(caf::meta::type_name("stat_msg"));
}

/// How busy one actor is.
struct actor_stat {
  std::uint64_t id = 0; ///< CAF's number of the actor, within its node
  std::string name;
  std::string role;
  std::uint64_t mailbox = 0;  ///< messages waiting
  std::uint64_t messages = 0; ///< handled so far
  std::int64_t busy_us = 0;   ///< time spent in handlers
  std::uint32_t restarts = 0;
  std::int64_t up_ms = 0;
  std::vector<std::pair<std::string, std::int64_t>> state; ///< a few numbers of its own
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, actor_stat& x) {
  return f(
    caf::meta::type_name("actor_stat"), x.id, x.name, x.role, x.mailbox, x.messages, x.busy_us,
    x.restarts, x.up_ms, x.state);
}

/// An actor and those it started.
struct actor_stats_msg {
  std::vector<actor_stat> actors;
};
template <class Inspector>
typename Inspector::result_type inspect(Inspector& f, actor_stats_msg& x) {
  return f(caf::meta::type_name("actor_stats_msg"), x.actors);
}

} // namespace llumnix
