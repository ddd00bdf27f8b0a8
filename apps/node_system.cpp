#include "apps/node_system.hpp"

#include "actors/node_actor.hpp"
#include "actors/node_connector.hpp"
#include "actors/protocol/console_messages.hpp"
#include "actors/protocol/serving_messages.hpp"
#include "actors/protocol/type_ids.hpp"
#include "apps/caf_guards.hpp"
#include "config/load_config.hpp"

#include <caf/io/all.hpp>
#include <caf/openssl/all.hpp>

#include <cstring>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509err.h>
#include <openssl/x509v3.h>
#include <tuple>

namespace llumnix {

namespace {

struct tls_release {
  void operator()(SSL_CTX* x) const { SSL_CTX_free(x); }
  void operator()(X509_STORE_CTX* x) const { X509_STORE_CTX_free(x); }
};

/// Why the last call failed: the first thing OpenSSL found, which says most.
std::string tls_reason() {
  auto code = ERR_get_error();
  ERR_clear_error();
  if (ERR_SYSTEM_ERROR(code))
    return std::strerror(ERR_GET_REASON(code));
  if (ERR_GET_LIB(code) == ERR_LIB_X509 && ERR_GET_REASON(code) == X509_R_KEY_VALUES_MISMATCH)
    return "it belongs to another certificate";
  auto* text = ERR_reason_error_string(code);
  return text != nullptr ? text : "OpenSSL does not say why";
}

/// Why other nodes would refuse the certificate, as clients or as servers; empty if they would not.
std::string refusal_of(SSL_CTX* files) {
  STACK_OF(X509)* chain = nullptr;
  SSL_CTX_get0_chain_certs(files, &chain);
  for (int purpose : {X509_PURPOSE_SSL_CLIENT, X509_PURPOSE_SSL_SERVER}) {
    std::unique_ptr<X509_STORE_CTX, tls_release> question{X509_STORE_CTX_new()};
    auto* own = SSL_CTX_get0_certificate(files);
    if (X509_STORE_CTX_init(question.get(), SSL_CTX_get_cert_store(files), own, chain) != 1)
      return tls_reason();
    X509_STORE_CTX_set_purpose(question.get(), purpose);
    if (X509_verify_cert(question.get()) != 1)
      return X509_verify_cert_error_string(X509_STORE_CTX_get_error(question.get()));
  }
  return {};
}

} // namespace

result<void> check_tls_files(const node_config& config) {
  const auto& [certificate, key, authority]
    = std::tie(config.tls_certificate, config.tls_key, config.tls_ca);
  if (certificate.empty() && key.empty() && authority.empty())
    return {};
  ERR_clear_error();
  std::unique_ptr<SSL_CTX, tls_release> files{SSL_CTX_new(TLS_method())};
  auto unusable = [](const char* knob, const std::string& file, const std::string& why) {
    return error{errc::invalid_argument, std::string{knob} + ": " + file + ": " + why};
  };
  if (SSL_CTX_use_certificate_chain_file(files.get(), certificate.c_str()) != 1)
    return unusable("node.tls_certificate", certificate, "no PEM certificate: " + tls_reason());
  bool encrypted = false; // without the callback OpenSSL would ask at the terminal
  SSL_CTX_set_default_passwd_cb_userdata(files.get(), &encrypted);
  SSL_CTX_set_default_passwd_cb(files.get(), [](char*, int, int, void* asked) {
    *static_cast<bool*>(asked) = true;
    return -1;
  });
  if (SSL_CTX_use_PrivateKey_file(files.get(), key.c_str(), SSL_FILETYPE_PEM) != 1) {
    auto why = tls_reason();
    return unusable(
      "node.tls_key", key,
      encrypted ? "is encrypted, which node links cannot use"
                : "no PEM key of node.tls_certificate: " + why);
  }
  if (SSL_CTX_load_verify_locations(files.get(), authority.c_str(), nullptr) != 1)
    return unusable("node.tls_ca", authority, "no PEM certificates: " + tls_reason());
  if (auto why = refusal_of(files.get()); !why.empty())
    return unusable(
      "node.tls_certificate", certificate,
      "refused by nodes that trust node.tls_ca " + authority + ": " + why);
  return {};
}

struct node_system::settings : caf::actor_system_config {
  explicit settings(const node_config& config) {
    require_caf_guards();
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
      errc::unreachable, "cannot listen on " + listen
                           + " for node links: the port is taken, or the address is not ours. "
                             "Choose another with --listen HOST:PORT (port 0 picks a free one)"};
  return (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":"
         + std::to_string(*bound);
}

} // namespace llumnix
