#include "transport/loopback_transport.hpp"

#include "transport/kv_device.hpp"
#include "transport/memory_table.hpp"
#include "transport/span_list.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

namespace llumnix {

namespace {

using job_id = kv_transport::job_id;
using region_id = kv_transport::region_id;

/// What a copy from or to a device passes through at a time.
constexpr std::uint64_t staging_bytes = 4 << 20;

/// One transport's part of the network.
struct member {
  memory_table memory;
  kv_transport_counters counters;
  std::map<std::shared_ptr<kv_device>, std::shared_ptr<std::byte>> staging; ///< under the lock
};

struct job {
  loopback_job what;
  std::shared_ptr<member> source;
  std::shared_ptr<member> own;
  region_id source_region = 0;
  region_id own_region = 0;
  std::vector<kv_span> spans;
  kv_memory from;
  kv_memory to;
  std::span<std::byte> staging; ///< where either side is a device's
  memory_table::permit under;
  std::uint64_t landed = 0;
  bool corrupt = false;
  std::function<void(kv_transport::outcome)> done;
};

struct place {
  std::uint64_t life = 0;
  region_id region = 0;
};

constexpr std::string_view scheme = "loopback/";

/// "loopback/3/1": life and region.
std::optional<place> parse(std::string_view address) {
  place where;
  if (!address.starts_with(scheme))
    return std::nullopt;
  address.remove_prefix(scheme.size());
  const auto* end = address.data() + address.size();
  auto life = std::from_chars(address.data(), end, where.life);
  if (life.ec != std::errc{} || life.ptr == end || *life.ptr != '/')
    return std::nullopt;
  auto region = std::from_chars(life.ptr + 1, end, where.region);
  if (region.ec != std::errc{} || region.ptr != end)
    return std::nullopt;
  return where;
}

/// The next `bytes` of the job's spans.
std::vector<kv_span> next_spans(const job& x, std::uint64_t bytes) {
  std::vector<kv_span> parts;
  std::uint64_t skip = x.landed;
  for (const auto& span : x.spans) {
    if (bytes == 0)
      break;
    if (skip >= span.bytes) {
      skip -= span.bytes;
      continue;
    }
    auto part = std::min(bytes, span.bytes - skip);
    parts.push_back({span.from + skip, span.to + skip, part});
    bytes -= part;
    skip = 0;
  }
  return parts;
}

/// Pieces of a region into staging, or out of it. False when the device failed.
bool read(const kv_memory& from, std::span<const kv_piece> pieces, std::span<std::byte> staging) {
  if (from.device)
    return finish(*from.device->gather(from.bytes, pieces, staging));
  gather(from.bytes, pieces, staging);
  return true;
}
bool write(
  const kv_memory& to, std::span<const kv_piece> pieces, std::span<const std::byte> staging) {
  if (to.device)
    return finish(*to.device->scatter(to.bytes, pieces, staging));
  scatter(to.bytes, pieces, staging);
  return true;
}

/// Copies the next `bytes` of the job's spans, no more than fit into its staging. False when a
/// device failed.
bool land(job& x, std::uint64_t bytes) {
  auto parts = next_spans(x, bytes);
  auto spoil = x.corrupt && x.landed == 0 && bytes > 0;
  if (x.staging.empty()) {
    for (const auto& part : parts)
      std::memmove(x.to.bytes.data() + part.to, x.from.bytes.data() + part.from, part.bytes);
    if (spoil)
      x.to.bytes[parts.front().to] ^= std::byte{1};
    x.landed += bytes;
    return true;
  }
  if (!read(x.from, source_pieces(parts), x.staging))
    return false;
  if (spoil)
    x.staging.front() ^= std::byte{1};
  if (!write(x.to, own_pieces(parts), x.staging))
    return false;
  x.landed += bytes;
  return true;
}

/// XXH3 over pieces of a region, wherever it is; nothing when a device failed.
std::optional<std::uint64_t> checksum_of(
  const kv_memory& memory, const std::vector<kv_piece>& pieces, std::span<std::byte> staging) {
  if (!memory.device)
    return checksum_of(memory.bytes, pieces);
  running_checksum sum;
  for (auto piece : pieces)
    while (piece.bytes > 0) {
      kv_piece part{piece.at, std::min<std::uint64_t>(piece.bytes, staging.size())};
      if (!read(memory, {&part, 1}, staging))
        return std::nullopt;
      sum.add(staging.first(part.bytes));
      piece = {piece.at + part.bytes, piece.bytes - part.bytes};
    }
  return sum.value();
}

bool landed_well(const job& x) {
  auto there = checksum_of(x.from, source_pieces(x.spans), x.staging);
  return there && there == checksum_of(x.to, own_pieces(x.spans), x.staging);
}

} // namespace

/// Everything is under one lock but the callbacks, which come after it.
class loopback_network::state {
public:
  explicit state(bool checksums) : checksums_{checksums} {}

  std::uint64_t join(std::shared_ptr<member> who) {
    std::lock_guard lock{mutex_};
    members_.emplace(++last_life_, std::move(who));
    return last_life_;
  }

  void leave(std::uint64_t life, const std::shared_ptr<member>& who) {
    std::unique_lock lock{mutex_};
    members_.erase(life);
    lock.unlock();
    end_all([&](const job& x) { return x.own == who; }, {errc::cancelled, "the transport ended"});
    end_all(
      [&](const job& x) { return x.source == who; },
      {errc::unreachable, "the source's transport ended"});
  }

  void set_hook(std::function<loopback_fate(const loopback_job&)> hook) {
    std::lock_guard lock{mutex_};
    hook_ = std::move(hook);
  }

  std::vector<loopback_job> held() const {
    std::lock_guard lock{mutex_};
    std::vector<loopback_job> all;
    for (const auto& [id, x] : jobs_)
      all.push_back(x.what);
    return all;
  }

  job_id pull(job x) {
    std::unique_lock lock{mutex_};
    auto why = prepare(x);
    auto id = x.what.job = ++last_job_;
    auto what = x.what;
    auto hook = hook_;
    ++x.own->counters.jobs;
    jobs_.emplace(id, std::move(x));
    lock.unlock();
    if (why.code != errc::ok || what.bytes == 0) {
      end(id, std::move(why));
      return id;
    }
    auto fate = hook ? hook(what) : loopback_fate{};
    if (fate.why.code != errc::ok)
      end(id, std::move(fate.why));
    else if (mark(id, fate.corrupt) && !fate.hold)
      proceed(id, UINT64_MAX);
    return id;
  }

  bool proceed(job_id id, std::uint64_t bytes_max) {
    std::unique_lock lock{mutex_};
    auto found = jobs_.find(id);
    if (found == jobs_.end())
      return false;
    auto& x = found->second;
    auto left = std::min(bytes_max, x.what.bytes - x.landed);
    while (left > 0) {
      auto part = x.staging.empty() ? left : std::min<std::uint64_t>(left, x.staging.size());
      if (!land(x, part)) {
        lock.unlock();
        return end(id, {errc::internal, "a device failed to copy"});
      }
      x.own->counters.bytes_in += part;
      x.source->counters.bytes_out += part;
      left -= part;
    }
    if (x.landed < x.what.bytes)
      return true;
    error why{errc::ok, {}};
    if (checksums_ && !landed_well(x)) {
      ++x.own->counters.bad_checksums;
      why = {errc::bad_message, "what landed is not what was read"};
    }
    lock.unlock();
    return end(id, std::move(why));
  }

  /// Ends the job if it has not ended. Its permit goes with it, after the lock.
  bool end(job_id id, error why) {
    std::unique_lock lock{mutex_};
    auto node = jobs_.extract(id);
    if (!node)
      return false;
    auto& x = node.mapped();
    auto& counters = x.own->counters;
    if (why.code == errc::cancelled)
      ++counters.cancelled;
    else if (why.code != errc::ok)
      ++counters.failed;
    lock.unlock();
    x.under.reset();
    x.done({std::move(why), x.landed});
    return true;
  }

  bool owns(const std::shared_ptr<member>& who, job_id id) const {
    std::lock_guard lock{mutex_};
    auto found = jobs_.find(id);
    return found != jobs_.end() && found->second.own == who;
  }

  template <class Which>
  void end_all(Which which, const error& why) {
    std::unique_lock lock{mutex_};
    std::vector<job_id> ids;
    for (const auto& [id, x] : jobs_)
      if (which(x))
        ids.push_back(id);
    lock.unlock();
    for (auto id : ids)
      end(id, why);
  }

  result<void> make_staging(member& who, const std::shared_ptr<kv_device>& device) {
    std::lock_guard lock{mutex_};
    if (who.staging.contains(device))
      return {};
    auto made = device->make_staging(staging_bytes);
    if (!made)
      return std::move(made).error();
    who.staging.emplace(device, std::move(*made));
    return {};
  }

  kv_transport_counters counters_of(const member& who) const {
    std::lock_guard lock{mutex_};
    return who.counters;
  }

private:
  /// Finds both sides of a job; the reason why it cannot begin, or `ok`. Under the lock, so that
  /// `forget` meets the job or the job meets the missing region.
  error prepare(job& x) {
    auto to = x.own->memory.find(x.own_region);
    if (!to || !within(x.spans, UINT64_MAX, to->bytes.size()))
      return {errc::invalid_argument, "spans out of the own region"};
    auto where = parse(x.what.from);
    if (!where)
      return {errc::invalid_argument, "no loopback address: " + x.what.from};
    if (x.what.deadline <= nanoseconds{0})
      return {errc::timeout, "no time left"};
    auto found = members_.find(where->life);
    if (found == members_.end())
      return {errc::unreachable, "no transport at " + x.what.from};
    auto readable = found->second->memory.begin_read(where->region, x.what.key);
    if (!readable) {
      ++found->second->counters.refused;
      return {errc::stale, "no open window"};
    }
    x.source = found->second;
    x.source_region = where->region;
    x.from = std::move(readable->memory);
    x.to = std::move(*to);
    if (x.from.device)
      x.staging = staging_of(*x.source, x.from.device);
    else if (x.to.device)
      x.staging = staging_of(*x.own, x.to.device);
    x.under = std::move(readable->under);
    if (!within(x.spans, x.from.bytes.size(), x.to.bytes.size()))
      return {errc::invalid_argument, "spans out of the source's region"};
    return {errc::ok, {}};
  }

  /// Every device reaches the staging of every other.
  static std::span<std::byte>
  staging_of(const member& of, const std::shared_ptr<kv_device>& device) {
    return {of.staging.at(device).get(), staging_bytes};
  }

  bool mark(job_id id, bool corrupt) {
    std::lock_guard lock{mutex_};
    auto found = jobs_.find(id);
    if (found != jobs_.end())
      found->second.corrupt = corrupt;
    return found != jobs_.end();
  }

  const bool checksums_;
  mutable std::mutex mutex_;
  std::function<loopback_fate(const loopback_job&)> hook_;
  std::uint64_t last_life_ = 0;
  job_id last_job_ = 0;
  std::map<std::uint64_t, std::shared_ptr<member>> members_;
  std::map<job_id, job> jobs_;
};

class loopback_network::transport final : public kv_transport {
public:
  explicit transport(std::shared_ptr<state> network)
    : network_{std::move(network)}, life_{network_->join(self_)} {}
  ~transport() override { network_->leave(life_, self_); }

  result<region_id> add_region(kv_memory memory) override {
    if (auto valid = memory_table::check(memory); !valid)
      return std::move(valid).error();
    if (memory.device)
      if (auto made = network_->make_staging(*self_, memory.device); !made)
        return std::move(made).error();
    return self_->memory.add(std::move(memory));
  }

  void forget(region_id region) override {
    self_->memory.remove(region);
    network_->end_all(
      [&](const job& x) { return x.own == self_ && x.own_region == region; },
      {errc::cancelled, "its region was forgotten"});
    network_->end_all(
      [&](const job& x) { return x.source == self_ && x.source_region == region; },
      {errc::unreachable, "the source's region is gone"});
  }

  std::string address(region_id region) const override {
    return std::string{scheme} + std::to_string(life_) + "/" + std::to_string(region);
  }

  void open_window(region_id region, const handover_id& key) override {
    self_->memory.open(region, key);
  }
  void close_window(const handover_id& key, std::function<void()> closed) override {
    self_->memory.close(key, std::move(closed));
  }

  job_id pull(
    const std::string& from, const handover_id& key, region_id into, std::vector<kv_span> spans,
    nanoseconds deadline, std::function<void(outcome)> done) override {
    job x;
    x.what = {0, from, key, bytes_of(spans), deadline};
    x.own = self_;
    x.own_region = into;
    x.spans = std::move(spans);
    x.done = std::move(done);
    return network_->pull(std::move(x));
  }

  void cancel(job_id job) override {
    if (network_->owns(self_, job))
      network_->end(job, {errc::cancelled, "given up"});
  }

  kv_transport_counters counters() const override { return network_->counters_of(*self_); }

private:
  std::shared_ptr<state> network_;
  std::shared_ptr<member> self_ = std::make_shared<member>();
  std::uint64_t life_;
};

loopback_network::loopback_network(bool checksums) : state_{std::make_shared<state>(checksums)} {}

void loopback_network::on_pull(std::function<loopback_fate(const loopback_job&)> hook) {
  state_->set_hook(std::move(hook));
}

std::vector<loopback_job> loopback_network::held() const {
  return state_->held();
}

bool loopback_network::proceed(kv_transport::job_id job, std::uint64_t bytes_max) {
  return state_->proceed(job, bytes_max);
}

bool loopback_network::fail(kv_transport::job_id job, error why) {
  return state_->end(job, std::move(why));
}

std::unique_ptr<kv_transport> loopback_network::make_transport() const {
  return std::make_unique<transport>(state_);
}

} // namespace llumnix
