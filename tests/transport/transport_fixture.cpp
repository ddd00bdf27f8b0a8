#include "tests/transport/transport_fixture.hpp"

#include "tests/transport/transport_kinds.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>

namespace llumnix::testing {

namespace {

std::uint64_t word(std::uint64_t seed, std::uint64_t index) {
  auto x = (index + 1) * 0x9E3779B97F4A7C15ull + seed * 0xD1B54A32D192ED03ull;
  return x ^ x >> 29;
}

} // namespace

std::byte pattern(std::uint64_t seed, std::uint64_t offset) {
  return static_cast<std::byte>(word(seed, offset / 8) >> (offset % 8 * 8));
}

void fill(std::span<std::byte> memory, std::uint64_t seed) {
  for (std::size_t i = 0; i < memory.size(); i += 8) {
    auto x = word(seed, i / 8);
    std::memcpy(memory.data() + i, &x, std::min<std::size_t>(8, memory.size() - i));
  }
}

std::optional<std::uint64_t> first_difference(
  std::span<const std::byte> memory, std::uint64_t at, std::uint64_t bytes, std::uint64_t seed,
  std::uint64_t from) {
  for (std::uint64_t i = 0; i < bytes;) {
    std::uint64_t found = 0;
    if ((from + i) % 8 == 0 && bytes - i >= 8)
      std::memcpy(&found, memory.data() + at + i, 8);
    if (found == word(seed, (from + i) / 8) && (from + i) % 8 == 0 && bytes - i >= 8)
      i += 8;
    else if (memory[at + i] == pattern(seed, from + i))
      ++i;
    else
      return at + i;
  }
  return std::nullopt;
}

std::function<void(kv_transport::outcome)> ending::callback() {
  return [state = state_](kv_transport::outcome how) {
    std::lock_guard lock{state->mutex};
    ++state->times;
    state->last = std::move(how);
    state->changed.notify_all();
  };
}

kv_transport::outcome ending::wait() const {
  std::unique_lock lock{state_->mutex};
  auto came = state_->changed.wait_for(lock, 10s, [&] { return state_->times > 0; });
  REQUIRE_MESSAGE(came, "no end after ten seconds");
  return state_->last;
}

bool ending::came() const {
  return times() > 0;
}

int ending::times() const {
  std::lock_guard lock{state_->mutex};
  return state_->times;
}

std::function<void()> signal::callback() {
  return [call = ended_.callback()] { call({{errc::ok, {}}, 0}); };
}

bool signal::wait(std::chrono::milliseconds patience) const {
  auto until = std::chrono::steady_clock::now() + patience;
  while (!ended_.came() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(1ms);
  return ended_.came();
}

std::vector<std::uint32_t> shuffled(std::uint32_t count, std::uint64_t seed) {
  std::vector<std::uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  std::mt19937_64 random{seed};
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

bool eventually(const std::function<bool()>& holds) {
  auto until = std::chrono::steady_clock::now() + 10s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until)
      return false;
    std::this_thread::sleep_for(1ms);
  }
  return true;
}

transport_pair::transport_pair(
  const transport_kind& kind, std::size_t source_bytes, std::size_t own_bytes)
  : source{kind.make()}, own{kind.make()}, there(source_bytes), here(own_bytes) {
  fill(there, 1);
  from = *source->add_region(there);
  into = *own->add_region(here);
  source->open_window(from, key);
}

ending transport_pair::pull(std::vector<kv_span> spans, nanoseconds deadline) {
  ending end;
  own->pull(source->address(from), key, into, std::move(spans), deadline, end.callback());
  return end;
}

ending transport_pair::pull(std::vector<kv_span> spans, kv_transport::job_id& job) {
  ending end;
  job = own->pull(source->address(from), key, into, std::move(spans), 10s, end.callback());
  return end;
}

} // namespace llumnix::testing
