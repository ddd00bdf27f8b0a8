// How fast KV blocks come from another process, beside what the machine can do at all:
//
//   UCX floor     contiguous messages of 1 MiB over an endpoint of the same kind, nothing around
//   memcpy floor  the same blocks, copied out of memory both processes share
//
// All of them take turns, round after round; each row shows its best round, the median, the ratio
// of the best to the best of its floor, and the CPU time of both processes.
#include "transport/ucx/ucx_endpoint.hpp"
#include "transport/ucx/ucx_transport.hpp"

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <future>
#include <netinet/in.h>
#include <numeric>
#include <poll.h>
#include <random>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <vector>

namespace {

using namespace llumnix;
using namespace std::chrono_literals;
using wall = std::chrono::steady_clock;

constexpr double gibibyte = 1024.0 * 1024 * 1024;
constexpr std::size_t message_bytes = 1 << 20;
constexpr std::size_t window = 16;
constexpr handover_id key{1, 2};

std::span<std::byte> make_memory(std::size_t bytes, bool shared) {
  auto* made = ::mmap(
    nullptr, bytes, PROT_READ | PROT_WRITE, (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1,
    0);
  if (made == MAP_FAILED)
    std::abort();
  return {static_cast<std::byte*>(made), bytes};
}

void touch(std::span<std::byte> memory) {
  std::memset(memory.data(), 1, memory.size());
}

/// A UCX worker without anything of ours around it; both ends of the UCX floor.
struct plain_ucx {
  plain_ucx() {
    context = std::move(*ucx::make_context("lo"));
    worker = std::move(*ucx::make_worker(context));
    take(
      ucx::control_message, [](
                              void* self, const void* header, std::size_t bytes, void*, std::size_t,
                              const ucp_am_recv_param_t*) {
        if (bytes == sizeof(std::uint64_t))
          std::memcpy(&static_cast<plain_ucx*>(self)->wanted, header, bytes);
        return UCS_OK;
      });
    take(
      ucx::chunk_message, [](
                            void* self, const void*, std::size_t, void* data, std::size_t bytes,
                            const ucp_am_recv_param_t*) {
        auto& me = *static_cast<plain_ucx*>(self);
        auto* to = me.memory.data() + me.asked++ * message_bytes % me.memory.size();
        me.end->receive(me.worker.get(), data, {{to, bytes}}, [&me](ucs_status_t) { ++me.landed; });
        return UCS_INPROGRESS;
      });
  }
  void take(unsigned id, ucp_am_recv_callback_t call) {
    ucp_am_handler_param_t param{};
    param.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB
                       | UCP_AM_HANDLER_PARAM_FIELD_ARG;
    param.id = id;
    param.cb = call;
    param.arg = this;
    if (ucp_worker_set_am_recv_handler(worker.get(), &param) != UCS_OK)
      std::abort();
  }
  /// One turn, asleep a little when nothing moved.
  void turn() {
    if (ucp_worker_progress(worker.get()) != 0 || ucp_worker_arm(worker.get()) != UCS_OK)
      return;
    int descriptor = -1;
    ucp_worker_get_efd(worker.get(), &descriptor);
    pollfd ready{descriptor, POLLIN, 0};
    ::poll(&ready, 1, 20);
  }
  void serve() {
    std::vector<std::shared_ptr<bool>> sent;
    for (std::uint64_t next = 0;;) {
      if (knock != nullptr)
        end = std::move(*ucx::ucx_endpoint::accept(worker.get(), std::exchange(knock, nullptr)));
      std::erase_if(sent, [](const auto& x) { return *x; });
      while (wanted > 0 && sent.size() < window) {
        --wanted;
        sent.push_back(std::make_shared<bool>(false));
        end->send_chunk(
          std::vector<std::byte>(8),
          {{memory.data() + next++ * message_bytes % memory.size(), message_bytes}}, true,
          sent.back());
      }
      turn();
    }
  }
  void fetch(std::uint64_t messages) {
    landed = 0;
    std::vector<std::byte> header(sizeof messages);
    std::memcpy(header.data(), &messages, sizeof messages);
    end->send(header);
    while (landed < messages)
      turn();
  }

  ucx::context context;
  ucx::worker worker;
  ucx::listener listener;
  std::unique_ptr<ucx::ucx_endpoint> end;
  ucp_conn_request_h knock = nullptr;
  std::span<std::byte> memory;
  std::uint64_t wanted = 0, asked = 0, landed = 0;
};

struct offer {
  char address[1024];
  std::uint16_t floor_port;
};

/// The source's process: our transport on threads of its own, and the UCX floor on this one.
[[noreturn]] void be_source(std::size_t bytes, std::span<std::byte> shared, int out) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  auto source = std::move(*make_ucx_transport({}));
  auto memory = make_memory(bytes, false);
  auto region = *source->add_region(memory);
  touch(memory);
  touch(shared);
  source->open_window(region, key);
  plain_ucx floor;
  floor.memory = memory;
  auto where = *ucx::socket_address("127.0.0.1", 0);
  floor.listener = std::move(*ucx::make_listener(
    floor.worker, where,
    [](ucp_conn_request_h request, void* self) { static_cast<plain_ucx*>(self)->knock = request; },
    &floor));
  offer mine{};
  std::snprintf(mine.address, sizeof mine.address, "%s", source->address(region).c_str());
  mine.floor_port = ucx::port_in(*ucx::address_of(floor.listener));
  if (::write(out, &mine, sizeof mine) != sizeof mine)
    std::abort();
  floor.serve();
  std::abort();
}

double cpu_s(clockid_t clock) {
  timespec at{};
  ::clock_gettime(clock, &at);
  return static_cast<double>(at.tv_sec) + static_cast<double>(at.tv_nsec) / 1e9;
}

struct row {
  std::string name;
  int floor; ///< index of the row it is compared with; -1: it is a floor
  std::function<void()> run;
  std::vector<double> rates;
  std::vector<double> cpu_per_gib;
};

std::vector<std::uint32_t> order(std::size_t count, bool scattered, std::uint64_t seed) {
  std::vector<std::uint32_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::mt19937_64 random{seed};
  if (scattered)
    std::shuffle(blocks.begin(), blocks.end(), random);
  return blocks;
}

std::string size_name(std::size_t bytes) {
  return bytes < 1 << 20 ? std::to_string(bytes >> 10) + " KiB"
                         : std::to_string(bytes >> 20) + " MiB";
}

} // namespace

// usage: bench_kv_transport [MEBIBYTES [ROUNDS]]      default: 128 8
int main(int argc, char** argv) {
  auto bytes = (argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 128) << 20;
  auto rounds = argc > 2 ? std::atoi(argv[2]) : 8;
  auto shared = make_memory(bytes, true);
  int pipe[2];
  if (bytes < 8 << 20 || rounds < 1 || ::pipe(pipe) != 0)
    return 2;
  auto source = ::fork();
  if (source == 0)
    be_source(bytes, shared, pipe[1]);
  offer theirs{};
  if (::read(pipe[0], &theirs, sizeof theirs) != sizeof theirs)
    return 1;
  clockid_t source_clock = 0;
  ::clock_getcpuclockid(source, &source_clock);

  ucx_settings settings;
  auto direct = std::move(*make_ucx_transport(settings));
  settings.same_host = false;
  auto by_tcp = std::move(*make_ucx_transport(settings));
  auto memory = make_memory(bytes, false);
  auto into = *direct->add_region(memory);
  auto into_tcp = *by_tcp->add_region(memory);
  touch(memory);
  plain_ucx floor;
  floor.memory = memory;
  floor.end = std::move(*ucx::ucx_endpoint::connect(
    floor.worker.get(), *ucx::socket_address("127.0.0.1", theirs.floor_port)));

  std::vector<row> rows;
  rows.push_back(
    {"UCX floor, 1 MiB messages", -1, [&] { floor.fetch(bytes / message_bytes); }, {}, {}});
  auto add = [&](const char* kind, std::size_t block, bool scattered) {
    auto from = order(bytes / block, scattered, 1);
    auto to = order(bytes / block, scattered, 2);
    auto spans = spans_of(from, to, block);
    auto name = size_name(block) + (scattered ? " scattered, " : " in a row, ") + kind;
    if (std::string{kind} == "memcpy") {
      rows.push_back(
        {name + " floor",
         -1,
         [=] {
           for (std::size_t i = 0; i < from.size(); ++i)
             std::memcpy(memory.data() + to[i] * block, shared.data() + from[i] * block, block);
         },
         {},
         {}});
      return;
    }
    auto is_direct = std::string{kind} == "direct";
    auto* transport = is_direct ? direct.get() : by_tcp.get();
    auto region = is_direct ? into : into_tcp;
    rows.push_back(
      {name,
       is_direct ? static_cast<int>(rows.size()) - 1 : 0,
       [=, &theirs] {
         std::promise<kv_transport::outcome> promise;
         transport->pull(theirs.address, key, region, spans, 60s, [&](kv_transport::outcome how) {
           promise.set_value(std::move(how));
         });
         auto how = promise.get_future().get();
         if (how.why.code != errc::ok) {
           std::fprintf(stderr, "%s\n", to_string(how.why).c_str());
           std::exit(1);
         }
       },
       {},
       {}});
  };
  for (std::size_t block : {4096ul, 32768ul, 131072ul, 1ul << 20, 8ul << 20}) {
    add("TCP", block, true);
    add("memcpy", block, true);
    add("direct", block, true);
  }
  add("TCP", 1 << 20, false);
  add("memcpy", 1 << 20, false);
  add("direct", 1 << 20, false);

  for (int round = -1; round < rounds; ++round) // the first one warms up
    for (auto& one : rows) {
      auto cpu = cpu_s(CLOCK_PROCESS_CPUTIME_ID) + cpu_s(source_clock);
      auto begin = wall::now();
      one.run();
      auto seconds = std::chrono::duration<double>(wall::now() - begin).count();
      auto gib = static_cast<double>(bytes) / gibibyte;
      if (round < 0)
        continue;
      one.rates.push_back(gib / seconds);
      one.cpu_per_gib.push_back(
        (cpu_s(CLOCK_PROCESS_CPUTIME_ID) + cpu_s(source_clock) - cpu) / gib);
    }

  std::printf(
    "%-34s %10s %10s %8s %8s %14s\n", "", "best GiB/s", "median", "ratio", "median",
    "CPU s per GiB");
  std::vector<double> bests, medians;
  for (auto& one : rows) {
    // Rounds are compared pair by pair too: what disturbs a round disturbs both.
    auto rates = one.rates;
    std::ranges::sort(rates);
    std::ranges::sort(one.cpu_per_gib);
    bests.push_back(rates.back());
    std::printf("%-34s %10.2f %10.2f", one.name.c_str(), rates.back(), rates[rates.size() / 2]);
    if (one.floor < 0) {
      std::printf(" %8s %8s", "", "");
    } else {
      const auto& base = rows[static_cast<std::size_t>(one.floor)];
      std::vector<double> ratios;
      for (std::size_t i = 0; i < one.rates.size(); ++i)
        ratios.push_back(one.rates[i] / base.rates[i]);
      std::ranges::sort(ratios);
      std::printf(
        " %8.2f %8.2f", rates.back() / bests[static_cast<std::size_t>(one.floor)],
        ratios[ratios.size() / 2]);
    }
    std::printf(" %14.3f\n", one.cpu_per_gib[one.cpu_per_gib.size() / 2]);
  }
  floor.end->close();
  while (!floor.end->closed())
    ucp_worker_progress(floor.worker.get());
  ::kill(source, SIGKILL);
}
