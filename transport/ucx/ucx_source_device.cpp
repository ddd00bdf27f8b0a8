// How the bytes of a device leave: gathered into staging when there is room, then sent.
#include "transport/ucx/ucx_source.hpp"

#include <algorithm>

namespace llumnix::ucx {

void ucx_source::read_device(link& from, const read_request& x, memory_table::readable got) {
  auto device = got.memory.device;
  gathering wanted;
  wanted.request = x.request;
  wanted.checksum = x.checksum;
  wanted.pieces = x.pieces;
  wanted.memory = std::move(got.memory);
  wanted.what = {x.key, x.region, bytes_of(x.pieces), nullptr, std::move(got.under)};
  from.gathers.push_back(std::move(wanted));
  auto& out = outlets_.at(device);
  if (std::ranges::find(out.turns, from.id) == out.turns.end())
    out.turns.push_back(from.id);
  begin_gathers(device, out);
}

/// What that peer has asked for first of those that wait; null when it wants nothing any more.
ucx_source::gathering*
ucx_source::next_gather(std::uint64_t id, const std::shared_ptr<kv_device>& device) {
  auto of = links_.find(id);
  if (of == links_.end() || of->second.end->closing())
    return nullptr;
  auto& all = of->second.gathers;
  auto next = std::ranges::find_if(
    all, [&](const gathering& x) { return !x.copy && x.memory.device == device; });
  return next == all.end() ? nullptr : &*next;
}

/// As many as there is room for. Peers take turns: one that has its share is passed over and keeps
/// its place, and for one that lacks room all behind it wait.
void ucx_source::begin_gathers(const std::shared_ptr<kv_device>& device, outlet& out) {
  for (std::size_t i = 0; i < out.turns.size();) {
    auto id = out.turns[i];
    auto at = out.turns.begin() + static_cast<std::ptrdiff_t>(i);
    auto* next = next_gather(id, device);
    if (next == nullptr) {
      out.turns.erase(at);
    } else if (!out.staging->may_take(id, next->what.bytes)) {
      ++i;
    } else {
      auto& staged = next->what.staged;
      staged = ucx_staging::take(out.staging, id, next->what.bytes);
      if (!staged)
        return;
      next->copy = device->gather(next->memory.bytes, next->pieces, staged->bytes());
      out.turns.erase(at);
      out.turns.push_back(id);
    }
  }
}

/// Whoever waits for room is told that it is too late.
void ucx_source::drop_waiting(const std::function<bool(const reading&)>& which) {
  for (auto& [id, one] : links_)
    std::erase_if(one.gathers, [&, &one = one](const gathering& x) {
      if (x.copy || !which(x.what))
        return false;
      deny(one, x.request, errc::stale);
      return true;
    });
}

/// Sends what has been copied. True when there was any.
bool ucx_source::finish_gathers(link& one, time_point now) {
  if (one.end->closing()) // what has not begun never will
    std::erase_if(one.gathers, [](const auto& x) { return !x.copy; });
  auto before = one.gathers.size();
  std::erase_if(one.gathers, [&](gathering& x) {
    auto state = x.copy ? x.copy->look() : kv_device::copy::state::under_way;
    if (state == kv_device::copy::state::under_way)
      return false;
    x.copy.reset();
    x.what.under.reset(); // the region is read no more
    if (one.end->closing())
      return true;
    if (state == kv_device::copy::state::failed) {
      deny(one, x.request, errc::internal);
      return true;
    }
    auto bytes = x.what.staged->bytes();
    chunk_header header{one.client_link, x.request, 0};
    if (x.checksum)
      header.checksum = checksum_of(bytes);
    send(one, header, {{bytes.data(), bytes.size()}}, std::move(x.what), now);
    return true;
  });
  return one.gathers.size() < before;
}

bool ucx_source::copying() const {
  return std::ranges::any_of(links_, [](const auto& one) {
    return std::ranges::any_of(one.second.gathers, [](const auto& x) { return x.copy != nullptr; });
  });
}

} // namespace llumnix::ucx
