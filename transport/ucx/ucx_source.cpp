#include "transport/ucx/ucx_source.hpp"

#include "runtime/base/log.hpp"
#include "transport/ucx/ucx_greeting.hpp"

#include <algorithm>
#include <unistd.h>

namespace llumnix::ucx {

namespace {

constexpr log::logger kv_log{"kv"};
/// Below, bytes travel with their announcement: two copies cost less than three more messages.
constexpr std::uint64_t rendezvous_min = 32 << 10;
constexpr std::size_t reads_max = 64; ///< of one peer at once; ours ask for fewer
// A connection that UCX has taken and not told us of yet must not outlive its listener: what comes
// on it would be told to one that is freed (1.13). Its first bytes follow within microseconds.
constexpr nanoseconds quiet_before_end = std::chrono::milliseconds{20};

} // namespace

ucx_source::ucx_source(
  const ucx_settings& settings, memory_table& memory, shared_counters& counters, token life)
  : settings_{settings},
    memory_{memory},
    counters_{counters},
    life_{life},
    secret_{random_token()} {}

void ucx_source::use(ucp_worker_h worker, ucp_listener_h listener) {
  worker_ = worker;
  listener_ = listener;
}

peer_times ucx_source::link::times() const {
  peer_times x{end->closing(), proven, reads(), opened, heard, time_point::max()};
  for (const auto& one : sends)
    x.cut_at = std::min(x.cut_at, one.cut_at);
  for (const auto& [request, one] : leases)
    x.cut_at = std::min(x.cut_at, one.cut_at);
  return x;
}

template <class Call>
void ucx_source::link::each_open(Call call) {
  for (auto& one : sends)
    call(one);
  for (auto& [request, one] : leases)
    call(one);
}

void ucx_source::accept(time_point now) {
  if (stopping_ && !knocking_.empty())
    quiet_at_ = now + quiet_before_end;
  for (auto request : std::exchange(knocking_, {})) {
    if (stopping_ || links_.size() >= settings_.peers_max) {
      ucp_listener_reject(listener_, request);
      continue;
    }
    auto end = ucx_endpoint::accept(worker_, request);
    if (!end)
      continue;
    link made;
    made.id = random_token().low;
    made.end = std::move(*end);
    made.opened = made.heard = now;
    links_.emplace(made.id, std::move(made));
  }
}

void ucx_source::handle(message& what, ucp_ep_h reply, time_point now) {
  std::visit(
    [&](auto& x) {
      using type = std::remove_reference_t<decltype(x)>;
      auto found = links_.end();
      if constexpr (std::is_same_v<type, hello>)
        found = std::ranges::find_if(
          links_, [&](const auto& y) { return y.second.end->handle() == reply; });
      else if constexpr (requires { x.server_link; })
        found = links_.find(x.server_link);
      if (found == links_.end() || found->second.end->closing())
        return;
      found->second.heard = now;
      on(found->second, x, now);
    },
    what);
}

template <class T>
void ucx_source::on(link& from, const T&, time_point) {
  from.end->close();
}

void ucx_source::on(link& from, const hello& x, time_point) {
  if (from.client_link != 0) {
    from.end->close();
    return;
  }
  from.client_link = x.client_link;
  if (x.wanted != life_) {
    from.end->send(encode(refusal{x.client_link, errc::unreachable}));
    return; // the deadline of greetings closes it, unless the peer does
  }
  from.client_nonce = x.nonce;
  from.server_nonce = random_token();
  from.end->send(encode(challenge{
    x.client_link, from.id, from.server_nonce,
    prove(settings_.cluster_key, server_role, x.nonce, from.server_nonce, life_)}));
}

void ucx_source::on(link& from, const answer& x, time_point) {
  auto wanted
    = prove(settings_.cluster_key, client_role, from.client_nonce, from.server_nonce, life_);
  if (from.proven || !same(x.of, wanted)) {
    kv_log.warn("stranger", "a peer that does not know the cluster's key was turned away");
    from.end->close();
    return;
  }
  from.proven = true;
  from.end->send(encode(welcome{from.client_link}));
}

void ucx_source::deny(link& from, std::uint64_t request, errc why) {
  ++counters_.refused;
  from.end->send(encode(denial{from.client_link, request, why}));
}

bool ucx_source::begin(
  link& from, std::uint64_t request, const handover_id& key, kv_transport::region_id region,
  memory_table::readable& got) {
  if (!from.proven) {
    from.end->close();
    return false;
  }
  if (from.sends.size() + from.gathers.size() + from.leases.size() >= reads_max) {
    deny(from, request, errc::queue_full);
    return false;
  }
  auto readable = memory_.begin_read(region, key);
  if (!readable) {
    deny(from, request, errc::stale);
    return false;
  }
  got = std::move(*readable);
  return true;
}

void ucx_source::on(link& from, const read_request& x, time_point now) {
  memory_table::readable got;
  if (!begin(from, x.request, x.key, x.region, got))
    return;
  if (!within(x.pieces, got.memory.bytes.size(), chunk_bytes_max))
    return deny(from, x.request, errc::invalid_argument);
  if (got.memory.device)
    return read_device(from, x, std::move(got));
  std::vector<ucp_dt_iov_t> pieces;
  for (const auto& piece : x.pieces)
    pieces.push_back({got.memory.bytes.data() + piece.at, piece.bytes});
  chunk_header header{from.client_link, x.request, 0};
  if (x.checksum)
    header.checksum = checksum_of(got.memory.bytes, x.pieces);
  reading what{x.key, x.region, bytes_of(x.pieces), nullptr, std::move(got.under)};
  send(from, header, std::move(pieces), std::move(what), now);
}

/// From here on the peer has its time to take the bytes.
void ucx_source::send(
  link& to, chunk_header header, std::vector<ucp_dt_iov_t> pieces, reading what, time_point now) {
  auto sent = what.sent = std::make_shared<bool>(false);
  auto bytes = what.bytes;
  what.cut_at = now + settings_.taken_within;
  to.sends.push_back(std::move(what));
  to.end->send_chunk(encode(header), std::move(pieces), bytes >= rendezvous_min, sent);
}

void ucx_source::on(link& from, const lease_request& x, time_point) {
  memory_table::readable got;
  if (!begin(from, x.request, x.key, x.region, got))
    return;
  if (!settings_.same_host || from.leases.contains(x.request))
    return deny(from, x.request, errc::unsupported);
  if (got.memory.device)
    return deny(from, x.request, errc::invalid_argument);
  from.end->send(encode(lease_grant{
    from.client_link, x.request, static_cast<std::uint32_t>(::getpid()),
    reinterpret_cast<std::uintptr_t>(got.memory.bytes.data()), got.memory.bytes.size(),
    reinterpret_cast<std::uintptr_t>(&secret_), secret_}));
  from.leases.emplace(x.request, reading{x.key, x.region, 0, nullptr, std::move(got.under)});
}

void ucx_source::on(link& from, const lease_return& x, time_point) {
  if (from.leases.erase(x.request) == 0)
    return;
  counters_.bytes_out += x.bytes;
  from.end->send(encode(lease_end{from.client_link, x.request}));
}

void ucx_source::on(link& from, const ping&, time_point) {
  from.end->send(encode(pong{from.client_link}));
}

template <class Which>
bool ucx_source::reads(const link& one, Which which) {
  return std::ranges::any_of(one.sends, [&](const auto& x) { return x.under && which(x); })
         || std::ranges::any_of(one.gathers, [&](const auto& x) { return which(x.what); })
         || std::ranges::any_of(one.leases, [&](const auto& x) { return which(x.second); });
}

/// Only what waits for a peer: a device's copy ends by itself, and what it has copied reads no
/// more.
template <class Which>
void ucx_source::cut_readers(Which which, time_point at) {
  for (auto& [id, one] : links_)
    one.each_open([&](reading& x) {
      if (x.under && which(x))
        x.cut_at = std::min(x.cut_at, at);
    });
}

void ucx_source::closing(const handover_id& key, time_point now) {
  auto under = [&](const reading& x) { return x.key == key; };
  drop_waiting(under);
  cut_readers(under, now + settings_.quiesce_within);
}

void ucx_source::forgetting(
  kv_transport::region_id region, time_point now, std::function<void()> gone) {
  auto of = [&](const reading& x) { return x.region == region; };
  drop_waiting(of);
  cut_readers(of, now + settings_.quiesce_within);
  forgetting_.emplace_back(region, std::move(gone));
}

bool ucx_source::anybody_reads(kv_transport::region_id region) const {
  return std::ranges::any_of(links_, [&](const auto& one) {
    return reads(one.second, [&](const reading& x) { return x.region == region; });
  });
}

/// What has happened to a connection; false once it is over.
bool ucx_source::sweep(link& one, time_point now) {
  std::erase_if(one.sends, [&](const reading& x) {
    if (!*x.sent)
      return false;
    one.heard = now;
    if (!one.end->broken())
      counters_.bytes_out += x.bytes;
    return true;
  });
  if (one.end->broken() || now >= cut_off_at(one.times(), settings_) || stopping_)
    one.end->close();
  if (!one.end->closed() || !one.gathers.empty())
    return true;
  // The devices and UCX have let go of what was being read. What a cut-off process may still read
  // by itself does no harm here, and its job cannot end well without our word.
  return false;
}

bool ucx_source::work(time_point now) {
  auto moved = !knocking_.empty() || !inbox_.empty();
  accept(now);
  quiet_ = now >= quiet_at_;
  for (auto& [what, reply] : std::exchange(inbox_, {}))
    handle(what, reply, now);
  for (auto at = links_.begin(); at != links_.end();) {
    moved |= finish_gathers(at->second, now);
    auto stays = sweep(at->second, now);
    moved |= !stays;
    at = stays ? std::next(at) : links_.erase(at);
  }
  for (auto& [device, out] : outlets_)
    begin_gathers(device, out);
  std::list<std::pair<kv_transport::region_id, std::function<void()>>> gone;
  for (auto at = forgetting_.begin(); at != forgetting_.end();) {
    auto next = std::next(at);
    if (!anybody_reads(at->first))
      gone.splice(gone.end(), forgetting_, at);
    at = next;
  }
  for (auto& [region, call] : gone)
    call();
  return moved;
}

time_point ucx_source::wake_at() const {
  auto at = quiet_ ? time_point::max() : quiet_at_;
  for (const auto& [id, one] : links_)
    at = std::min(at, cut_off_at(one.times(), settings_));
  return at;
}

bool ucx_source::busy() const {
  return std::ranges::any_of(links_, [](const auto& x) {
    const auto& one = x.second;
    return !one.proven || one.reads() || one.end->closing();
  });
}

void ucx_source::stop(time_point now) {
  stopping_ = true;
  quiet_at_ = now + quiet_before_end;
}

void ucx_source::stood_still(nanoseconds gap) {
  for (auto& [id, one] : links_) {
    one.heard += gap;
    one.opened += gap;
    one.each_open([&](reading& x) {
      if (x.cut_at != time_point::max())
        x.cut_at += gap;
    });
  }
}

} // namespace llumnix::ucx
