#pragma once

#include "actors/admin_desk.hpp"
#include "actors/cms_actor.hpp"
#include "actors/console_actor.hpp"
#include "actors/gateway_actor.hpp"
#include "actors/leave_actor.hpp"
#include "actors/llumlet_actor.hpp"
#include "actors/llumlet_desk.hpp"
#include "actors/node_actor.hpp"
#include "actors/rescheduler_actor.hpp"
#include "actors/scheduler_actor.hpp"
#include "actors/stream_hub_actor.hpp"
#include "runtime/cluster/engine_roster.hpp"

namespace llumnix {

/// How NODE starts each role, and where the role stands in the node's card. The one list of what a
/// node can be, shared by the program and the virtual cluster.
role_spec cms_role(cms_actor_config config);
/// `told`, where there is one, is told the actor each time it is started (on an actor thread).
role_spec
scheduler_role(scheduler_actor_config config, std::function<void(deciding_actor)> told = {});
/// It is not in the card: nobody asks it anything.
role_spec rescheduler_role(rescheduler_actor_config config);
role_spec gateway_role(gateway_actor_config config);
role_spec stream_hub_role(stream_hub_config config);
/// `told`, where there is one, is told the actor each time it is started (on an actor thread): by
/// this the news of an engine behind HTTP reach it.
role_spec llumlet_role(
  llumlet_actor_config config, std::string engine, std::function<void(llumlet_actor)> told = {});
/// What the role of an instance's llumlet is called.
std::string llumlet_role_name(const instance_id& id);
/// Every node has one; it is told its NODE when it is started.
role_spec console_role(node_life life, wall_clock wall);
/// Behind the node's admin listener; `desk` is told the actor each time it is started.
role_spec admin_desk_role(node_life life, std::function<void(admin_desk_actor)> desk);
/// Behind the node's RPC service; `desk` is told the actor each time it is started.
role_spec llumlet_desk_role(node_life life, std::function<void(llumlet_desk_actor)> desk);

/// Begun when the node is to end.
role_spec leave_role(leave_actor_config config);

/// What a modeled instance is, for the CMS. `utc`: seconds of the Unix epoch when its llumlet
/// starts. `rpc_port`: of the RPC service at `ip`; 0 without one.
instance_metadata describe_instance(
  const instance_id& id, const std::string& node, const std::string& ip,
  const cluster_config& config, double utc, std::uint16_t rpc_port = 0);
/// The same of an engine behind HTTP. `backend`: what it is, as far as it told ("vllm 0.9.1"). What
/// nobody knows from outside is 0 or empty.
instance_metadata
describe_http_engine(const discovered_engine& engine, const std::string& backend, double utc);

} // namespace llumnix
