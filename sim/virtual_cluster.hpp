#pragma once

#include "actors/protocol/migration_messages.hpp"
#include "config/cluster_config.hpp"
#include "runtime/base/node_counters.hpp"
#include "runtime/cluster/cms_store.hpp"
#include "runtime/scheduling/kv_index.hpp"
#include "runtime/scheduling/latency_profile.hpp"
#include "runtime/scheduling/remote_scheduler.hpp"
#include "runtime/serving/byte_tokenizer.hpp"
#include "sim/message_faults.hpp"
#include "sim/virtual_client.hpp"
#include "sim/virtual_network.hpp"
#include "transport/loopback_transport.hpp"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace llumnix {

struct hub_loop;

/// What a virtual node is made of.
struct virtual_node_options {
  std::vector<std::string> roles;   ///< gateway, scheduler, cms, llumlet
  std::uint32_t instances = 1;      ///< with role llumlet
  std::vector<std::string> seeds;   ///< names of nodes it dials
  std::shared_ptr<cms_store> store; ///< mirror of its CMS
  /// HOST:PORT of engines behind HTTP, with role gateway: it gets a llumlet without an engine for
  /// each. Nobody checks them but whoever calls `tell_news`.
  std::vector<std::string> engines{};
  std::string instance_type = "neutral"; ///< with role llumlet: what its instances are for
  bool kv_transport = true;              ///< with role llumlet: KV is copied when requests move
  kv_index* prefix_index = nullptr;      ///< with role gateway; outlives the cluster
  remote_scheduler* remote = nullptr;    ///< likewise
};

/// Several nodes of a cluster in one process and one thread: the shipped actors on CAF's test
/// scheduler, with a clock that moves when told and links that lose and delay. Which message is
/// handled next is drawn from the seed; the same seed gives the same events (`trace`).
class virtual_cluster {
public:
  /// `profile`: measured times, for placements that predict.
  explicit virtual_cluster(
    std::uint64_t seed, cluster_config config = {}, latency_profile profile = {});
  ~virtual_cluster();

  /// Starts a node; a name used before comes back under its next incarnation.
  void start(const std::string& name, const virtual_node_options& options);
  /// kill -9: the node is frozen for ever, its peers see their connections end.
  void kill(const std::string& name);
  /// SIGTERM: requests of its instances get `patience` to move or end, then it says goodbye and is
  /// gone.
  void stop(const std::string& name, std::chrono::milliseconds patience);
  /// SIGSTOP and SIGCONT: the node does nothing, its connections stay open; then it goes on in the
  /// present.
  void pause(const std::string& name);
  void resume(const std::string& name);
  /// While cut, nothing passes between the two; nothing is lost either, as TCP has it.
  void cut(const std::string& a, const std::string& b, bool is_cut);
  /// Everything under way between the two, and what follows until then, arrives `by` later.
  void delay(const std::string& a, const std::string& b, nanoseconds by);
  /// The connection between the two breaks; what was under way is lost.
  void reset(const std::string& a, const std::string& b);
  /// What becomes of the words of hand-overs from now on, by name; empty: all arrive.
  void on_message(message_judge judge) { faults_->judge(std::move(judge)); }
  /// How many of a name were sent since.
  std::uint64_t messages(const std::string& name) const { return faults_->seen(name); }
  /// Ends one actor of a node ("scheduler", "gateway", ...) as a crash of it would.
  void kill_actor(const std::string& node, const std::string& role);

  /// Sends a request to a gateway node as a client would. The client lives as long as the cluster.
  virtual_client&
  request(const std::string& gateway, inference_request request, stream_options options = {});
  /// The client goes away.
  void disconnect(virtual_client& client);

  /// The streams of a gateway node, for a test that plays its relays (`hub_loop::relays`).
  hub_loop& streams(const std::string& gateway);
  /// What was found out of an engine behind HTTP, told to its llumlet. The body of a status counts
  /// when its `update_id` grew.
  void tell_news(const std::string& gateway, const instance_id& engine, instance_status news);

  /// Runs until the predicate holds; false once `limit` of virtual time has passed since the call.
  bool run_until(const std::function<bool()>& holds, nanoseconds limit);
  void run_for(nanoseconds time);

  nanoseconds now() const;
  /// A hash over everything that happened.
  std::uint64_t trace() const;
  /// The memory through which KV moves between its nodes.
  loopback_network& kv_network() { return kv_network_; }
  /// Orders a move at the instance's LLUMLET. The answer is written down once it comes.
  std::shared_ptr<std::vector<moves_msg>> order(const instance_id& from, const migrate_msg& what);
  /// The same, and runs the cluster until the answer is there; nothing when none came within
  /// `limit`.
  std::optional<moves_msg>
  migrate(const instance_id& from, const migrate_msg& what, nanoseconds limit);
  /// Who speaks for the instance: life and name.
  stream_owner owner(const instance_id& instance) const;
  /// Numbers of a node, of its present life.
  const node_counters& counters(const std::string& node) const;
  /// What CONSOLE of a node says, as JSON (`inspect_msg`); runs the cluster meanwhile. Empty if it
  /// fails.
  std::string
  inspect(const std::string& node, const std::string& subject, const std::string& argument = {});
  /// The node's own card, as its role actors last saw it.
  const node_card& card(const std::string& node) const;

private:
  struct life;
  life& at(const std::string& name);
  const life& at(const std::string& name) const;

  cluster_config config_;
  latency_profile profile_;
  byte_tokenizer words_;
  loopback_network kv_network_;
  std::shared_ptr<message_faults> faults_ = std::make_shared<message_faults>();
  virtual_network network_;
  std::map<std::string, std::unique_ptr<life>> nodes_;
  std::vector<std::unique_ptr<life>> graveyard_;
  std::vector<std::unique_ptr<virtual_client>> clients_;
  std::map<std::string, std::uint64_t> incarnations_;
};

} // namespace llumnix
