#pragma once

#include "transport/kv_transport.hpp"

#include <map>
#include <memory>
#include <mutex>

namespace llumnix {

/// For tests of whole clusters: of the pulls that go well, every so many lands with one wrong bit,
/// as a broken network or memory would have it; in memory of the host alone. All else is left to
/// another transport.
class spoiling_transport final : public kv_transport {
public:
  /// `every`: 1 or more.
  spoiling_transport(std::shared_ptr<kv_transport> real, std::uint64_t every);

  result<region_id> add_region(kv_memory memory) override;
  void forget(region_id region) override;
  std::string address(region_id region) const override;
  void open_window(region_id region, const handover_id& key) override;
  void close_window(const handover_id& key, std::function<void()> closed) override;
  job_id pull(
    const std::string& from, const handover_id& key, region_id into, std::vector<kv_span> spans,
    nanoseconds deadline, std::function<void(outcome)> done) override;
  void cancel(job_id job) override;
  kv_transport_counters counters() const override;

private:
  /// Calls back after we may be gone.
  struct victims {
    std::uint64_t every = 1;
    std::mutex guard;
    std::uint64_t pulls = 0;
    std::map<region_id, std::span<std::byte>> regions;
    void spoil(region_id region, const kv_span& span);
  };

  std::shared_ptr<kv_transport> real_;
  std::shared_ptr<victims> victims_;
};

} // namespace llumnix
