#include "transport/ucx/ucx_transport.hpp"

#include "runtime/base/log.hpp"
#include "transport/memory_table.hpp"
#include "transport/span_list.hpp"
#include "transport/ucx/ucx_destination.hpp"
#include "transport/ucx/ucx_door.hpp"
#include "transport/ucx/ucx_source.hpp"
#include "transport/ucx/ucx_thread.hpp"

#include <algorithm>
#include <future>
#include <iterator>
#include <mutex>
#include <set>
#include <sys/mman.h>
#include <utility>

namespace llumnix {

namespace ucx {
namespace {

constexpr log::logger kv_log{"kv"};
constexpr nanoseconds deadline_max = std::chrono::hours{24};
/// A turn that comes so much later than the last one: the process stood still.
constexpr nanoseconds standstill = std::chrono::milliseconds{200};

/// Reading another process's memory costs per page: half as much again as the copy with small ones.
/// Pages touched before stay as they are.
void wish_for_huge_pages(std::span<std::byte> memory) {
  constexpr std::uintptr_t huge = 2 << 20;
  auto first = (reinterpret_cast<std::uintptr_t>(memory.data()) + huge - 1) / huge * huge;
  auto last = reinterpret_cast<std::uintptr_t>(memory.data() + memory.size()) / huge * huge;
  if (first < last)
    ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
}

class ucx_transport final : public kv_transport {
public:
  explicit ucx_transport(const ucx_settings& settings)
    : settings_{settings},
      door_{settings_, life_, watch_, lanes_},
      source_{settings_, memory_, counters_, life_},
      destination_{settings_, counters_, watch_, lanes_} {}

  ~ucx_transport() override {
    thread_.post([this] {
      auto now = std::chrono::steady_clock::now();
      door_.close();
      destination_.stop(now);
      source_.stop(now);
    });
    thread_.stop();
  }

  result<void> start(const sockaddr_storage& where, const std::string& device) {
    if (auto made = make_context(device, where.ss_family == AF_INET6))
      context_ = std::move(*made);
    else
      return std::move(made).error();
    auto others = listening_sockets(where.ss_family);
    if (auto made = make_worker(context_))
      worker_ = std::move(*made);
    else
      return std::move(made).error();
    shut_lanes(others, listening_sockets(where.ss_family));
    if (auto taken = take_messages(); !taken)
      return taken;
    auto knock = [](ucp_conn_request_h request, void* self) {
      auto& us = *static_cast<ucx_transport*>(self);
      if (auto who = client_of(request))
        us.door_.came(*who);
      us.source_.on_connection(request);
    };
    if (auto watched = watch_.open(); !watched)
      return watched;
    if (auto opened = door_.open(where); !opened)
      return std::move(opened).error().while_doing(settings_.listen);
    auto behind = *socket_address(settings_.listen, 0);
    if (auto made = make_listener(worker_, behind, knock, this))
      listener_ = std::move(*made);
    else
      return std::move(made).error().while_doing(settings_.listen);
    if (auto listens = address_of(listener_))
      door_.lead_to(*listens);
    else
      return std::move(listens).error();
    self_ = {settings_.listen, door_.port(), life_, host_tag()};
    source_.use(worker_.get(), listener_.get());
    destination_.use(worker_.get());
    return thread_.start(
      worker_.get(), watch_.descriptor(),
      {[this](time_point now) { return work(now); },
       [this] {
         return std::min(
           {lanes_.wake_at(), door_.wake_at(), source_.wake_at(), destination_.wake_at()});
       },
       [this] { return source_.busy() || destination_.busy(); },
       [this] { return source_.copying() || destination_.copying(); },
       [this] { return source_.stopped() && destination_.stopped(); }},
      settings_.spin);
  }

  result<region_id> add_region(kv_memory memory) override {
    if (auto valid = memory_table::check(memory); !valid)
      return std::move(valid).error();
    if (memory.device)
      if (auto made = make_staging(memory.device); !made)
        return std::move(made).error();
    auto made = memory_.add(memory);
    if (made && settings_.same_host && !memory.device)
      wish_for_huge_pages(memory.bytes);
    return made;
  }

  void forget(region_id region) override {
    if (!memory_.find(region))
      return;
    memory_.remove(region);
    auto unread = std::make_shared<std::promise<void>>();
    auto unwritten = std::make_shared<std::promise<void>>();
    thread_.post([=, this] {
      auto now = std::chrono::steady_clock::now();
      source_.forgetting(region, now, [=] { unread->set_value(); });
      destination_.forgetting(region, now, [=] { unwritten->set_value(); });
    });
    unread->get_future().wait();
    unwritten->get_future().wait();
  }

  std::string address(region_id region) const override { return to_string({self_, region}); }

  void open_window(region_id region, const handover_id& key) override { memory_.open(region, key); }

  void close_window(const handover_id& key, std::function<void()> closed) override {
    memory_.close(key, std::move(closed));
    thread_.post([this, key] { source_.closing(key, std::chrono::steady_clock::now()); });
  }

  job_id pull(
    const std::string& from, const handover_id& key, region_id into, std::vector<kv_span> spans,
    nanoseconds deadline, std::function<void(outcome)> done) override {
    auto id = ++last_job_;
    ++counters_.jobs;
    auto now = std::chrono::steady_clock::now();
    auto where = parse_address(from);
    auto memory = memory_.find(into);
    error why{errc::ok, {}};
    if (!where)
      why = {errc::invalid_argument, "no KV address: " + from};
    else if (!memory || !within(spans, UINT64_MAX, memory->bytes.size()))
      why = {errc::invalid_argument, "spans out of the own region"};
    else if (deadline <= nanoseconds{0})
      why = {errc::timeout, "no time left"};
    else if (live_jobs_.fetch_add(1) >= settings_.jobs_max) {
      --live_jobs_;
      why = {errc::queue_full, "too many KV jobs at once"};
    }
    if (why.code != errc::ok) {
      ++counters_.failed;
      done({std::move(why), 0});
      return id;
    }
    auto finished = [this, done = std::move(done)](outcome how) {
      --live_jobs_;
      done(std::move(how));
    };
    pull_order order{
      id,
      std::move(*where),
      key,
      into,
      std::move(*memory),
      std::move(spans),
      now + std::min(deadline, deadline_max),
      std::move(finished)};
    thread_.post([this, order = std::move(order)]() mutable { begin(std::move(order)); });
    return id;
  }

  void cancel(job_id job) override {
    thread_.post([this, job] { destination_.cancel(job, std::chrono::steady_clock::now()); });
  }

  kv_transport_counters counters() const override { return counters_.read(); }

private:
  /// With a device's first region: room for the largest chunk there can be, or some of ours, out of
  /// its memory and as much into it. Neither direction waits for the other.
  result<void> make_staging(const std::shared_ptr<kv_device>& device) {
    std::lock_guard lock{devices_mutex_};
    if (devices_.contains(device))
      return {};
    auto out = device->make_staging(chunk_bytes_max);
    if (!out)
      return std::move(out).error();
    auto in = device->make_staging(chunk_bytes_max);
    if (!in)
      return std::move(in).error();
    std::promise<result<void>> taken;
    thread_.post([&] { // which alone may use the context
      auto both = ucx_staging::make(context_.get(), std::move(*out), chunk_bytes_max);
      auto other = ucx_staging::make(context_.get(), std::move(*in), chunk_bytes_max);
      if (!both || !other)
        return taken.set_value(both ? other.error() : both.error());
      source_.use(device, std::move(*both));
      destination_.use(device, std::move(*other));
      taken.set_value({});
    });
    auto how = taken.get_future().get();
    if (how)
      devices_.insert(device);
    return how;
  }

  /// On the thread, where `forget` has either not come by yet or has gone by.
  void begin(pull_order order) {
    auto now = std::chrono::steady_clock::now();
    auto id = order.id;
    auto there = memory_.find(order.into).has_value();
    destination_.start(std::move(order), now);
    if (!there)
      destination_.cancel(id, now);
  }

  /// The worker has just begun to listen for data connections, and does not tell where. Over several
  /// devices they come from addresses that nobody told, so there all may come.
  void shut_lanes(const std::set<int>& before, const std::set<int>& after) {
    std::vector<int> fresh;
    std::ranges::set_difference(after, before, std::back_inserter(fresh));
    if (fresh.empty()) // as over other networks than TCP's
      return;
    auto shut = fresh.size() == 1 ? lanes_.shut(fresh.front())
                                  : error{errc::internal, "UCX listens at several devices"};
    if (!shut)
      kv_log.warn(
        "gate",
        "strangers can reach UCX's data connections, and write to this process's memory there: {}",
        shut.error().context);
  }

  bool work(time_point now) {
    lanes_.work(now);
    if (auto gap = now - last_turn_; last_turn_ != time_point{} && gap > standstill) {
      source_.stood_still(gap);
      destination_.stood_still(gap);
    }
    last_turn_ = now;
    auto moved = door_.work(now);
    moved |= source_.work(now);
    return destination_.work(now) || moved;
  }

  result<void> take_messages() {
    for (auto [kind, call] :
         {std::pair{control_message, &on_control}, std::pair{chunk_message, &on_chunk}}) {
      ucp_am_handler_param_t param{};
      param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS
                         | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
      param.id = kind;
      param.flags = UCP_AM_FLAG_WHOLE_MSG;
      param.cb = call;
      param.arg = this;
      auto status = ucp_worker_set_am_recv_handler(worker_.get(), &param);
      if (status != UCS_OK)
        return failure(status, "take UCX messages");
    }
    return {};
  }

  static ucs_status_t on_control(
    void* arg, const void* header, std::size_t bytes, void*, std::size_t,
    const ucp_am_recv_param_t* param) {
    auto* self = static_cast<ucx_transport*>(arg);
    auto what = decode({static_cast<const std::byte*>(header), bytes});
    if (!what)
      return UCS_OK; // whoever does not speak our language gets no answer
    auto reply
      = (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0 ? param->reply_ep : nullptr;
    auto for_source = std::visit(
      [](const auto& x) {
        using type = std::remove_cvref_t<decltype(x)>;
        return std::is_same_v<type, hello> || !requires {
          x.client_link;
        };
      },
      *what);
    if (for_source)
      self->source_.on_message(std::move(*what), reply);
    else
      self->destination_.on_message(std::move(*what));
    return UCS_OK;
  }

  static ucs_status_t on_chunk(
    void* arg, const void* header, std::size_t header_bytes, void* data, std::size_t bytes,
    const ucp_am_recv_param_t* param) {
    auto what = decode({static_cast<const std::byte*>(header), header_bytes});
    if (!what || !std::holds_alternative<chunk_header>(*what))
      return UCS_OK;
    return static_cast<ucx_transport*>(arg)->destination_.on_chunk(
      std::get<chunk_header>(*what), data, bytes,
      (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0);
  }

  const ucx_settings settings_;
  const token life_ = random_token();
  memory_table memory_;
  shared_counters counters_;
  std::mutex devices_mutex_;
  std::set<std::shared_ptr<kv_device>> devices_; ///< that have their staging
  std::atomic<job_id> last_job_{0};
  std::atomic<std::size_t> live_jobs_{0};
  peer self_;
  time_point last_turn_{};
  // In the order of their making; UCX's objects go last, after the thread and all endpoints.
  context context_;
  worker worker_;
  listener listener_;
  socket_watch watch_;
  ucx_gate lanes_;
  ucx_door door_;
  ucx_source source_;
  ucx_destination destination_;
  ucx_thread thread_;
};

error check(const ucx_settings& x, const sockaddr_storage& where) {
  if (x.cluster_key.empty() && !x.insecure && !is_loopback(where))
    return {
      errc::invalid_argument,
      "a KV listener off loopback (" + x.listen + ") wants a cluster key, or to be told insecure"};
  if (
    x.chunk_bytes == 0 || x.chunk_bytes > chunk_bytes_max || x.chunk_spans == 0
    || x.chunk_spans > pieces_max || x.chunks_in_flight == 0 || x.chunks_in_flight > 64
    || x.peers_max == 0 || x.jobs_max == 0)
    return {errc::invalid_argument, "KV transport: a number out of its range"};
  return {errc::ok, {}};
}

} // namespace
} // namespace ucx

bool ucx_built_in() {
  return true;
}

result<std::unique_ptr<kv_transport>> make_ucx_transport(const ucx_settings& settings) {
  auto where = ucx::socket_address(settings.listen, settings.port);
  if (!where)
    return error{errc::invalid_argument, "no address to listen on: " + settings.listen};
  if (auto why = ucx::check(settings, *where); why.code != errc::ok)
    return why;
  auto device = ucx::device_of(*where);
  if (device.empty() && ucx::is_loopback(*where))
    device = "lo"; // 127.0.0.2 stands at no device
  if (device.empty())
    return error{errc::invalid_argument, "not an address of this machine: " + settings.listen};
  auto made = std::make_unique<ucx::ucx_transport>(settings);
  if (auto started = made->start(*where, device); !started)
    return std::move(started).error();
  return std::unique_ptr<kv_transport>{std::move(made)};
}

} // namespace llumnix
