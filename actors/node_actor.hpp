#pragma once

#include "actors/measured.hpp"
#include "actors/protocol/cluster_messages.hpp"
#include "config/cluster_config.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/base/result.hpp"
#include "runtime/cluster/restart_budget.hpp"

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

namespace llumnix {

/// A role a node runs: how its actor is started, and where its handle stands in the node's card.
struct role_spec {
  std::string name; ///< "scheduler", "llumlet engine-0"
  std::function<caf::strong_actor_ptr(caf::local_actor& parent, const node_actor& node)> start;
  std::function<void(node_card& card, const caf::strong_actor_ptr& actor)> announce;
  instance_id instance{}; ///< that it speaks for; empty: none
};

/// Roles that a running node is to end, by name, and those it is to begin, in this order. Ended for
/// good: what it was is gone from the node's card, and nobody is alarmed. Stays in its process.
struct role_changes_msg {
  std::vector<std::string> stop;
  std::vector<role_spec> start;
};

struct node_actor_config {
  node_config knobs;
  node_life life;
  std::int64_t pid = 0;
  std::vector<role_spec> roles; ///< started in this order, stopped in reverse
  std::shared_ptr<node_counters> counters;
  connector_actor connector;
};

/// NODE: a process's supervisor and its word to other nodes. The one actor that is published.
struct node_state {
  node_state() = default;
  static inline const char* name = "node";
  using pointer = role_pointer<node_actor, node_state>;

  node_actor::behavior_type make_behavior(pointer actor, node_actor_config settings);

  struct child {
    role_spec role;
    caf::strong_actor_ptr actor;
    restart_budget budget;
    std::uint64_t number = 0; ///< that no other child ever had
    std::uint32_t restarts = 0;
  };
  struct peer {
    hello_msg hello;
    std::set<std::uint64_t> turned_away; ///< incarnations of that name refused: each told once
  };
  /// An address to be connected to.
  struct target {
    bool seed = false;
    bool dialling = false;
    std::string connected; ///< name of the node found there, while it is linked
    bool left = false;     ///< it went in order: that it does not answer is no news
    bool told = false;     ///< a warning says that it does not answer
    std::uint32_t failures = 0;
    time_point next{};
    time_point missed_since{};
  };

  /// How a node goes.
  enum class parting {
    missing,   ///< without a word
    goodbye,   ///< in order
    overtaken, ///< a newer node has its name
    disowned   ///< it says that a newer node has ours
  };

  caf::result<hello_msg> on_hello(const hello_msg& msg);
  void on_goodbye(const goodbye_msg& msg);
  void on_name_taken(const name_taken_msg& msg);
  void on_listening(const listening_msg& msg);
  void on_dial();
  void on_down(const caf::down_msg& msg);
  void on_restart(std::uint64_t number);
  void on_roles(role_changes_msg& msg);
  caf::result<caf::unit_t> on_stop();
  caf::result<actor_stats_msg> on_stat();

  void add(role_spec role);
  void start(child& x);
  void introduce_peers(const child& x);
  void stop(const std::string& role);
  void refresh_card();
  void tell_children(const caf::message& news);
  hello_msg introduction();
  result<void> check(const hello_msg& hello) const;
  result<void> meet(const hello_msg& hello, const std::string& dialled = {});
  void turn_away(const node_member& node);
  void overtake(const node_member& by);
  void tell_up(const node_member& node, bool was_told);
  void tell_name_taken(const std::string& by_whom, const std::string& why);
  void miss(const std::string& name, time_point now);
  void lose(const std::string& name, parting how);
  void learn(const node_member& member);
  void dial(const std::string& address, target& x);
  void on_answer(const std::string& address, const hello_msg& hello);
  bool reached(const std::string& address, const std::string& name);
  void dial_failed(const std::string& address, const error& why);
  nanoseconds pause_after(const std::string& address, std::uint32_t failures) const;
  bool linked_to_all(const std::vector<std::string>& roles) const;

  pointer self = nullptr;
  node_actor_config config;
  node_card card;
  std::vector<child> children;
  std::uint64_t children_ever = 0;
  std::map<std::string, peer> peers;     ///< by name, without our own
  std::map<std::string, target> targets; ///< by address
  std::map<std::string, time_point>
    missing;                         ///< since when; by the names of lost peers, some of them
  std::set<std::uint64_t> namesakes; ///< incarnations of our name refused: each told once
  bool name_taken = false;           ///< somebody has our name: told once
  bool listening = false;
  bool stopping = false;
};

node_actor::behavior_type make_node(node_state::pointer self, node_actor_config config);

} // namespace llumnix

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(llumnix::role_changes_msg)
