#include "transport/spoiling_transport.hpp"

#include "runtime/base/assert.hpp"

#include <utility>

namespace llumnix {

spoiling_transport::spoiling_transport(std::shared_ptr<kv_transport> real, std::uint64_t every)
  : real_{std::move(real)}, victims_{std::make_shared<victims>()} {
  LLUMNIX_ASSERT(every > 0);
  victims_->every = every;
}

result<kv_transport::region_id> spoiling_transport::add_region(kv_memory memory) {
  auto bytes = memory.device ? std::span<std::byte>{} : memory.bytes;
  auto region = real_->add_region(std::move(memory));
  if (region && !bytes.empty()) {
    std::lock_guard lock{victims_->guard};
    victims_->regions[*region] = bytes;
  }
  return region;
}

void spoiling_transport::forget(region_id region) {
  {
    std::lock_guard lock{victims_->guard};
    victims_->regions.erase(region);
  }
  real_->forget(region);
}

std::string spoiling_transport::address(region_id region) const {
  return real_->address(region);
}

void spoiling_transport::open_window(region_id region, const handover_id& key) {
  real_->open_window(region, key);
}

void spoiling_transport::close_window(const handover_id& key, std::function<void()> closed) {
  real_->close_window(key, std::move(closed));
}

/// Nobody else has the bytes before `done` was called.
kv_transport::job_id spoiling_transport::pull(
  const std::string& from, const handover_id& key, region_id into, std::vector<kv_span> spans,
  nanoseconds deadline, std::function<void(outcome)> done) {
  auto first = spans.empty() ? kv_span{} : spans.front();
  auto spoiled = [victims = victims_, into, first, done = std::move(done)](outcome how) {
    if (how.why.code == errc::ok && first.bytes > 0)
      victims->spoil(into, first);
    done(std::move(how));
  };
  return real_->pull(from, key, into, std::move(spans), deadline, std::move(spoiled));
}

void spoiling_transport::cancel(job_id job) {
  real_->cancel(job);
}

kv_transport_counters spoiling_transport::counters() const {
  return real_->counters();
}

void spoiling_transport::victims::spoil(region_id region, const kv_span& span) {
  std::lock_guard lock{guard};
  auto found = regions.find(region);
  if (found == regions.end() || ++pulls % every != 0)
    return;
  found->second[span.to + span.bytes / 2] ^= std::byte{1};
}

} // namespace llumnix
