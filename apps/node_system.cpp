#include "apps/node_system.hpp"

#include "actors/node_connector.hpp"
#include "actors/protocol/console_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "actors/protocol/type_ids.hpp"
#include "config/load_config.hpp"

#include <caf/io/all.hpp>
#include <caf/openssl/all.hpp>

#include <cstdio>
#include <random>

// CAF builds a node's identity from what two containers may share; this gives each start of a
// process its own.
namespace caf::detail {
__attribute__((used, visibility("default"))) std::string get_root_uuid() {
  std::random_device random;
  char text[40];
  std::snprintf(text, sizeof text, "%08x%08x%08x%08x", random(), random(), random(), random());
  return text;
}
} // namespace caf::detail

namespace llumnix {

struct node_system::settings : caf::actor_system_config {
  explicit settings(const node_config& config) {
    load<caf::io::middleman>();
    if (!config.tls_certificate.empty()) {
      load<caf::openssl::manager>();
      openssl_certificate = config.tls_certificate;
      openssl_key = config.tls_key;
      openssl_cafile = config.tls_ca;
    }
    register_types(*this);
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", std::size_t{config.threads});
    set("middleman.workers", std::size_t{1});
    // CAF gives up a handshake that is under way when a heartbeat is due, and one with TLS takes
    // its time.
    auto heartbeat = config.heartbeat;
    if (!config.tls_certificate.empty())
      heartbeat = std::max(heartbeat, milliseconds{250});
    set("middleman.heartbeat-interval", caf::timespan{heartbeat});
    set(
      "middleman.connection-timeout",
      caf::timespan{std::max(config.connection_timeout, 2 * heartbeat)});
    set(
      "middleman.app-identifiers",
      std::vector<std::string>{"llumnix/" + std::to_string(protocol_version)});
    set("middleman.enable-automatic-connections", false);
  }
};

node_system::node_system(const node_config& config)
  : settings_{std::make_unique<settings>(config)},
    system_{std::make_unique<caf::actor_system>(*settings_)},
    tls_{!config.tls_certificate.empty()} {}

node_system::~node_system() = default;

connector_actor node_system::connector() {
  if (tls_)
    return system_->spawn(
      make_middleman_connector,
      caf::actor_cast<caf::actor>(system_->openssl_manager().actor_handle()));
  return system_->spawn<caf::detached>(make_dialler);
}

result<std::string> node_system::publish(const node_actor& node, const std::string& listen) {
  std::string host;
  std::uint16_t port = 0;
  if (!split_address(listen, host, port))
    return {errc::invalid_argument, "node.listen: '" + listen + "' is not HOST:PORT"};
  auto bound = tls_ ? caf::openssl::publish(node, port, host.c_str(), true)
                    : system_->middleman().publish(node, port, host.c_str(), true);
  if (!bound)
    return {
      errc::unreachable,
      "cannot listen on " + listen + " for node links: is the port taken, the address ours,"
        + (tls_ ? std::string{" and are the TLS files a matching pair?"} : std::string{"?"})
        + " Choose another with --listen HOST:PORT (port 0 picks a free one)"};
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":"
         + std::to_string(*bound);
}

} // namespace llumnix
