#include "transport/memory_table.hpp"

#include "transport/kv_device.hpp"

#include <utility>
#include <vector>

namespace llumnix {

result<void> memory_table::check(const kv_memory& memory) {
  if (memory.bytes.empty())
    return error{errc::invalid_argument, "a region of no bytes"};
  if (memory.device && !memory.device->holds(memory.bytes))
    return error{errc::invalid_argument, "a region that is not its device's memory"};
  return {};
}

result<memory_table::region_id> memory_table::add(kv_memory memory) {
  if (auto valid = check(memory); !valid)
    return std::move(valid).error();
  std::lock_guard lock{mutex_};
  regions_.emplace(++last_region_, std::move(memory));
  return last_region_;
}

std::optional<kv_memory> memory_table::find(region_id region) const {
  std::lock_guard lock{mutex_};
  auto found = regions_.find(region);
  if (found == regions_.end())
    return std::nullopt;
  return found->second;
}

/// A window on nothing is closed: whoever opened it may be gone.
void memory_table::remove(region_id region) {
  std::vector<std::shared_ptr<window>> closed; // let go of outside of the lock: ends make calls
  std::lock_guard lock{mutex_};
  regions_.erase(region);
  for (auto& [key, entry] : windows_)
    if (entry.open && entry.open->regions.erase(region) > 0 && entry.open->regions.empty())
      closed.push_back(std::exchange(entry.open, nullptr));
}

void memory_table::open(region_id region, const handover_id& key) {
  std::lock_guard lock{mutex_};
  if (!regions_.contains(region))
    return;
  std::erase_if(
    windows_, [](const auto& x) { return !x.second.open && x.second.under_way.expired(); });
  auto& entry = windows_[key];
  if (!entry.open) {
    entry.open = std::make_shared<window>();
    entry.under_way = entry.open;
  }
  entry.open->regions.insert(region);
}

void memory_table::close(const handover_id& key, std::function<void()> closed) {
  std::shared_ptr<window> last; // let go of outside of the lock: its end makes the call
  std::unique_lock lock{mutex_};
  auto found = windows_.find(key);
  if (found != windows_.end())
    last = found->second.under_way.lock();
  if (last) {
    last->closed.push_back(std::move(closed));
    found->second.open.reset();
  }
  lock.unlock();
  if (!last)
    closed();
}

std::optional<memory_table::readable>
memory_table::begin_read(region_id region, const handover_id& key) const {
  std::lock_guard lock{mutex_};
  auto found = windows_.find(key);
  if (
    found == windows_.end() || !found->second.open || !found->second.open->regions.contains(region))
    return std::nullopt;
  return readable{regions_.at(region), found->second.open};
}

} // namespace llumnix
