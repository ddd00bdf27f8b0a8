// How the bytes of a job come: chunks asked for, or the source's memory read by ourselves.
#include "runtime/base/log.hpp"
#include "transport/ucx/process_reader.hpp"
#include "transport/ucx/ucx_destination.hpp"

#include <cstring>

namespace llumnix::ucx {

namespace {

constexpr log::logger kv_log{"kv"};
/// A span from this size on is a chunk of its own: UCX moves contiguous bytes without a copy of its
/// own, lists with two. Smaller ones are better off together.
constexpr std::uint64_t alone_min = 256 << 10;
constexpr std::uint64_t copy_bytes_max = 4 << 20; ///< of a job's own reading in one turn

} // namespace

// ---- asking

/// Each link, another one first every time: the next, or while there is no room in staging the one
/// that got nothing of it.
void ucx_destination::ask_around(time_point now) {
  full_.clear();
  auto at = links_.lower_bound(asked_first_);
  for (auto left = links_.size(); left > 0; --left, ++at) {
    if (at == links_.end())
      at = links_.begin();
    auto [asked, had_room] = std::pair{at->second.requests.size(), full_.empty()};
    ask(at->second, now);
    if (left == links_.size() || (had_room && !full_.empty())) {
      auto got_none = !full_.empty() && at->second.requests.size() == asked;
      asked_first_ = at->first + (got_none ? 0 : 1);
    }
  }
}

void ucx_destination::ask(link& at, time_point now) {
  std::size_t without_room = 0; // jobs in a row
  while (at.ready && !at.closing() && at.round.size() > without_room
         && at.requests.size() < settings_.chunks_in_flight) {
    auto* x = find_job(at.round.front());
    at.round.pop_front();
    if (x == nullptr || x->link != at.id)
      continue;
    x->queued = false;
    if (x->ending)
      continue;
    if (at.requests.empty()) { // from here on silence counts
      at.heard = at.pinged = now;
      look_at(now + settings_.heartbeat_every);
    }
    if (x->leases) {
      ask_lease(at, *x);
      continue;
    }
    if (!ask_chunk(at, *x)) {
      ++without_room;
      queue(at, *x);
      continue;
    }
    without_room = 0;
    if (x->next < x->order.spans.size() || !x->again.empty())
      queue(at, *x);
  }
}

void ucx_destination::ask_lease(link& at, job& x) {
  auto id = ++last_request_;
  at.requests.emplace(id, request{x.order.id, {}, true, 0, false, 0, std::nullopt});
  x.lease = id;
  ++x.under_way;
  at.end->send(encode(lease_request{at.server_link, id, x.order.key, x.order.from.region}));
}

/// False while there is no staging for the chunk, or the peer has its share of it.
bool ucx_destination::ask_chunk(link& at, job& x) {
  range of;
  if (!x.again.empty()) {
    of = x.again.back();
  } else {
    of = {x.next, x.next};
    std::uint64_t bytes = 0;
    while (of.last < x.order.spans.size() && of.last - of.first < settings_.chunk_spans) {
      auto more = x.order.spans[of.last].bytes;
      if (of.last > of.first && (bytes + more > settings_.chunk_bytes || more >= alone_min))
        break;
      bytes += more;
      ++of.last;
      if (more >= alone_min)
        break;
    }
  }
  auto spans = spans_in(x, of);
  auto bytes = bytes_of(spans);
  std::optional<ucx_staging::part> staged;
  if (const auto& device = x.order.memory.device) {
    const auto& staging = staging_.at(device);
    if (full_.contains(device.get()) || !staging->may_take(at.id, bytes))
      return false;
    staged = ucx_staging::take(staging, at.id, bytes);
    if (!staged) { // and nobody behind it in this round takes what it waits for
      full_.insert(device.get());
      return false;
    }
  }
  if (!x.again.empty())
    x.again.pop_back();
  else
    x.next = of.last;
  auto id = ++last_request_;
  at.requests.emplace(id, request{x.order.id, of, false, bytes, false, 0, std::move(staged)});
  ++x.under_way;
  at.end->send(encode(read_request{
    at.server_link, id, x.order.key, x.order.from.region, settings_.checksums,
    source_pieces(spans)}));
  return true;
}

ucs_status_t ucx_destination::on_chunk(
  const chunk_header& header, void* data, std::size_t bytes, bool announced) {
  auto* at = find_link(header.client_link);
  if (at == nullptr || at->closing() || !at->end)
    return UCS_OK;
  auto found = at->requests.find(header.request);
  if (
    found == at->requests.end() || found->second.lease || found->second.receiving
    || found->second.bytes != bytes)
    return UCS_OK; // nothing we asked for: dropped
  auto& wanted = found->second;
  auto& x = jobs_.at(wanted.job);
  wanted.receiving = true;
  wanted.checksum = header.checksum;
  std::vector<ucp_dt_iov_t> pieces;
  if (wanted.staged)
    pieces.push_back({wanted.staged->bytes().data(), bytes});
  else
    for (const auto& piece : own_pieces(spans_in(x, wanted.of)))
      pieces.push_back({x.order.memory.bytes.data() + piece.at, piece.bytes});
  auto note = [this, link = header.client_link, request = header.request](ucs_status_t status) {
    arrivals_.push_back({link, request, status});
  };
  if (announced) {
    at->end->receive(worker_, data, std::move(pieces), note);
    return UCS_INPROGRESS;
  }
  const auto* from = static_cast<const std::byte*>(data);
  for (const auto& piece : pieces) {
    std::memcpy(piece.buffer, from, piece.length);
    from += piece.length;
  }
  note(UCS_OK);
  return UCS_OK;
}

void ucx_destination::arrived(const arrival& what, time_point now) {
  auto* at = find_link(what.link);
  if (at == nullptr || what.status != UCS_OK)
    return; // the broken connection puts it back
  auto found = at->requests.find(what.request);
  if (found == at->requests.end())
    return;
  auto of = std::move(found->second);
  at->requests.erase(found);
  at->heard = now;
  auto& x = jobs_.at(of.job);
  --x.under_way;
  if (of.staged) { // on the way into a device; for a job that ends it stays on this side
    if (!x.ending && came_well(x, of, now))
      begin_scatter(x, std::move(of));
  } else {
    chunk_landed(x, of);
    came_well(x, of, now);
  }
  settle(x.order.id, now);
}

std::span<const kv_span> ucx_destination::spans_in(const job& x, const range& of) {
  return {x.order.spans.data() + of.first, of.last - of.first};
}

void ucx_destination::chunk_landed(job& x, const request& of) {
  x.landed += of.bytes;
  counters_.bytes_in += of.bytes;
}

/// Whether what came is what was read, as far as that is asked; else the job ends.
bool ucx_destination::came_well(job& x, const request& of, time_point now) {
  if (!settings_.checksums)
    return true;
  auto found = of.staged ? checksum_of(of.staged->bytes())
                         : checksum_of(x.order.memory.bytes, own_pieces(spans_in(x, of.of)));
  if (found == of.checksum)
    return true;
  ++counters_.bad_checksums;
  stop_job(x, {errc::bad_message, "what landed is not what was read"}, now);
  return false;
}

// ---- into a device

void ucx_destination::begin_scatter(job& x, request of) {
  auto copy = x.order.memory.device->scatter(
    x.order.memory.bytes, own_pieces(spans_in(x, of.of)), of.staged->bytes());
  ++x.under_way;
  ++x.scattering;
  scatters_.push_back({std::move(of), std::move(copy)});
}

bool ucx_destination::finish_scatters(time_point now) {
  auto before = scatters_.size();
  for (auto at = scatters_.begin(); at != scatters_.end();) {
    auto state = at->copy->look();
    if (state == kv_device::copy::state::under_way) {
      ++at;
      continue;
    }
    auto id = at->of.job;
    auto& x = jobs_.at(id);
    --x.under_way;
    --x.scattering;
    if (state == kv_device::copy::state::done)
      chunk_landed(x, at->of);
    else
      stop_job(x, {errc::internal, "the device failed to copy"}, now);
    at = scatters_.erase(at);
    settle(id, now);
  }
  return scatters_.size() < before;
}

// ---- reading by ourselves

void ucx_destination::on(link& from, const lease_grant& x, time_point now) {
  auto found = from.requests.find(x.request);
  if (found == from.requests.end()) // given up meanwhile
    return from.end->send(encode(lease_return{from.server_link, x.request, 0}));
  if (!found->second.lease)
    return;
  auto id = found->second.job;
  auto& owner = jobs_.at(id);
  owner.granted = true;
  owner.process = x.process;
  owner.source_memory = x.memory;
  if (!has_secret(x.process, x.secret_at, x.secret))
    return read_no_more(from, owner, now);
  if (!within(owner.order.spans, x.bytes, owner.order.memory.bytes.size())) {
    stop_job(owner, {errc::invalid_argument, "spans out of the source's region"}, now);
    return settle(id, now);
  }
  copying_.push_back(id);
}

/// Returns the lease, or asks for none any more; the job waits for nothing of it. One that is
/// granted too late is returned when it comes.
void ucx_destination::give_back(job& x) {
  auto* at = find_link(x.link);
  auto request = std::exchange(x.lease, 0);
  auto granted = std::exchange(x.granted, false);
  if (at == nullptr || request == 0 || at->requests.erase(request) == 0)
    return;
  --x.under_way;
  if (granted)
    at->end->send(encode(lease_return{at->server_link, request, x.landed}));
}

/// The system does not let us: the bytes come over the connection.
void ucx_destination::read_no_more(link& at, job& x, time_point now) {
  if (at.leases && x.granted)
    kv_log.info(
      "no-direct-read", "process {} on this machine cannot be read; its KV comes by TCP",
      x.process);
  at.leases = false;
  by_chunks(at, x, now);
}

void ucx_destination::by_chunks(link& at, job& x, time_point now) {
  give_back(x);
  x.leases = false;
  x.next = 0;
  x.landed = 0;
  queue(at, x);
  look_at(now);
}

/// One slice of one job's own reading.
bool ucx_destination::copy(time_point now) {
  if (copying_.empty())
    return false;
  auto id = copying_.front();
  copying_.pop_front();
  auto* x = find_job(id);
  auto* at = x == nullptr ? nullptr : find_link(x->link);
  if (at == nullptr || x->ending || !x->granted || x->next == x->order.spans.size())
    return true;
  const auto& spans = x->order.spans;
  auto last = x->next;
  std::uint64_t bytes = 0;
  while (last < spans.size() && last - x->next < process_spans_max && bytes < copy_bytes_max)
    bytes += spans[last++].bytes;
  std::span slice{spans.data() + x->next, last - x->next};
  if (!read_process(x->process, x->source_memory, slice, x->order.memory.bytes)) {
    read_no_more(*at, *x, now);
    return true;
  }
  x->next = last;
  x->landed += bytes;
  counters_.bytes_in += bytes;
  counters_.bytes_direct += bytes;
  if (last < spans.size())
    copying_.push_back(id);
  else // the job is good once the source says that its window was open all the time
    at->end->send(encode(lease_return{at->server_link, x->lease, x->landed}));
  return true;
}

void ucx_destination::on(link& from, const lease_end& x, time_point now) {
  auto found = from.requests.find(x.request);
  if (found == from.requests.end() || !found->second.lease)
    return;
  auto id = found->second.job;
  auto& owner = jobs_.at(id);
  if (owner.next != owner.order.spans.size())
    return close(from, "ended a lease by itself");
  from.requests.erase(found);
  owner.lease = 0;
  owner.granted = false;
  --owner.under_way;
  settle(id, now);
}

} // namespace llumnix::ucx
