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

void ucx_source::accept(time_point now) {
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
      on(found->second, x);
    },
    what);
}

template <class T>
void ucx_source::on(link& from, const T&) {
  from.end->close();
}

void ucx_source::on(link& from, const hello& x) {
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

void ucx_source::on(link& from, const answer& x) {
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
  if (from.sends.size() + from.leases.size() >= reads_max) {
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

void ucx_source::on(link& from, const read_request& x) {
  memory_table::readable got;
  if (!begin(from, x.request, x.key, x.region, got))
    return;
  std::vector<ucp_dt_iov_t> pieces;
  std::uint64_t bytes = 0;
  for (const auto& piece : x.pieces) {
    if (piece.bytes > got.memory.size() || piece.at > got.memory.size() - piece.bytes)
      return deny(from, x.request, errc::invalid_argument);
    pieces.push_back({got.memory.data() + piece.at, piece.bytes});
    bytes += piece.bytes;
  }
  chunk_header header{from.client_link, x.request, 0};
  if (x.checksum)
    header.checksum = checksum_of(got.memory, x.pieces);
  auto sent = std::make_shared<bool>(false);
  from.sends.push_back({x.key, x.region, bytes, sent, std::move(got.under)});
  from.end->send_chunk(encode(header), std::move(pieces), bytes >= rendezvous_min, sent);
}

void ucx_source::on(link& from, const lease_request& x) {
  memory_table::readable got;
  if (!begin(from, x.request, x.key, x.region, got))
    return;
  if (!settings_.same_host || from.leases.contains(x.request))
    return deny(from, x.request, errc::unsupported);
  from.end->send(encode(lease_grant{
    from.client_link, x.request, static_cast<std::uint32_t>(::getpid()),
    reinterpret_cast<std::uintptr_t>(got.memory.data()), got.memory.size(),
    reinterpret_cast<std::uintptr_t>(&secret_), secret_}));
  from.leases.emplace(x.request, reading{x.key, x.region, 0, nullptr, std::move(got.under)});
}

void ucx_source::on(link& from, const lease_return& x) {
  if (from.leases.erase(x.request) == 0)
    return;
  counters_.bytes_out += x.bytes;
  from.end->send(encode(lease_end{from.client_link, x.request}));
}

void ucx_source::on(link& from, const ping&) {
  from.end->send(encode(pong{from.client_link}));
}

template <class Which>
void ucx_source::cut_readers(Which which, time_point at) {
  for (auto& [id, one] : links_) {
    auto reads = std::ranges::any_of(one.sends, which)
                 || std::ranges::any_of(one.leases, [&](auto& x) { return which(x.second); });
    if (reads)
      one.cut_at = std::min(one.cut_at, at);
  }
}

void ucx_source::closing(const handover_id& key, time_point now) {
  cut_readers([&](const reading& x) { return x.key == key; }, now + settings_.quiesce_within);
}

void ucx_source::forgetting(
  kv_transport::region_id region, time_point now, std::function<void()> gone) {
  cut_readers([&](const reading& x) { return x.region == region; }, now + settings_.quiesce_within);
  forgetting_.emplace_back(region, std::move(gone));
}

bool ucx_source::anybody_reads(kv_transport::region_id region) const {
  auto reads = [&](const reading& x) { return x.region == region; };
  return std::ranges::any_of(links_, [&](const auto& one) {
    return std::ranges::any_of(one.second.sends, reads)
           || std::ranges::any_of(
             one.second.leases, [&](const auto& x) { return reads(x.second); });
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
  auto reads = !one.sends.empty() || !one.leases.empty();
  if (!reads)
    one.cut_at = time_point::max();
  auto late = (!one.proven && now - one.opened > settings_.connect_within)
              || (reads && now - one.heard > settings_.silence_max) || now >= one.cut_at;
  if (one.end->broken() || late || stopping_)
    one.end->close();
  if (!one.end->closed())
    return true;
  // UCX has let go of what was being sent. What a cut-off process may still read by itself does no
  // harm here, and its job cannot end well without our word.
  return false;
}

bool ucx_source::work(time_point now) {
  auto moved = !knocking_.empty() || !inbox_.empty();
  accept(now);
  for (auto& [what, reply] : std::exchange(inbox_, {}))
    handle(what, reply, now);
  for (auto at = links_.begin(); at != links_.end();) {
    auto stays = sweep(at->second, now);
    moved |= !stays;
    at = stays ? std::next(at) : links_.erase(at);
  }
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
  auto at = time_point::max();
  for (const auto& [id, one] : links_) {
    if (!one.proven)
      at = std::min(at, one.opened + settings_.connect_within);
    if (!one.sends.empty() || !one.leases.empty())
      at = std::min({at, one.heard + settings_.silence_max, one.cut_at});
  }
  return at;
}

bool ucx_source::busy() const {
  return std::ranges::any_of(links_, [](const auto& x) {
    const auto& one = x.second;
    return !one.proven || !one.sends.empty() || !one.leases.empty() || one.end->closing();
  });
}

void ucx_source::stop() {
  stopping_ = true;
}

void ucx_source::stood_still(nanoseconds gap) {
  for (auto& [id, one] : links_) {
    one.heard += gap;
    one.opened += gap;
  }
}

} // namespace llumnix::ucx
