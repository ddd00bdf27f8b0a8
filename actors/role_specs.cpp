#include "actors/role_specs.hpp"

#include "config/load_config.hpp"
#include "runtime/base/assert.hpp"
#include "runtime/cluster/dispatch_ledger.hpp"

namespace llumnix {

namespace {

/// A role whose actor is made by `make(self, config)` and whose handle goes where `place` says.
template <class Actor, class Make, class Config, class Place>
role_spec role(std::string name, Make make, Config config, Place place) {
  return {
    std::move(name),
    [make, config](caf::local_actor& parent, const node_actor&) {
      return caf::actor_cast<caf::strong_actor_ptr>(parent.spawn(make, config));
    },
    [place](node_card& card, const caf::strong_actor_ptr& actor) {
      place(card, caf::actor_cast<Actor>(actor));
    }};
}

/// The same, and `told` is told the actor each time it is started.
template <class Actor>
role_spec told_of(role_spec spec, std::function<void(Actor)> told) {
  if (told)
    spec.start = [start = spec.start, told](caf::local_actor& parent, const node_actor& node) {
      auto actor = start(parent, node);
      told(caf::actor_cast<Actor>(actor));
      return actor;
    };
  return spec;
}

} // namespace

role_spec cms_role(cms_actor_config config) {
  return role<cms_actor>("cms", make_cms, std::move(config), [](node_card& card, cms_actor actor) {
    card.cms.push_back(std::move(actor));
  });
}

role_spec scheduler_role(scheduler_actor_config config, std::function<void(deciding_actor)> told) {
  return told_of(
    role<scheduler_actor>(
      "scheduler", make_scheduler, std::move(config),
      [](node_card& card, scheduler_actor actor) { card.scheduler.push_back(std::move(actor)); }),
    std::move(told));
}

role_spec rescheduler_role(rescheduler_actor_config config) {
  return role<rescheduler_actor>(
    "rescheduler", make_rescheduler, std::move(config), [](node_card&, rescheduler_actor) {});
}

role_spec gateway_role(gateway_actor_config config) {
  return role<gateway_actor>(
    "gateway", make_gateway, std::move(config),
    [](node_card& card, gateway_actor actor) { card.gateway.push_back(std::move(actor)); });
}

role_spec stream_hub_role(stream_hub_config config) {
  auto hub = config.hub;
  return role<stream_hub_actor>(
    "stream_hub " + std::to_string(hub), make_stream_hub, std::move(config),
    [hub](node_card& card, stream_hub_actor actor) {
      if (card.hubs.size() <= hub)
        card.hubs.resize(hub + 1);
      card.hubs[hub] = std::move(actor);
    });
}

std::string llumlet_role_name(const instance_id& id) {
  return "llumlet " + id;
}

role_spec llumlet_role(
  llumlet_actor_config config, std::string engine, std::function<void(llumlet_actor)> told) {
  auto metadata = config.metadata;
  bool shared = !config.make_engine;
  auto spec = role<llumlet_actor>(
    llumlet_role_name(metadata.instance_id), make_llumlet, std::move(config),
    [metadata, engine, shared](node_card& card, llumlet_actor actor) {
      card.instances.push_back({metadata, engine, std::move(actor), shared});
    });
  spec.instance = metadata.instance_id;
  return told_of(std::move(spec), std::move(told));
}

role_spec console_role(node_life life, wall_clock wall) {
  return {
    "console",
    [life, wall](caf::local_actor& parent, const node_actor& node) {
      return caf::actor_cast<caf::strong_actor_ptr>(
        parent.spawn(make_console, console_actor_config{life, node, wall}));
    },
    [](node_card& card, const caf::strong_actor_ptr& actor) {
      card.console.push_back(caf::actor_cast<console_actor>(actor));
    }};
}

role_spec admin_desk_role(node_life life, std::function<void(admin_desk_actor)> desk) {
  return {
    "admin_desk",
    [life, desk](caf::local_actor& parent, const node_actor&) {
      auto actor = parent.spawn(make_admin_desk, life);
      desk(actor);
      return caf::actor_cast<caf::strong_actor_ptr>(actor);
    },
    [](node_card&, const caf::strong_actor_ptr&) {}};
}

role_spec llumlet_desk_role(node_life life, std::function<void(llumlet_desk_actor)> desk) {
  return told_of(
    role<llumlet_desk_actor>(
      "llumlet_desk", make_llumlet_desk, std::move(life), [](node_card&, llumlet_desk_actor) {}),
    std::move(desk));
}

role_spec leave_role(leave_actor_config config) {
  return role<leave_actor>("leave", make_leave, std::move(config), [](node_card&, leave_actor) {});
}

instance_metadata describe_instance(
  const instance_id& id, const std::string& node, const std::string& ip,
  const cluster_config& config, double utc, std::uint16_t rpc_port) {
  instance_metadata x;
  x.instance_id = id;
  x.instance_type = config.llumlet.instance_type;
  x.backend_type = "modeled";
  x.ip = x.ip_kvs = x.ip_kvt = ip;
  x.llumlet_port = x.kvt_port = rpc_port; // who moves requests names their destination by it
  x.node_id = node;
  x.data_parallel_size = 1;
  x.tensor_parallel_size = 1;
  x.unit_id = id;
  x.utc_create = x.utc_update = utc;
  x.block_size = static_cast<std::int32_t>(config.engine.block_tokens);
  x.max_num_batched_tokens = static_cast<std::int32_t>(config.engine.max_num_batched_tokens);
  return x;
}

/// Whatever it was registered as: so far every engine serves whole requests.
instance_metadata
describe_http_engine(const discovered_engine& engine, const std::string& backend, double utc) {
  instance_metadata x;
  std::uint16_t port = 0;
  bool split = split_address(engine.address, x.ip, port);
  LLUMNIX_ASSERT(split); // whoever found it has looked
  x.instance_id = x.unit_id = engine.id;
  x.instance_type = to_string(infer_type::neutral);
  x.backend_type = backend;
  x.ip_kvs = x.ip;
  x.api_server_port = port;
  x.node_id = x.ip; // where it runs; its gateway's node is another matter
  x.dp_rank = static_cast<std::int32_t>(engine.dp_rank);
  x.data_parallel_size = static_cast<std::int32_t>(engine.dp_size);
  x.tensor_parallel_size = 1;
  x.utc_create = x.utc_update = utc;
  return x;
}

} // namespace llumnix
