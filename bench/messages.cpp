// What a token costs between nodes: 256 deltas of an engine step as one tokens_msg, beside one
// tokens_msg for each. Two processes, linked as nodes of a cluster are. The floor is the same bytes
// of a step through a bare TCP connection.
#include "actors/protocol/serving_messages.hpp"
#include "bench/bench_node.hpp"
#include "runtime/base/log.hpp"
#include "runtime/serving/step_batch.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <arpa/inet.h>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <future>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

using namespace llumnix;
using steady = std::chrono::steady_clock;

constexpr std::size_t streams = 256; ///< deltas of a step, one token each
constexpr std::size_t window = 8;    ///< steps on their way at most
constexpr int runs = 5;              ///< of each form, in turns; the best counts

struct form {
  const char* name;
  std::size_t messages; ///< per step
  std::size_t steps;    ///< per run
};
constexpr form forms[] = {{"one message a step", 1, 3'000}, {"one message a token", streams, 60}};

struct cost {
  double wall_ns = 1e300, sender_ns = 1e300, receiver_ns = 1e300; ///< per token
};

tokens_msg message_of(std::size_t deltas) {
  step_batch batch;
  for (std::size_t i = 0; i < deltas; ++i)
    batch.add({.stream = 1'000 + i, .epoch = 0, .start = 17, .tokens = {97}, .logprobs = {}});
  return {{"engine-0", 1'700'000'000'000}, "engine-0", std::move(batch.bytes())};
}

// -- the receiving process ------------------------------------------------------------------------

/// Counts what arrives, says so after each step, and tells its CPU time when asked.
caf::behavior receive(caf::event_based_actor* self) {
  auto expected = std::make_shared<std::size_t>(1);
  auto left = std::make_shared<std::size_t>(1);
  auto answer = [self](auto... what) {
    self->send(caf::actor_cast<caf::actor>(self->current_sender()), what...);
  };
  return {
    [=](start_atom, std::uint64_t messages_per_step) {
      *expected = *left = messages_per_step;
      answer(start_atom::value, bench::process_cpu_ns());
    },
    [=](const tokens_msg& msg) {
      if (msg.batch.size() * *expected < streams)
        std::_Exit(1); // not what was sent
      if (--*left > 0)
        return;
      *left = *expected;
      answer(step_atom::value);
    },
    [](const peer_up_msg&) {},
    [](const peer_down_msg&) {},
  };
}

int run_receiver(const std::string& seed) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  bench::bench_node node{
    "sink",
    {},
    {seed},
    {bench::untyped_role("sink", receive, [](node_card& card, const caf::strong_actor_ptr& actor) {
      card.hubs.push_back(caf::actor_cast<stream_hub_actor>(actor));
    })}};
  for (;;)
    ::pause();
}

// -- the sending process --------------------------------------------------------------------------

struct sending {
  sending() = default;
  caf::event_based_actor* self = nullptr;
  std::shared_ptr<std::promise<std::vector<cost>>> done;
  caf::actor sink;
  std::vector<cost> best = std::vector<cost>(std::size(forms));
  std::size_t round = 0; ///< which run of which form: round % forms
  bool running = false;
  tokens_msg message;
  std::size_t sent = 0, received = 0; ///< steps
  steady::time_point began;
  std::int64_t sender_cpu = 0, receiver_cpu = 0;

  const form& now() const { return forms[round % std::size(forms)]; }

  void ask() { self->send(sink, start_atom::value, std::uint64_t{now().messages}); }

  void begin(std::int64_t cpu_there) {
    running = true;
    sent = received = 0;
    message = message_of(streams / now().messages);
    receiver_cpu = cpu_there;
    sender_cpu = bench::process_cpu_ns();
    began = steady::now();
    while (sent < window)
      send_step();
  }

  void send_step() {
    ++sent;
    for (std::size_t i = 0; i < now().messages; ++i)
      self->send(sink, message);
  }

  void on_step() {
    if (++received == now().steps)
      ask();
    else if (sent < now().steps)
      send_step();
  }

  void on_cpu(std::int64_t cpu_there) {
    if (!running)
      return begin(cpu_there);
    auto tokens = static_cast<double>(now().steps * streams);
    auto& x = best[round % std::size(forms)];
    std::chrono::duration<double, std::nano> wall = steady::now() - began;
    x.wall_ns = std::min(x.wall_ns, wall.count() / tokens);
    x.sender_ns
      = std::min(x.sender_ns, static_cast<double>(bench::process_cpu_ns() - sender_cpu) / tokens);
    x.receiver_ns = std::min(x.receiver_ns, static_cast<double>(cpu_there - receiver_cpu) / tokens);
    running = false;
    if (++round == runs * std::size(forms))
      done->set_value(best);
    else
      ask();
  }
};

caf::behavior send_all(
  caf::stateful_actor<sending>* self, std::shared_ptr<std::promise<std::vector<cost>>> done) {
  auto& state = self->state;
  state.self = self;
  state.done = std::move(done);
  return {
    [&state](const peer_up_msg& msg) {
      if (msg.card.hubs.empty() || state.sink)
        return;
      state.sink = caf::actor_cast<caf::actor>(msg.card.hubs.front());
      state.ask();
    },
    [&state](start_atom, std::int64_t cpu) { state.on_cpu(cpu); },
    [&state](step_atom) { state.on_step(); },
    [](const peer_down_msg&) {}, // then no more is said, and main gives up in time
  };
}

/// CPU nanoseconds per token, both sides, of the bytes of a step through a loopback connection.
double floor_of(std::size_t bytes) {
  int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  auto* address = reinterpret_cast<sockaddr*>(&at);
  int out = ::socket(AF_INET, SOCK_STREAM, 0);
  if (
    ::bind(listener, address, size) != 0 || ::listen(listener, 1) != 0
    || ::getsockname(listener, address, &size) != 0 || ::connect(out, address, size) != 0)
    return 0;
  int in = ::accept(listener, nullptr, nullptr);
  std::vector<char> step(bytes);
  double best = 1e300;
  for (int run = 0; run < runs; ++run) {
    constexpr std::size_t steps = 10'000;
    auto begin = bench::process_cpu_ns();
    for (std::size_t i = 0; i < steps; ++i) {
      if (::send(out, step.data(), bytes, 0) != static_cast<ssize_t>(bytes))
        return 0;
      for (std::size_t got = 0; got < bytes;) {
        auto n = ::recv(in, step.data() + got, bytes - got, 0);
        if (n <= 0)
          return 0;
        got += static_cast<std::size_t>(n);
      }
    }
    best = std::min(best, static_cast<double>(bench::process_cpu_ns() - begin) / (steps * streams));
  }
  return best;
}

int run_sender() {
  auto done = std::make_shared<std::promise<std::vector<cost>>>();
  auto result = done->get_future();
  bench::bench_node node{
    "source",
    {"gateway"},
    {},
    {bench::untyped_role(
      "source", [done](caf::stateful_actor<sending>* self) { return send_all(self, done); },
      [](node_card&, const caf::strong_actor_ptr&) {})}};
  auto child = ::fork();
  if (child == 0) {
    ::execl("/proc/self/exe", "bench_messages", node.address().c_str(), nullptr);
    std::_Exit(127);
  }
  auto timely = result.wait_for(std::chrono::minutes{1}) == std::future_status::ready;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  if (!timely) {
    std::fprintf(stderr, "no answer from the receiving process\n");
    return 1;
  }
  auto best = result.get();
  auto floor = floor_of(message_of(streams).batch.size());
  fmt::print("{} tokens a step; CPU ns per token\n", streams);
  fmt::print(
    "{:<20} {:>12} {:>12} {:>8} {:>9} {:>6} {:>10}\n", "", "messages/s", "tokens/s", "sender",
    "receiver", "both", "x floor");
  for (std::size_t i = 0; i < std::size(forms); ++i) {
    const auto& x = best[i];
    auto both = x.sender_ns + x.receiver_ns;
    fmt::print(
      "{:<20} {:>12.0f} {:>12.0f} {:>8.1f} {:>9.1f} {:>6.1f} {:>10.1f}\n", forms[i].name,
      1e9 / x.wall_ns * static_cast<double>(forms[i].messages) / streams, 1e9 / x.wall_ns,
      x.sender_ns, x.receiver_ns, both, both / floor);
  }
  auto both = [&](std::size_t i) { return best[i].sender_ns + best[i].receiver_ns; };
  fmt::print("{:<20} {:>46.1f} {:>10}\n", "floor: bare TCP", floor, "1.0");
  fmt::print("a message a token costs {:.0f} times a message a step\n", both(1) / both(0));
  std::fflush(stdout);
  std::_Exit(0); // the node ends with the process
}

} // namespace

int main(int argc, char** argv) {
  log::configure({.threshold = log::level::error, .json = false, .node = "bench"});
  return argc > 1 ? run_receiver(argv[1]) : run_sender();
}
