// How fast KV blocks leave and enter a GPU's memory, and how fast they come from another process's:
//
//   one row per block size   1 MiB chunks of scattered blocks, by the kernel, by the copy engines
//                            (a call per block), and as cuda_device does it: which of them it takes
//   floor                    cudaMemcpyAsync of as many contiguous bytes, 1 MiB at a time
//   between processes        host to host and device to device over UCX's TCP, on this machine
//
// GB are 10^9 bytes. Each figure is the best of its rounds, and the median.
#include "transport/cuda/cuda_device.hpp"
#include "transport/cuda/paged_copy.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <numeric>
#include <random>
#include <string>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace llumnix;
using namespace std::chrono_literals;
using wall = std::chrono::steady_clock;

constexpr std::uint64_t chunk_bytes = 1 << 20;
constexpr std::uint64_t pool_bytes = 256 << 20;
constexpr int rounds = 7;
constexpr handover_id key{1, 2};

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(1);
}

template <class T>
T have(result<T> made) {
  if (!made)
    give_up(to_string(made.error()));
  return std::move(*made);
}

void check(cudaError_t status) {
  if (status != cudaSuccess)
    give_up(cudaGetErrorString(status));
}

struct rate {
  double best = 0, median = 0; ///< GB/s
};

rate measure(std::uint64_t bytes, const std::function<void()>& run) {
  std::vector<double> rates;
  for (int round = -1; round < rounds; ++round) { // the first one warms up
    auto begin = wall::now();
    run();
    auto seconds = std::chrono::duration<double>(wall::now() - begin).count();
    if (round >= 0)
      rates.push_back(static_cast<double>(bytes) / seconds / 1e9);
  }
  std::ranges::sort(rates);
  return {rates.back(), rates[rates.size() / 2]};
}

std::vector<std::uint32_t> order(std::size_t count, std::uint64_t seed) {
  std::vector<std::uint32_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::mt19937_64 random{seed};
  std::ranges::shuffle(blocks, random);
  return blocks;
}

/// The pool's blocks in a random order, as chunks that fill staging of `chunk_bytes`.
std::vector<std::vector<kv_piece>> chunks_of(std::uint64_t block) {
  std::vector<std::vector<kv_piece>> chunks;
  for (auto at : order(pool_bytes / block, 1)) {
    if (chunks.empty() || chunks.back().size() == chunk_bytes / block)
      chunks.emplace_back();
    chunks.back().push_back({at * block, block});
  }
  return chunks;
}

std::vector<cuda::piece> staged(const std::vector<kv_piece>& pieces) {
  std::vector<cuda::piece> out;
  std::uint32_t next = 0;
  for (const auto& x : pieces) {
    out.push_back({x.at, next, static_cast<std::uint32_t>(x.bytes)});
    next += static_cast<std::uint32_t>(x.bytes);
  }
  return out;
}

/// The whole pool, chunk after chunk through a ring of 16 MiB of pinned memory.
void measure_copies() {
  constexpr std::uint64_t ring = 16;
  auto device = have(make_cuda_device());
  auto memory = have(device->make_memory(pool_bytes));
  auto staging = have(device->make_staging(ring * chunk_bytes));
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  auto slot = [&](std::size_t i) { return staging.get() + i % ring * chunk_bytes; };

  for (auto which : {cuda::direction::gather, cuda::direction::scatter}) {
    auto gathers = which == cuda::direction::gather;
    auto floor = measure(pool_bytes, [&] {
      for (std::uint64_t i = 0; i < pool_bytes / chunk_bytes; ++i) {
        auto* inside = memory.get() + i * chunk_bytes;
        check(
          gathers ? cudaMemcpyAsync(slot(i), inside, chunk_bytes, cudaMemcpyDeviceToHost, stream)
                  : cudaMemcpyAsync(inside, slot(i), chunk_bytes, cudaMemcpyHostToDevice, stream));
      }
      check(cudaStreamSynchronize(stream));
    });
    std::printf(
      "%-8s floor: contiguous cudaMemcpyAsync  %7.2f GB/s (median %.2f)\n",
      gathers ? "gather" : "scatter", floor.best, floor.median);
    for (std::uint64_t block : {4096ul, 16384ul, 32768ul, 65536ul, 131072ul, 262144ul, 1048576ul}) {
      auto chunks = chunks_of(block);
      auto by = [&](cuda::carrier carrier) {
        std::vector<std::vector<cuda::piece>> parts;
        for (const auto& pieces : chunks)
          parts.push_back(staged(pieces));
        return measure(pool_bytes, [&, carrier] {
          for (std::size_t i = 0; i < parts.size(); ++i)
            check(cuda::copy_pieces(
              which, carrier, memory.get(), slot(i), parts[i].data(), parts[i].size(), stream));
          check(cudaStreamSynchronize(stream));
        });
      };
      auto kernel = by(cuda::carrier::kernel);
      auto engine = by(cuda::carrier::copy_engine);
      auto through_port = measure(pool_bytes, [&] {
        std::vector<std::unique_ptr<kv_device::copy>> copies;
        for (std::size_t i = 0; i < chunks.size(); ++i) {
          if (i >= ring && !finish(*copies[i - ring]))
            give_up("a copy failed");
          std::span all{memory.get(), pool_bytes};
          std::span some{slot(i), chunk_bytes};
          copies.push_back(
            gathers ? device->gather(all, chunks[i], some) : device->scatter(all, chunks[i], some));
        }
        for (auto& copy : copies)
          if (!finish(*copy))
            give_up("a copy failed");
      });
      std::printf(
        "%-8s %5llu KiB scattered: kernel %7.2f (%.2f), copy engines %7.2f (%.2f), cuda_device "
        "%7.2f (%.2f) GB/s, %.0f %% of the floor\n",
        gathers ? "gather" : "scatter", static_cast<unsigned long long>(block >> 10), kernel.best,
        kernel.median, engine.best, engine.median, through_port.best, through_port.median,
        100 * through_port.best / floor.best);
      std::fflush(stdout);
    }
    auto chunk = chunks_of(32768).front();
    std::vector<double> micros;
    for (int i = 0; i < 1000; ++i) {
      std::span all{memory.get(), pool_bytes};
      std::span some{slot(0), chunk_bytes};
      auto begin = wall::now();
      auto copy = gathers ? device->gather(all, chunk, some) : device->scatter(all, chunk, some);
      finish(*copy);
      micros.push_back(std::chrono::duration<double, std::micro>(wall::now() - begin).count());
    }
    std::ranges::sort(micros);
    std::printf(
      "%-8s one chunk of 32 KiB blocks, alone: %.1f us (median), %.1f us (99 of 100)\n",
      gathers ? "gather" : "scatter", micros[500], micros[990]);
  }
  cudaStreamDestroy(stream);
}

struct offer {
  char host[1024];
  char device[1024];
};

/// The process that is read from.
[[noreturn]] void be_source(int out) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto source = have(make_ucx_transport({}));
  auto device = have(make_cuda_device());
  auto memory = have(device->make_memory(pool_bytes));
  std::vector<std::byte> host(pool_bytes, std::byte{1});
  auto on_host = have(source->add_region(host));
  auto on_device = have(source->add_region({std::span{memory.get(), pool_bytes}, device}));
  source->open_window(on_host, key);
  source->open_window(on_device, key);
  offer mine{};
  std::snprintf(mine.host, sizeof mine.host, "%s", source->address(on_host).c_str());
  std::snprintf(mine.device, sizeof mine.device, "%s", source->address(on_device).c_str());
  if (::write(out, &mine, sizeof mine) != sizeof mine)
    std::exit(1);
  for (;;)
    ::pause();
}

void measure_processes(const offer& theirs) {
  ucx_settings settings;
  settings.same_host = false;
  auto own = have(make_ucx_transport(settings));
  auto device = have(make_cuda_device());
  auto memory = have(device->make_memory(pool_bytes));
  std::vector<std::byte> host(pool_bytes, std::byte{2});
  auto on_host = have(own->add_region(host));
  auto on_device = have(own->add_region({std::span{memory.get(), pool_bytes}, device}));
  for (std::uint64_t block : {4096ul, 32768ul, 131072ul, 1048576ul}) {
    auto count = pool_bytes / block;
    auto spans = spans_of(order(count, 1), order(count, 2), block);
    auto pull = [&](const char* from, kv_transport::region_id into) {
      return measure(pool_bytes, [&, from, into] {
        std::promise<kv_transport::outcome> promise;
        own->pull(from, key, into, spans, 60s, [&](kv_transport::outcome how) {
          promise.set_value(std::move(how));
        });
        auto how = promise.get_future().get();
        if (how.why.code != errc::ok)
          give_up(to_string(how.why));
      });
    };
    auto hosts = pull(theirs.host, on_host);
    auto out = pull(theirs.device, on_host);
    auto in = pull(theirs.host, on_device);
    auto devices = pull(theirs.device, on_device);
    std::printf(
      "TCP      %5llu KiB scattered: host to host %5.2f (%.2f), device to host %5.2f (%.2f), host "
      "to device %5.2f (%.2f), device to device %5.2f (%.2f) GB/s\n",
      static_cast<unsigned long long>(block >> 10), hosts.best, hosts.median, out.best, out.median,
      in.best, in.median, devices.best, devices.median);
    std::fflush(stdout);
  }
}

} // namespace

int main() {
  int pipe[2];
  if (::pipe(pipe) != 0)
    return 2;
  auto source = ::fork(); // before CUDA has begun here
  if (source == 0)
    be_source(pipe[1]);
  ::close(pipe[1]);
  offer theirs{};
  if (::read(pipe[0], &theirs, sizeof theirs) != sizeof theirs) {
    ::waitpid(source, nullptr, 0);
    return 1; // it has said why
  }
  std::printf("%s\n", have(describe_cuda_device()).c_str());
  measure_copies();
  measure_processes(theirs);
  ::kill(source, SIGKILL);
  ::waitpid(source, nullptr, 0);
}
