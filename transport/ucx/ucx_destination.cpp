#include "transport/ucx/ucx_destination.hpp"

#include "transport/ucx/ucx_greeting.hpp"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace llumnix::ucx {

namespace {

constexpr int links_lost_max = 1; ///< a job begins again that often

/// Drops empty spans and cuts the others.
std::vector<kv_span> cut(const std::vector<kv_span>& spans, std::uint64_t bytes_max) {
  std::vector<kv_span> parts;
  parts.reserve(spans.size());
  for (auto span : spans) {
    while (span.bytes > 0) {
      auto bytes = std::min(span.bytes, bytes_max);
      parts.push_back({span.from, span.to, bytes});
      span = {span.from + bytes, span.to + bytes, span.bytes - bytes};
    }
  }
  return parts;
}

} // namespace

ucx_destination::ucx_destination(
  const ucx_settings& settings, shared_counters& counters, socket_watch& watch, ucx_gate& lanes)
  : settings_{settings}, counters_{counters}, watch_{watch}, lanes_{lanes} {}

ucx_destination::link* ucx_destination::find_link(std::uint64_t id) {
  auto found = links_.find(id);
  return found == links_.end() ? nullptr : &found->second;
}

ucx_destination::job* ucx_destination::find_job(job_id id) {
  auto found = jobs_.find(id);
  return found == jobs_.end() ? nullptr : &found->second;
}

// ---- jobs

void ucx_destination::start(pull_order order, time_point now) {
  auto id = order.id;
  order.spans = cut(order.spans, settings_.chunk_bytes);
  auto& x = jobs_[id];
  x.order = std::move(order);
  look_at(x.order.deadline);
  if (stopping_)
    stop_job(x, {errc::cancelled, "the transport ended"}, now);
  else if (!x.order.spans.empty())
    attach(x, now);
  settle(id, now);
}

void ucx_destination::attach(job& x, time_point now) {
  auto at = link_to(x.order.from.at, now);
  if (!at)
    return stop_job(x, std::move(at).error(), now);
  x.link = (*at)->id;
  x.leases = (*at)->leases && !x.order.memory.device;
  if (x.leases) { // which reads from the first span to the last
    x.next = 0;
    x.landed = 0;
    x.again.clear();
  }
  queue(**at, x);
}

void ucx_destination::queue(link& at, job& x) {
  if (x.queued || x.ending)
    return;
  x.queued = true;
  at.round.push_back(x.order.id);
}

void ucx_destination::cancel(job_id id, time_point now) {
  if (auto* x = find_job(id)) {
    stop_job(*x, {errc::cancelled, "given up"}, now);
    settle(id, now);
  }
}

void ucx_destination::forgetting(
  kv_transport::region_id region, time_point now, std::function<void()> gone) {
  std::vector<job_id> ids;
  for (auto& [id, x] : jobs_)
    if (x.order.into == region)
      ids.push_back(id);
  forgetting_.emplace_back(region, std::move(gone));
  for (auto id : ids)
    cancel(id, now);
  release_forgotten();
}

/// No chunk is asked for any more; `settle` ends the job once the last one was answered.
void ucx_destination::stop_job(job& x, error why, time_point now) {
  if (x.ending)
    return;
  x.ending = true;
  x.why = std::move(why);
  x.cut_at = now + settings_.quiesce_within;
  look_at(x.cut_at);
  if (x.leases)
    give_back(x);
}

/// Ends the job if there is nothing left to wait for.
void ucx_destination::settle(job_id id, time_point now) {
  auto found = jobs_.find(id);
  if (found == jobs_.end())
    return;
  auto& x = found->second;
  auto all = x.next == x.order.spans.size() && x.again.empty() && x.lease == 0;
  if (x.under_way > 0 || (!x.ending && !all))
    return;
  auto node = jobs_.extract(found);
  if (auto* at = find_link(x.link))
    at->used = now;
  if (x.why.code == errc::cancelled)
    ++counters_.cancelled;
  else if (x.why.code != errc::ok)
    ++counters_.failed;
  x.order.done({std::move(x.why), x.landed});
  release_forgotten();
}

void ucx_destination::release_forgotten() {
  for (auto at = forgetting_.begin(); at != forgetting_.end();) {
    auto used
      = std::ranges::any_of(jobs_, [&](const auto& x) { return x.second.order.into == at->first; });
    if (!used)
      at->second();
    at = used ? std::next(at) : forgetting_.erase(at);
  }
}

// ---- connections

result<ucx_destination::link*> ucx_destination::link_to(const peer& at, time_point now) {
  if (auto found = by_peer_.find(at); found != by_peer_.end())
    return &links_.at(found->second);
  if (links_.size() >= settings_.peers_max) {
    auto idle = std::ranges::find_if(by_peer_, [&](const auto& x) {
      return std::ranges::none_of(
        jobs_, [&](const auto& job) { return job.second.link == x.second; });
    });
    if (idle == by_peer_.end())
      return error{errc::queue_full, "too many KV peers at once"};
    close(links_.at(idle->second), "makes room");
  }
  auto knock = ucx_knock::begin(at, watch_);
  if (!knock)
    return error{
      errc::unreachable, fmt::format("{} port {}: {}", at.ip, at.port, knock.error().context)};
  auto id = random_token().low | 1;
  auto& made = links_[id];
  made.id = id;
  made.at = at;
  made.knock.emplace(std::move(*knock));
  made.nonce = random_token();
  made.leases = settings_.same_host && !settings_.checksums && at.host == host_tag();
  made.opened = made.heard = made.pinged = made.used = now;
  by_peer_[at] = id;
  look_at(now + settings_.connect_within);
  return &made;
}

/// Once the peer's door opens we speak over UCX; true when it has, or never will.
bool ucx_destination::come_in(link& one, time_point now) {
  auto port = one.knock->work(settings_.cluster_key, one.at.life);
  if (port && !*port)
    return false;
  if (port)
    lanes_.keep_in(
      *socket_address(one.at.ip, one.at.port), now + let_in_times * settings_.connect_within);
  auto end = port ? ucx_endpoint::connect(worker_, *socket_address(one.at.ip, **port))
                  : std::move(port).error();
  if (!end) {
    close(one, fmt::format("{} port {}: {}", one.at.ip, one.at.port, end.error().context));
    return true;
  }
  one.end = std::move(*end);
  one.knock.reset();
  one.end->send(encode(hello{one.id, one.nonce, one.at.life}), true);
  return true;
}

void ucx_destination::handle(message& what, time_point now) {
  std::visit(
    [&](auto& x) {
      if constexpr (
        requires {
          x.client_link;
          x.server_link;
        }
        || !requires { x.server_link; })
        if (auto* from = find_link(x.client_link);
            from != nullptr && from->end && !from->closing()) {
          from->heard = now;
          on(*from, x, now);
        }
    },
    what);
}

template <class T>
void ucx_destination::on(link& from, const T&, time_point) {
  close(from, "said what a source does not say");
}

void ucx_destination::on(link& from, const challenge& x, time_point) {
  auto wanted = prove(settings_.cluster_key, server_role, from.nonce, x.nonce, from.at.life);
  if (from.server_link != 0 || !same(x.of, wanted))
    return close(from, "the peer does not know the cluster's key");
  from.server_link = x.server_link;
  from.end->send(encode(answer{
    x.server_link, prove(settings_.cluster_key, client_role, from.nonce, x.nonce, from.at.life)}));
}

void ucx_destination::on(link& from, const welcome&, time_point) {
  if (from.server_link == 0)
    return close(from, "welcomed before it was asked");
  from.ready = true;
}

void ucx_destination::on(link& from, const refusal&, time_point) {
  close(from, "that life of the peer is over");
}

void ucx_destination::on(link& from, const denial& x, time_point now) {
  auto found = from.requests.find(x.request);
  if (found == from.requests.end() || found->second.receiving)
    return;
  auto of = std::move(found->second);
  from.requests.erase(found);
  auto& owner = jobs_.at(of.job);
  --owner.under_way;
  if (of.lease && x.why == errc::unsupported)
    read_no_more(from, owner, now);
  else if (of.lease && x.why == errc::invalid_argument)
    by_chunks(from, owner, now);
  else
    stop_job(owner, {x.why, x.why == errc::stale ? "no open window" : "the source refuses"}, now);
  settle(of.job, now);
}

void ucx_destination::on(link&, const pong&, time_point) {}

void ucx_destination::close(link& one, std::string why) {
  if (one.closing())
    return;
  one.why_closed = std::move(why);
  one.knock.reset();
  if (one.end)
    one.end->close();
  by_peer_.erase(one.at);
  ++closing_;
}

/// A connection is over: nothing can land through it any more. Its jobs go on elsewhere, or end.
void ucx_destination::lost(link& one, time_point now) {
  --closing_;
  auto ours = std::exchange(one.requests, {});
  for (const auto& [id, of] : ours) {
    auto& x = jobs_.at(of.job);
    --x.under_way;
    if (!of.lease)
      x.again.push_back(of.of);
  }
  std::vector<job_id> ids;
  for (const auto& [id, x] : jobs_)
    if (x.link == one.id)
      ids.push_back(id);
  for (auto id : ids) {
    auto& x = jobs_.at(id);
    x.link = 0;
    x.queued = false;
    x.lease = 0;
    x.granted = false;
    if (x.leases)
      x.next = 0, x.landed = 0;
    if (!x.ending && one.ready && x.links_lost++ < links_lost_max)
      attach(x, now);
    else
      stop_job(x, {errc::unreachable, one.why_closed}, now);
    settle(id, now);
  }
}

/// What time and UCX have done to a connection.
void ucx_destination::look(link& one, time_point now) {
  if (one.end && one.end->broken())
    close(one, fmt::format("{} port {}: {}", one.at.ip, one.at.port, one.end->why_broken()));
  else if (!one.ready && now - one.opened > settings_.connect_within)
    close(one, fmt::format("{} port {} does not answer", one.at.ip, one.at.port));
  else if (!one.requests.empty() && now - one.heard > settings_.silence_max)
    close(one, fmt::format("{} port {} has fallen silent", one.at.ip, one.at.port));
}

// ---- turns

/// Deadlines, heartbeats, idle connections; and when to do so again.
void ucx_destination::look_around(time_point now) {
  look_at_ = time_point::max();
  std::vector<job_id> late;
  for (auto& [id, x] : jobs_) {
    if (!x.ending && now >= x.order.deadline)
      late.push_back(id);
    else if (x.ending && now >= x.cut_at) {
      if (auto* at = find_link(x.link); at != nullptr && x.under_way > x.scattering)
        close(*at, "did not answer a job that was given up");
    } else
      look_at(x.ending ? x.cut_at : x.order.deadline);
  }
  for (auto id : late) {
    stop_job(jobs_.at(id), {errc::timeout, "the deadline has passed"}, now);
    settle(id, now);
  }
  for (auto& [id, one] : links_) {
    if (one.closing())
      continue;
    if (!one.ready) {
      look_at(one.opened + settings_.connect_within);
    } else if (!one.requests.empty()) {
      if (now - one.pinged >= settings_.heartbeat_every) {
        one.end->send(encode(ping{one.server_link}));
        one.pinged = now;
      }
      look_at(one.pinged + settings_.heartbeat_every);
    } else if (now - one.used >= settings_.idle_max) {
      close(one, "idle");
    } else {
      look_at(one.used + settings_.idle_max);
    }
  }
}

bool ucx_destination::work(time_point now) {
  auto moved = !inbox_.empty() || !arrivals_.empty();
  for (auto& what : std::exchange(inbox_, {}))
    handle(what, now);
  for (const auto& what : std::exchange(arrivals_, {}))
    arrived(what, now);
  moved |= finish_scatters(now);
  moved |= copy(now);
  for (auto at = links_.begin(); at != links_.end();) {
    auto& one = at->second;
    moved |= one.knock && come_in(one, now);
    look(one, now);
    if (one.closed()) {
      auto node = links_.extract(at++);
      lost(node.mapped(), now);
      moved = true;
    } else {
      ++at;
    }
  }
  ask_around(now);
  if (now >= look_at_) {
    look_around(now);
    moved = true;
  }
  return moved;
}

void ucx_destination::stop(time_point now) {
  stopping_ = true;
  std::vector<job_id> ids;
  for (const auto& [id, x] : jobs_)
    ids.push_back(id);
  for (auto id : ids)
    cancel(id, now);
  for (auto& [id, one] : links_)
    close(one, "the transport ended");
}

void ucx_destination::stood_still(nanoseconds gap) {
  for (auto& [id, one] : links_) {
    one.heard += gap;
    one.opened += gap;
  }
}

} // namespace llumnix::ucx
