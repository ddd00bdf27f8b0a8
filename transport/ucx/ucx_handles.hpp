#pragma once

#include "runtime/base/result.hpp"
#include "transport/ucx/ucx_address.hpp"

#include <ucp/api/ucp.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

namespace llumnix::ucx {

struct destroy {
  void operator()(ucp_context_h x) const { ucp_cleanup(x); }
  void operator()(ucp_worker_h x) const { ucp_worker_destroy(x); }
  void operator()(ucp_listener_h x) const { ucp_listener_destroy(x); }
};
using context = std::unique_ptr<std::remove_pointer_t<ucp_context_h>, destroy>;
using worker = std::unique_ptr<std::remove_pointer_t<ucp_worker_h>, destroy>;
using listener = std::unique_ptr<std::remove_pointer_t<ucp_listener_h>, destroy>;

/// UCX said no while we were `doing` something.
error failure(ucs_status_t status, std::string_view doing);

/// Puts UCX's variables into the environment where they are missing, then makes a context that uses
/// `device` alone, by addresses of that family.
result<context> make_context(const std::string& device, bool ipv6 = false);
/// For one thread, with an event descriptor.
result<worker> make_worker(const context& of);

/// What is called with connections that ask to be accepted.
using on_connection = void (*)(ucp_conn_request_h request, void* arg);
result<listener>
make_listener(const worker& of, const sockaddr_storage& where, on_connection call, void* arg);
/// Where such a connection comes from.
result<sockaddr_storage> client_of(ucp_conn_request_h request);
/// Where it listens, with the port it has got.
result<sockaddr_storage> address_of(const listener& of);

} // namespace llumnix::ucx
