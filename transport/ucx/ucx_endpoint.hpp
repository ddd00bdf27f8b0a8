#pragma once

#include "transport/ucx/ucx_handles.hpp"

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace llumnix::ucx {

inline constexpr unsigned control_message = 1;
inline constexpr unsigned chunk_message = 2;

/// One end of a connection. Everything runs on the UCX thread; what UCX calls back only takes
/// notes, so that nothing of ours runs inside of its progress.
class ucx_endpoint {
public:
  static result<std::unique_ptr<ucx_endpoint>>
  connect(ucp_worker_h worker, const sockaddr_storage& where);
  static result<std::unique_ptr<ucx_endpoint>>
  accept(ucp_worker_h worker, ucp_conn_request_h request);
  /// Only once `closed`.
  ~ucx_endpoint();
  ucx_endpoint(const ucx_endpoint&) = delete;
  ucx_endpoint& operator=(const ucx_endpoint&) = delete;

  ucp_ep_h handle() const { return handle_; }
  /// A control message; with `reply` the other side can see which endpoint it came by.
  void send(std::vector<std::byte> header, bool reply = false);
  /// Bytes out of our memory, as one message: `noted` is set to true, from within UCX, when they
  /// are read no more.
  void send_chunk(
    std::vector<std::byte> header, std::vector<ucp_dt_iov_t> pieces, bool rendezvous,
    std::shared_ptr<bool> noted);
  /// Receives what `descriptor` announced into our memory. `call` comes from within UCX, or at
  /// once.
  void receive(
    ucp_worker_h worker, void* descriptor, std::vector<ucp_dt_iov_t> pieces,
    std::function<void(ucs_status_t)> call);

  /// Whether it has failed; then it must be closed.
  bool broken() const { return status_ != UCS_OK; }
  std::string why_broken() const { return ucs_status_string(status_); }
  /// Ends it by force, with everything that is under way.
  void close();
  /// Whether that is over: nothing is read or written through it any more.
  bool closed();
  bool closing() const { return closing_; }

private:
  struct record;
  explicit ucx_endpoint() = default;
  static result<std::unique_ptr<ucx_endpoint>> make(ucp_worker_h worker, ucp_ep_params_t params);
  static void on_error(void* self, ucp_ep_h, ucs_status_t status);
  static void on_over(void* request, ucs_status_t status, void* record);
  void send_record(std::unique_ptr<record> what, unsigned kind, unsigned flags);
  void note(ucs_status_t status) {
    if (status != UCS_OK && status_ == UCS_OK)
      status_ = status;
  }

  ucp_ep_h handle_ = nullptr;
  ucs_status_t status_ = UCS_OK;
  std::size_t under_way_ = 0; ///< requests of ours that UCX holds
  bool closing_ = false;
  ucs_status_ptr_t close_request_ = nullptr;
};

} // namespace llumnix::ucx
