#include "transport/ucx/ucx_endpoint.hpp"

#include "runtime/base/assert.hpp"

#include <utility>

namespace llumnix::ucx {

/// What a request needs until it completes; UCX keeps pointers into it.
struct ucx_endpoint::record {
  ucx_endpoint* of;
  std::vector<std::byte> header;
  std::vector<ucp_dt_iov_t> pieces;
  std::shared_ptr<bool> noted;
  std::function<void(ucs_status_t)> call;

  void end(ucs_status_t status) {
    if (noted)
      *noted = true;
    if (call)
      call(status);
  }
};

namespace {

/// One piece travels as what it is: UCX moves contiguous bytes in better ways than lists.
void describe(
  ucp_request_param_t& param, const std::vector<ucp_dt_iov_t>& pieces, void*& data,
  std::size_t& count) {
  param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
  if (pieces.size() == 1) {
    param.datatype = ucp_dt_make_contig(1);
    data = pieces.front().buffer;
    count = pieces.front().length;
  } else {
    param.datatype = ucp_dt_make_iov();
    data = const_cast<ucp_dt_iov_t*>(pieces.data());
    count = pieces.size();
  }
}

} // namespace

result<std::unique_ptr<ucx_endpoint>>
ucx_endpoint::make(ucp_worker_h worker, ucp_ep_params_t params) {
  std::unique_ptr<ucx_endpoint> made{new ucx_endpoint};
  params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = on_error;
  params.err_handler.arg = made.get();
  if (auto status = ucp_ep_create(worker, &params, &made->handle_); status != UCS_OK) {
    made->handle_ = nullptr;
    return failure(status, "make a UCX endpoint");
  }
  return made;
}

result<std::unique_ptr<ucx_endpoint>>
ucx_endpoint::connect(ucp_worker_h worker, const sockaddr_storage& where) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&where);
  params.sockaddr.addrlen = size_of(where);
  return make(worker, params);
}

result<std::unique_ptr<ucx_endpoint>>
ucx_endpoint::accept(ucp_worker_h worker, ucp_conn_request_h request) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_CONN_REQUEST;
  params.conn_request = request;
  return make(worker, params);
}

ucx_endpoint::~ucx_endpoint() {
  LLUMNIX_ASSERT(handle_ == nullptr || (closing_ && under_way_ == 0));
}

void ucx_endpoint::on_error(void* self, ucp_ep_h, ucs_status_t status) {
  static_cast<ucx_endpoint*>(self)->note(status);
}

void ucx_endpoint::on_over(void* request, ucs_status_t status, void* what) {
  std::unique_ptr<record> mine{static_cast<record*>(what)};
  --mine->of->under_way_;
  mine->of->note(status);
  mine->end(status);
  ucp_request_free(request);
}

void ucx_endpoint::send_record(std::unique_ptr<record> what, unsigned kind, unsigned flags) {
  if (closing_ || broken()) {
    what->end(UCS_ERR_CANCELED);
    return;
  }
  ucp_request_param_t param{};
  param.op_attr_mask
    = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.cb.send = on_over;
  param.user_data = what.get();
  param.flags = flags;
  void* data = nullptr;
  std::size_t count = 0;
  if (!what->pieces.empty())
    describe(param, what->pieces, data, count);
  auto sent
    = ucp_am_send_nbx(handle_, kind, what->header.data(), what->header.size(), data, count, &param);
  if (UCS_PTR_IS_PTR(sent)) {
    ++under_way_;
    what.release(); // on_over takes it back
    return;
  }
  note(UCS_PTR_STATUS(sent));
  what->end(UCS_PTR_STATUS(sent));
}

void ucx_endpoint::send(std::vector<std::byte> header, bool reply) {
  auto what = std::make_unique<record>();
  what->of = this;
  what->header = std::move(header);
  send_record(
    std::move(what), control_message,
    UCP_AM_SEND_FLAG_EAGER | (reply ? unsigned{UCP_AM_SEND_FLAG_REPLY} : 0u));
}

void ucx_endpoint::send_chunk(
  std::vector<std::byte> header, std::vector<ucp_dt_iov_t> pieces, bool rendezvous,
  std::shared_ptr<bool> noted) {
  auto what = std::make_unique<record>();
  what->of = this;
  what->header = std::move(header);
  what->pieces = std::move(pieces);
  what->noted = std::move(noted);
  send_record(
    std::move(what), chunk_message, rendezvous ? UCP_AM_SEND_FLAG_RNDV : UCP_AM_SEND_FLAG_EAGER);
}

void ucx_endpoint::receive(
  ucp_worker_h worker, void* descriptor, std::vector<ucp_dt_iov_t> pieces,
  std::function<void(ucs_status_t)> call) {
  auto what = std::make_unique<record>();
  what->of = this;
  what->pieces = std::move(pieces);
  what->call = std::move(call);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.cb.recv_am = [](void* request, ucs_status_t status, std::size_t, void* record) {
    on_over(request, status, record);
  };
  param.user_data = what.get();
  void* data = nullptr;
  std::size_t count = 0;
  describe(param, what->pieces, data, count);
  auto got = ucp_am_recv_data_nbx(worker, descriptor, data, count, &param);
  if (UCS_PTR_IS_PTR(got)) {
    ++under_way_;
    what.release(); // on_over takes it back
    return;
  }
  note(UCS_PTR_STATUS(got));
  what->end(UCS_PTR_STATUS(got));
}

void ucx_endpoint::close() {
  if (closing_)
    return;
  closing_ = true;
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_EP_CLOSE_FLAG_FORCE;
  close_request_ = ucp_ep_close_nbx(handle_, &param);
}

bool ucx_endpoint::closed() {
  if (!closing_)
    return false;
  if (UCS_PTR_IS_PTR(close_request_)) {
    if (ucp_request_check_status(close_request_) == UCS_INPROGRESS)
      return false;
    ucp_request_free(close_request_);
    close_request_ = nullptr;
  }
  return under_way_ == 0;
}

} // namespace llumnix::ucx
