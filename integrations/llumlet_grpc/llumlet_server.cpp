#include "integrations/llumlet_grpc/llumlet_server.hpp"

#include "config/load_config.hpp"
#include "llumlet.grpc.pb.h"
#include "net/http_message.hpp"
#include "runtime/base/log.hpp"

#include <algorithm>
#include <atomic>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

namespace llumnix {

namespace {

using std::chrono::milliseconds;
using steady = std::chrono::steady_clock;

constexpr std::size_t quota_bytes = 64 * 1024 * 1024;
constexpr int metadata_bytes_max = 8 * 1024;
constexpr int streams_max = 256;             ///< calls of one connection at a time
constexpr int keepalive_ms = 30'000;         ///< a peer that is silent is asked
constexpr int keepalive_timeout_ms = 10'000; ///< and gone when it does not answer
constexpr int idle_ms = 600'000;             ///< connections without a call
constexpr int greeting_ms = 10'000;          ///< of a connection; after it who says nothing is gone

/// gRPC's own talk; what matters of it is an answer or an error of ours, too.
void write_down(gpr_log_func_args* line) {
  log::llumlet.debug("grpc", "{}", line->message);
}

grpc::Status status_of(const call_reply& reply) {
  return reply.code == call_code::ok
           ? grpc::Status::OK
           : grpc::Status{static_cast<grpc::StatusCode>(reply.code), reply.message};
}

std::string text(grpc::string_ref x) {
  return {x.data(), x.size()};
}

std::string metadata(const grpc::CallbackServerContext& context, const char* name) {
  auto found = context.client_metadata().find(name);
  return found == context.client_metadata().end() ? std::string{} : text(found->second);
}

/// When a caller wants its answer: a little before it stops waiting for it.
time_point due_of(const grpc::CallbackServerContext& context, milliseconds limit) {
  auto left = std::chrono::duration_cast<nanoseconds>(limit);
  auto now = std::chrono::system_clock::now();
  if (context.deadline() - limit < now) {
    auto own = std::max<nanoseconds>(context.deadline() - now, nanoseconds{0});
    left = own - std::min<nanoseconds>(own / 10, milliseconds{50});
  }
  return steady::now() + left;
}

migrate_call read(const llumlet::MigrateRequest& x) {
  migrate_call call;
  call.source = x.src_engine_id();
  call.destination = x.dst_engine_id();
  call.destination_ip = x.dst_engine_ip();
  call.destination_port = x.dst_engine_port();
  call.type = x.migration_type();
  call.order = x.migration_req_policy();
  call.trigger = x.trigger_policy();
  switch (x.migration_value_case()) {
    case llumlet::MigrateRequest::kNumReqs:
      call.wanted = {{selection_rule::requests, static_cast<double>(x.num_reqs())}};
      break;
    case llumlet::MigrateRequest::kNumTokens:
      call.wanted = {{selection_rule::tokens, static_cast<double>(x.num_tokens())}};
      break;
    case llumlet::MigrateRequest::kKvCacheUsageRatio:
      call.wanted = {{selection_rule::kv_ratio, static_cast<double>(x.kv_cache_usage_ratio())}};
      break;
    case llumlet::MigrateRequest::MIGRATION_VALUE_NOT_SET: break;
  }
  return call;
}

abort_call read(const llumlet::AbortRequests& x) {
  return {{x.request_ids().begin(), x.request_ids().end()}};
}

class grpc_server;

/// A call under way, and gRPC's end of it. Whoever ends it first does; it stays until gRPC has done
/// with it and its handler has let go of it.
class open_call final : public grpc::ServerUnaryReactor {
public:
  /// Writes the answer down where gRPC wants it.
  using write = std::function<void(const call_reply&)>;
  open_call(grpc_server& server, std::uint64_t number, write down)
    : server_{server}, number_{number}, write_{std::move(down)} {}

  void end(const call_reply& reply);
  const std::atomic<bool>& withdrawn() const { return withdrawn_; }

  /// The caller waits no longer. gRPC calls this and the next once it has got us, not before.
  void OnCancel() override {
    withdrawn_ = true;
    end({call_code::cancelled, false, "the caller went away"});
  }
  void OnDone() override;

private:
  grpc_server& server_; ///< as long as it has not ended
  std::uint64_t number_;
  write write_;
  std::atomic<bool> ended_{false};
  std::atomic<bool> withdrawn_{false};
};

/// What a handler is given to answer with; the last copy of it sees to it that somebody does.
class last_word {
public:
  explicit last_word(std::shared_ptr<open_call> call) : call_{std::move(call)} {}
  ~last_word() { call_->end({call_code::unavailable, false, "the llumlet ended meanwhile"}); }
  last_word(const last_word&) = delete;
  last_word& operator=(const last_word&) = delete;
  void say(const call_reply& reply) { call_->end(reply); }

private:
  std::shared_ptr<open_call> call_;
};

class grpc_server final : public llumlet_server, private llumlet::Llumlet::CallbackService {
public:
  grpc_server(const llumlet_server_options& options, handler handle)
    : options_{options}, handle_{std::move(handle)} {}
  ~grpc_server() override { stop(milliseconds{0}); }

  result<void> listen();
  const std::string& address() const override { return address_; }
  llumlet_server_counters counters() const override;
  void refuse() override {
    std::lock_guard guard{mutex_};
    refuses_ = true;
  }
  void stop(milliseconds grace) override;

  void count(call_code code) { ++ended_[static_cast<std::size_t>(code)]; }
  void forget(std::uint64_t number);

private:
  grpc::ServerUnaryReactor* Migrate(
    grpc::CallbackServerContext* context, const llumlet::MigrateRequest* request,
    llumlet::MigrateResponse* response) override {
    ++migrate_calls_;
    return take(context, *request, response);
  }
  grpc::ServerUnaryReactor* Abort(
    grpc::CallbackServerContext* context, const llumlet::AbortRequests* request,
    llumlet::AbortResponse* response) override {
    ++abort_calls_;
    return take(context, *request, response);
  }
  grpc::ServerUnaryReactor* MigrateIn(
    grpc::CallbackServerContext* context, const llumlet::MigrateInRequest*,
    llumlet::MigrateInResponse*) override {
    return unimplemented(
      context, "requests come in by hand-overs between llumlets, and what engines of other makes "
               "serialize is not read; call Migrate at the source");
  }
  grpc::ServerUnaryReactor* AbortMigrateIn(
    grpc::CallbackServerContext* context, const llumlet::AbortMigrateInRequest*,
    llumlet::AbortResponse*) override {
    return unimplemented(
      context, "what a hand-over holds at its destination is let go by its own protocol");
  }
  grpc::ServerUnaryReactor* PushInstanceStatus(
    grpc::CallbackServerContext* context, const cms::InstanceStatus*,
    llumlet::PushInstanceStatusResponse*) override {
    return unimplemented(
      context, "the engine is in this process; the status of another is read from the CMS");
  }

  template <class Request, class Response>
  grpc::ServerUnaryReactor*
  take(grpc::CallbackServerContext* context, const Request& request, Response* response);
  grpc::ServerUnaryReactor* unimplemented(grpc::CallbackServerContext* context, const char* why);
  grpc::ServerUnaryReactor* decline(grpc::CallbackServerContext* context, const call_reply& reply);
  call_reply why_not(const grpc::CallbackServerContext& context) const;
  call_reply why_not_now() const;

  llumlet_server_options options_;
  handler handle_;
  std::string address_;
  std::atomic<std::uint64_t> migrate_calls_{0};
  std::atomic<std::uint64_t> abort_calls_{0};
  std::array<std::atomic<std::uint64_t>, 17> ended_{};
  mutable std::mutex mutex_; ///< guards the next three, so that a call is refused or in the map
  bool refuses_ = false;
  std::map<std::uint64_t, std::shared_ptr<open_call>> open_;
  std::uint64_t last_call_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

void open_call::end(const call_reply& reply) {
  if (ended_.exchange(true))
    return;
  write_(reply);
  server_.count(reply.code);
  Finish(status_of(reply));
}

void open_call::OnDone() {
  server_.forget(number_);
}

result<void> grpc_server::listen() {
  std::string host;
  std::uint16_t port = 0;
  split_address(options_.listen, host, port);
  gpr_set_log_function(write_down);
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
  grpc::ResourceQuota quota{"llumlet"};
  quota.Resize(quota_bytes);
  grpc::ServerBuilder builder;
  int bound = 0;
  builder.AddListeningPort(options_.listen, grpc::InsecureServerCredentials(), &bound);
  builder.RegisterService(this);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(static_cast<int>(options_.message_bytes_max));
  for (auto [name, value] :
       {std::pair{GRPC_ARG_ALLOW_REUSEPORT, 0},
        {GRPC_ARG_MAX_METADATA_SIZE, metadata_bytes_max},
        {GRPC_ARG_MAX_CONCURRENT_STREAMS, streams_max},
        {GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, greeting_ms},
        {GRPC_ARG_KEEPALIVE_TIME_MS, keepalive_ms},
        {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive_timeout_ms},
        {GRPC_ARG_MAX_CONNECTION_IDLE_MS, idle_ms}})
    builder.AddChannelArgument(name, value);
  server_ = builder.BuildAndStart();
  if (!server_ || bound == 0)
    return error{errc::invalid_argument, options_.listen + " cannot be listened on"};
  bool v6 = host.find(':') != std::string::npos;
  address_ = (v6 ? "[" + host + "]" : host) + ":" + std::to_string(bound);
  return {};
}

/// Whether a call may be taken at all; `ok` if it may.
call_reply grpc_server::why_not(const grpc::CallbackServerContext& context) const {
  if (!net::bears_key(metadata(context, "authorization"), options_.key))
    return {
      call_code::unauthenticated, false,
      "this service wants `authorization: Bearer KEY` (llumlet.grpc_key)"};
  if (metadata(context, "llumnix-op-id").size() > call_text_max)
    return {
      call_code::invalid_argument, false,
      "llumnix-op-id has more than " + std::to_string(call_text_max) + " bytes"};
  return {};
}

/// Whether there is a place for it. Under the lock.
call_reply grpc_server::why_not_now() const {
  if (refuses_)
    return {call_code::unavailable, false, "the node stops"};
  if (open_.size() >= options_.calls_max)
    return {
      call_code::resource_exhausted, false,
      std::to_string(options_.calls_max) + " calls are under way already"};
  return {};
}

template <class Request, class Response>
grpc::ServerUnaryReactor* grpc_server::take(
  grpc::CallbackServerContext* context, const Request& request, Response* response) {
  auto refusal = why_not(*context);
  std::unique_lock guard{mutex_};
  if (refusal.code == call_code::ok)
    refusal = why_not_now();
  if (refusal.code != call_code::ok) {
    guard.unlock();
    return decline(context, refusal);
  }
  auto number = ++last_call_;
  auto call = std::make_shared<open_call>(*this, number, [response](const call_reply& reply) {
    response->set_success(reply.success);
    response->set_message(reply.message);
  });
  open_.emplace(number, call); // until `OnDone`
  guard.unlock();
  handle_(
    {read(request),
     metadata(*context, "llumnix-op-id"),
     due_of(*context, options_.call_limit),
     {call, &call->withdrawn()}},
    [word = std::make_shared<last_word>(call)](const call_reply& reply) { word->say(reply); });
  return call.get();
}

grpc::ServerUnaryReactor*
grpc_server::decline(grpc::CallbackServerContext* context, const call_reply& reply) {
  count(reply.code);
  auto* end = context->DefaultReactor();
  end->Finish(status_of(reply));
  return end;
}

grpc::ServerUnaryReactor*
grpc_server::unimplemented(grpc::CallbackServerContext* context, const char* why) {
  return decline(context, {call_code::unimplemented, false, why});
}

void grpc_server::forget(std::uint64_t number) {
  std::unique_lock guard{mutex_};
  auto gone = open_.extract(number);
  guard.unlock(); // its end may be that of the call
}

llumlet_server_counters grpc_server::counters() const {
  llumlet_server_counters x;
  x.migrate_calls = migrate_calls_;
  x.abort_calls = abort_calls_;
  std::ranges::copy(ended_, x.ended.begin());
  std::lock_guard guard{mutex_};
  x.open = open_.size();
  return x;
}

void grpc_server::stop(milliseconds grace) {
  refuse();
  if (!server_)
    return;
  std::map<std::uint64_t, std::shared_ptr<open_call>> open;
  {
    std::lock_guard guard{mutex_};
    open = open_;
  }
  for (auto& [number, call] : open)
    call->end({call_code::unavailable, false, "the node stops; what was chosen goes on"});
  open.clear();
  server_->Shutdown(std::chrono::system_clock::now() + grace);
  server_.reset();
}

} // namespace

result<std::unique_ptr<llumlet_server>>
llumlet_server::make(const llumlet_server_options& options, handler handle) {
  auto made = std::make_unique<grpc_server>(options, std::move(handle));
  if (auto heard = made->listen(); !heard)
    return std::move(heard).error();
  return std::unique_ptr<llumlet_server>{std::move(made)};
}

} // namespace llumnix
