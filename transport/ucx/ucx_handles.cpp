#include "transport/ucx/ucx_handles.hpp"

#include <spdlog/fmt/fmt.h>

#include <csignal>
#include <cstdlib>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>
#include <utility>

namespace llumnix::ucx {

namespace {

// An operator's own variables win. A connection that waited in connect() would hold up all others;
// and one that was reset and then refused there, by a peer that died within milliseconds, kills the
// living side (by an assertion of UCX 1.13). Data connections of another family than the listener's
// corrupt the heap: UCX writes the longer address into room for the shorter (1.13).
void prepare_environment(const std::string& device, bool ipv6) {
  const std::pair<const char*, std::string> variables[] = {
    {"UCX_TCP_TX_SEG_SIZE", "64K"},
    {"UCX_TCP_CONN_NB", "y"},
    {"UCX_KEEPALIVE_INTERVAL", "5s"},
    {"UCX_TCP_KEEPIDLE", "5s"},
    {"UCX_TCP_KEEPINTVL", "2s"},
    {"UCX_NET_DEVICES", device},
    {"UCX_TCP_AF_PRIO", ipv6 ? "inet6" : "inet"}};
  for (const auto& [name, value] : variables)
    setenv(name, value.c_str(), 0);
  // UCX has read these when it was loaded. It would write of every stranger's knock to stdout, and
  // take the signals of a crash.
  if (std::getenv("UCX_LOG_LEVEL") == nullptr)
    ucs_global_opts_set_value("LOG_LEVEL", "fatal");
  if (std::getenv("UCX_HANDLE_ERRORS") == nullptr)
    for (auto signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE})
      ucs_debug_disable_signal(signal);
}

} // namespace

error failure(ucs_status_t status, std::string_view doing) {
  return {errc::internal, fmt::format("{}: {}", doing, ucs_status_string(status))};
}

result<context> make_context(const std::string& device, bool ipv6) {
  prepare_environment(device, ipv6);
  ucp_config_t* config = nullptr;
  if (auto status = ucp_config_read(nullptr, nullptr, &config); status != UCS_OK)
    return failure(status, "read UCX's configuration");
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h made = nullptr;
  auto status = ucp_init(&params, config, &made);
  ucp_config_release(config);
  if (status != UCS_OK)
    return failure(status, "start UCX");
  return context{made};
}

result<worker> make_worker(const context& of) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucp_worker_h made = nullptr;
  if (auto status = ucp_worker_create(of.get(), &params, &made); status != UCS_OK)
    return failure(status, "make a UCX worker");
  return worker{made};
}

result<listener>
make_listener(const worker& of, const sockaddr_storage& where, on_connection call, void* arg) {
  ucp_listener_params_t params{};
  params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&where);
  params.sockaddr.addrlen = size_of(where);
  params.conn_handler.cb = call;
  params.conn_handler.arg = arg;
  ucp_listener_h made = nullptr;
  if (auto status = ucp_listener_create(of.get(), &params, &made); status != UCS_OK)
    return failure(status, "listen for KV peers");
  return listener{made};
}

result<sockaddr_storage> client_of(ucp_conn_request_h request) {
  ucp_conn_request_attr_t attributes{};
  attributes.field_mask = UCP_CONN_REQUEST_ATTR_FIELD_CLIENT_ADDR;
  if (auto status = ucp_conn_request_query(request, &attributes); status != UCS_OK)
    return failure(status, "ask where a KV peer comes from");
  return attributes.client_address;
}

result<sockaddr_storage> address_of(const listener& of) {
  ucp_listener_attr_t attributes{};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  if (auto status = ucp_listener_query(of.get(), &attributes); status != UCS_OK)
    return failure(status, "ask for the KV port");
  return attributes.sockaddr;
}

} // namespace llumnix::ucx
